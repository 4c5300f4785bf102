"""What elements of the paper need at a scale, carried out: trainings, studies, computations; and what is shown."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segradius.cli.options import RunOptions, device_name
from segradius.core.errors import InputError, SegradiusError
from segradius.core.locking import owned
from segradius.core.names import safe_name
from segradius.core.safe_json import read_json
from segradius.core.screen import note, say, warn
from segradius.core.storage import as_json, write_atomically
from segradius.core.text import refuse_unknown
from segradius.paper.block import Block
from segradius.paper.element import Element
from segradius.paper.measured import Measured, measured
from segradius.paper.opened import sha256_of, subjects_of, weights_of
from segradius.paper.plan import COMPUTED, Part, folder_of, networks_of, parts, with_starts
from segradius.paper.recipe import is_trained, note_asked, training
from segradius.paper.scale import Network, Scale
from segradius.paper.spec import with_values

if TYPE_CHECKING:
    from segradius.cli.paper_options import PaperOptions
    from segradius.cli.workers import WorkerOptions
    from segradius.paper.computed import Subject


@dataclass(frozen=True)
class Work:
    """What some elements need at a scale.

    Attributes:
        scale: Filled with what was given.
        out: Folder of all scales.
        networks: Those that are needed, each after the one that its training starts from.
        parts: Studies.
        computed: Blocks that are computed.
        lacking: By label, what images and networks lack; under --available they are left out.
        blocks: All that the elements have, by name.
        images_from: By name, the folders of images that were given.
    """

    scale: Scale
    out: Path
    networks: tuple[Network, ...]
    parts: tuple[Part, ...]
    computed: tuple[Block, ...]
    lacking: Mapping[str, str] = field(default_factory=dict)
    blocks: Mapping[str, Block] = field(default_factory=dict)
    images_from: Mapping[str, str] = field(default_factory=dict)

    @staticmethod
    def of(elements: Sequence[Element], options: PaperOptions) -> Work:
        """That of elements; nothing is opened."""
        whole, blocks = options.read()
        scale, out = whole.filled(options.names), options.folder
        needed = {name: blocks[name] for each in elements for name in each.blocks}
        left = {label: f"--given {name}=PATH" for label, name in scale.lacking.items()}
        if options.available:
            left |= _absent(scale, left)
            scale = scale.without(left)
        networks = {each.label: each for block in needed.values() for each in networks_of(block, scale)}
        return Work(
            scale,
            out,
            with_starts(networks.values(), scale),
            tuple(part for block in needed.values() for part in parts(block, scale, out)),
            tuple(block for block in needed.values() if block.compute and not block.skip),
            left,
            needed,
            {name: path for name, path in options.names.items() if f"{{{name}}}" in str(dict(whole.data))},
        )

    @property
    def untrained(self) -> tuple[Network, ...]:
        """Networks whose training is not over."""
        return tuple(each for each in self.networks if each.train and not is_trained(each, self.scale, self.out))

    def refuse_missing(self) -> None:
        """Raise `InputError` where what is needed was not given, or given and not there, or published weights are not.

        Before anything runs: a folder that is not there would be noticed after the trainings of all others.
        """
        needed = {*(each.data for each in self.networks), *(each.label for each in self.networks)}
        names = [name for label, name in self.scale.lacking.items() if label in needed]
        if names:
            given = ",".join(f"{name}=PATH" for name in dict.fromkeys(names))
            raise InputError(f"scale {self.scale.name} needs --given {given}; --available leaves out what needs it")
        nowhere = [f"{name}={path}" for name, path in self.images_from.items() if not Path(path).expanduser().exists()]
        if nowhere:
            raise InputError(f"--given {','.join(nowhere)}: there is no such folder")
        wrong = [told for each in self.networks if (told := _missing(each, self.scale, self.out))]
        if wrong:
            raise InputError(
                f"{len(wrong)} of {len(self.networks)} networks of scale {self.scale.name} have no weights here; "
                "segradius models convert makes them of what is published, --available leaves them out:\n  "
                + "\n  ".join(wrong)
            )


def carry_out(work: Work, options: PaperOptions, workers: WorkerOptions) -> dict[str, SegradiusError]:
    """Train, measure and compute what is missing.

    Returns:
        By name, why measurements cannot be finished; the others are.
    """
    train_missing(work, options)
    failed: dict[str, SegradiusError] = {}
    for place, part in enumerate(work.parts, 1):
        note(f"{place} of {len(work.parts)} studies: {part.name}, {part.block.about}")
        failed |= _study(part, work, options, workers)
    for place, block in enumerate(work.computed, 1):
        note(f"{place} of {len(work.computed)} computations: {block.name}, {block.about}")
        try:
            _compute(block, work, options)
        except InputError as error:
            failed[block.name] = error
    return failed


def train_missing(work: Work, options: PaperOptions) -> None:
    """Train the networks whose training is not over, each after the one that it starts from."""
    from segradius.cli.measures import group
    from segradius.cli.train import train

    missing = work.untrained
    for place, network in enumerate(missing, 1):
        note(f"{place} of {len(missing)} networks to train: {network.label}, by recipe {network.train}")
        note_asked(network, work.scale, work.out)
        group(train, {**training(network, work.scale, work.out), "device": options.device})


def show(work: Work, elements: Sequence[Element]) -> dict[str, SegradiusError]:
    """Draw all that elements show, and say where it is; what cannot be drawn, and why, by name."""
    folder, found = folder_of(work.out, work.scale), measured(work.out, work.scale, work.blocks.values())
    return draw(elements, found, work.scale, folder)


def draw(elements: Sequence[Element], found: Measured, scale: Scale, folder: Path) -> dict[str, SegradiusError]:
    """Draw what elements show into a folder, and say what is where.

    Returns:
        By name, why something cannot be drawn; all else is.
    """
    from segradius.paper.kinds import KINDS
    from segradius.paper.outputs import write_shown

    failed: dict[str, SegradiusError] = {}
    for each in elements:
        own, title = found.of(each.blocks), f"{each.paper}: {each.title}"
        for it in each.shows:
            try:
                refuse_unknown("kind", [it.kind], KINDS)
                shown = KINDS[it.kind](own, scale, each, name=it.name, **with_values(it.options, scale.values))
                where = f" (Section {each.section})" if each.section else ""
                write_shown(shown, folder, title, [f"The paper{where}: {each.says}"])
                say(f"{it.name}: {folder / it.name}.md")
            except InputError as error:
                failed[it.name] = error
            except LookupError as error:
                told = f"what was computed lacks {error}: of another version? Remove its {COMPUTED} to compute it anew"
                failed[it.name] = InputError(told)
    return failed


def place_of(part: Part, work: Work, options: PaperOptions) -> RunOptions:
    """Where and how a study is run."""
    return RunOptions(
        str(folder_of(work.out, work.scale) / part.name),
        device=options.device,
        batch_size=options.batch_size,
        figures=0,
        speed=options.speed,
    )


def _study(part: Part, work: Work, options: PaperOptions, workers: WorkerOptions) -> dict[str, SegradiusError]:
    from segradius.cli.measures import measures
    from segradius.cli.study_folder import WHOLE, owned_study
    from segradius.cli.study_run import carry_out_all
    from segradius.evaluation.sizing import USUAL
    from segradius.evaluation.study import Study

    at = place_of(part, work, options)
    study = Study.of(part.study, part.block.file)
    all_of_it = measures(study, at)
    executor = workers.hired(
        options.device, allow_download=any(each.model.network.allow_download for each in all_of_it)
    )
    at.folder.parent.mkdir(parents=True, exist_ok=True)
    with owned_study(at.folder, study, WHOLE, at.together or USUAL):
        found, failed = carry_out_all(study, all_of_it, WHOLE, at, executor)
    new = sum(each.new for each in found)
    aside = sum(len(each.aside) for each in found)
    told = f", {aside} images set aside" if aside else ""
    say(f"{part.name}: {len(found)} measurements, {new} of them new{told}")
    return {f"{part.name}/{name}": error for name, error in failed.items()}


def _compute(block: Block, work: Work, options: PaperOptions) -> None:
    from segradius.paper.computed import compute

    folder = folder_of(work.out, work.scale) / safe_name(block.name)
    folder.mkdir(parents=True, exist_ok=True)
    subjects = subjects_of(block, work.scale, work.out, device_name(options.device))
    with owned(folder, (), warn):
        if is_computed(block, subjects, folder):
            say(f"{block.name}: computed, was there")
            return
        found = compute(block.compute, subjects, folder, block.options)
        write_atomically(folder / COMPUTED, as_json({"asked": _asked(block, subjects), "found": found}))
    say(f"{block.name}: computed")


def is_computed(block: Block, subjects: Sequence[Subject], folder: Path) -> bool:
    """Whether what a block computes is in its folder, of the same networks, images and options."""
    file = folder / COMPUTED
    return file.is_file() and read_json(file).get("asked") == json.loads(as_json(_asked(block, subjects)))


def _asked(block: Block, subjects: Sequence[Subject]) -> dict[str, Any]:
    known = [each.known for each in subjects]
    return {"compute": block.compute, "options": dict(block.options), "subjects": known}


def _missing(network: Network, scale: Scale, out: Path) -> str:
    """What keeps a network whose weights are published from being opened; empty where nothing does."""
    file = None if network.train else weights_of(network, out, scale)
    if file is None:
        return ""
    if not file.is_file():
        source = f": {network.source}" if network.source else ""
        return f"{network.label}: {file} is missing{source}"
    if network.sha256 and (found := sha256_of(file)) != network.sha256:
        return f"{network.label}: {file} has SHA-256 {found}; expected {network.sha256}"
    return ""


def _absent(scale: Scale, left: Mapping[str, str]) -> dict[str, str]:
    """By label, why networks are left out beside those that are already."""
    found = {
        each.label: told
        for each in scale.networks.values()
        if each.label not in left and (told := _missing(each, scale, Path()))
    }
    while more := [n for n in scale.networks.values() if n.start in {*left, *found} and n.label not in {*left, *found}]:
        found |= {each.label: f"its training starts from {each.start}" for each in more}
    return found
