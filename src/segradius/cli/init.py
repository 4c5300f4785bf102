"""``segradius init``: from a folder and a model to the files that describe them, and the commands that come next."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segradius.core.declared import Count
from segradius.core.errors import InputError, SegradiusError
from segradius.core.screen import note, progress, say, warn
from segradius.core.text import names, value_of

if TYPE_CHECKING:
    from segradius.data.guessed import Entry
    from segradius.data.sample import Sample, SegmentationData

#: Keys of a segradius.yaml and of a card that are asked for on a terminal, where they are guesses.
ASKED = ("classes", "values", "ignore_index", "bands", "range", "outputs", "normalisation")
#: Where the contact sheet goes, below the folder.
LOOKED = "segradius-data"
#: A list of pairs, where patterns do not name them.
PAIRS = "pairs.csv"


@dataclass(frozen=True)
class Known:
    """What is known; the rest is looked for.

    Args:
        images: Folder or pattern of the images below the folder, as images or 'scans/*.tif'.
        masks: The same of the masks, as masks or 'masks/*_gt.png'.
        classes: Names of the classes, commas between them, in the order of their values in the masks.
        values: Values of the classes in the masks, as 0,255.
        range: Numbers in the image files that become 0 and 1, as 0,4095; for files of more than 8 bits.
        bands: Input channels of an image: 1 for grey, 3 for colour.
        outputs: What the network returns: logits, probabilities, sigmoid, binary_logit, multilabel…
        normalisation: imagenet, none, or {mean: […], std: […]}.
    """

    images: str | None = None
    masks: str | None = None
    classes: str | None = None
    values: str | None = None
    range: str | None = None
    bands: Count | None = None
    outputs: str | None = None
    normalisation: str | None = None

    @property
    def of_data(self) -> dict[str, Any]:
        """Entries of a segradius.yaml."""
        found: dict[str, Any] = {"bands": self.bands}
        found["classes"] = None if self.classes is None else names(self.classes)
        for key in ("values", "range"):
            given = getattr(self, key)
            found[key] = None if given is None or given == "dtype" else [value_of(part) for part in names(given)]
        if self.range == "dtype":
            found["range"] = "dtype"
        return {key: value for key, value in found.items() if value is not None}


def init(
    folder: str,
    /,
    known: Known,
    model: str | None = None,
    weights: str | None = None,
    yes: bool = False,
    overwrite: bool = False,
) -> int:
    """Begin with a folder of images and masks, and a model: write the files that describe them.

    Looks for images and masks by the usual names of folders (images, imgs, scans…; masks, labels, gt…) and files
    (NAME_mask), at the numbers that they hold, and at what the model makes of a few of them. Writes segradius.yaml and,
    for a model, model.yaml into the folder, with what was seen; what is a guess is marked so, and asked for on a
    terminal. Then makes a sheet of images with their masks drawn over them, and prints the commands that come next.

    Args:
        folder: With the images and masks.
        known: See `Known`.
        model: A file (TorchScript, torch.export, ONNX, a card), or a network as segradius attack takes it, as
            my_code:network.
        weights: Checkpoint to load into the network.
        yes: Take the guesses, ask nothing.
        overwrite: Replace a segradius.yaml and a model.yaml that are there.

    Returns:
        The exit status.
    """
    from segradius.core.escapes import listed
    from segradius.core.storage import write_atomically
    from segradius.data import counted, open_data
    from segradius.data.folder import YAML_NAME, spec_of
    from segradius.data.guessed import entries
    from segradius.data.survey import find, look, pairs_csv

    place, ask = Path(folder), _asker(yes)
    text, target = _model(model, weights)
    card = place / "model.yaml" if model and not target and not text.endswith((".yaml", ".yml")) else None
    for file in (place / YAML_NAME, place / PAIRS, card):
        if file is not None and file.exists() and not overwrite:
            raise InputError(f"{file} is there already; add --overwrite to replace it")
    found = find(place, known.images, known.masks)
    if found.masks is None:
        raise InputError(
            f"init: no masks were found beside {place / found.images}: give --masks FOLDER; or go without, with --data "
            f"images:{place / found.images} --labels predicted"
        )
    bands = known.bands
    if model and not target and bands is None:
        from segradius.evaluation.guess import bands_of

        bands = bands_of(text, weights)
    seen = look(found)
    lines = [_asked(each, ask) for each in entries(found, seen, known.of_data, bands)]
    spec_of({each.key: each.value for each in lines}, YAML_NAME)  # refuses what is wrong before it is written
    write_atomically(place / YAML_NAME, _written(lines, f"{len(found.pairs)} pairs of image and mask"))
    note(f"{place / YAML_NAME} written")
    spec, split = f"folder:{folder}", _split(found.splits)
    if found.listing:
        write_atomically(place / PAIRS, pairs_csv(found.pairs, place))
        note(f"{place / PAIRS} written: {len(found.pairs)} pairs, as patterns do not name them alone")
        spec = f"list:{place / PAIRS},about={place / YAML_NAME}"
    if found.lonely and found.listing:
        warn(f"{len(found.lonely)} image(s) without a mask are left out: {listed(found.lonely)}")
    data = open_data(spec, split=split)
    note(counted(data))
    if card is not None:
        content = _card(text, weights, card, known, _samples(data), data, ask)
        write_atomically(card, _written(content, "a card of the model; see docs/models.md for more keys"))
        note(f"{card} written")
    elif target:
        text = _target(text, known, _samples(data, 1), data)
    sheet = _sheet(data, place / LOOKED)
    say(f"Look at {sheet}: are the masks where they should be?" if sheet else "No image can be used.")
    _tell_guesses([*lines, *(content if card is not None else ())], yes=yes)
    _next(spec, split, text if target or card is None else str(card), target=target, model=model is not None)
    return 0 if sheet else 3


def _model(given: str | None, weights: str | None) -> tuple[str, bool]:
    """A model as ``--model`` takes it, or a target as ``--target`` does."""
    if given is None:
        return "", False
    from segradius.models.file_kinds import EXPORTED, ONNX, PYTORCH, SAFETENSORS, TORCHSCRIPT, kind_of

    path = Path(given)
    if not path.is_file() or given.endswith((".yaml", ".yml", ".py")):
        return given, given.startswith(("onnx:", "oip:"))
    kind = kind_of(path)
    if kind in (TORCHSCRIPT, EXPORTED):
        return f"{'torchscript' if kind == TORCHSCRIPT else 'pt2'}:{given}", False
    if kind == ONNX:
        return f"onnx:{given}", True
    if kind in (SAFETENSORS, PYTORCH):
        raise InputError(
            f"{given} is {kind.what}: weights, without the network that they are of. Give --model NETWORK --weights "
            f"{given}, with NETWORK as smp:Unet,encoder_name=resnet18,classes=1 or my_code:network"
        )
    what = f"{kind.what}: {kind.advice}" if kind else "of no known kind"
    raise InputError(f"{given} is {what}; expected a model, or the text of one")


def _asker(yes: bool) -> Callable[[str, str], str]:
    """Asks on a terminal; elsewhere the default is the answer."""
    if yes or not (sys.stdin.isatty() and sys.stderr.isatty()):
        return lambda question, default: default

    def ask(question: str, default: str) -> str:
        print(f"{question} [{default}]: ", end="", file=sys.stderr, flush=True)
        return sys.stdin.readline().strip() or default

    return ask


def _asked(entry: Entry, ask: Callable[[str, str], str]) -> Entry:
    """An entry as it is answered; one that was confirmed or changed is no guess any more."""
    from segradius.core.safe_yaml import from_yaml
    from segradius.data.guessed import flow

    if not entry.guess or entry.key not in ASKED:
        return entry
    default = flow(entry.value)
    answer = ask(f"{entry.key} ({entry.seen})" if entry.seen else entry.key, default)
    return entry if answer == default else replace(entry, value=from_yaml(answer, entry.key), guess=False)


def _written(lines: Sequence[Entry], about: str) -> str:
    return "".join(f"{line}\n" for line in (f"# Made by segradius init: {about}.", *(each.text for each in lines)))


def _split(splits: Sequence[str]) -> str | None:
    usual = [each for each in splits if each.casefold() in ("val", "valid", "validation", "test", "testing", "dev")]
    return next(iter(usual or splits), None)


def _samples(data: SegmentationData, most: int = 4) -> list[Sample]:
    """Some samples that can be used, spread over the data set."""
    from segradius.data.usable import usable

    found = []
    for place in range(0, len(data), max(1, len(data) // most)):
        sample = usable(data, place, len(data.classes))
        if not isinstance(sample, str):
            found.append(sample)
    return found[:most]


def _card(
    text: str,
    weights: str | None,
    card: Path,
    known: Known,
    samples: Sequence[Sample],
    data: SegmentationData,
    ask: Callable[[str, str], str],
) -> list[Entry]:
    """What a card says of the model, by what it makes of some images."""
    from segradius.core.safe_yaml import from_yaml
    from segradius.data.guessed import Entry
    from segradius.evaluation.guess import guess_model

    name = Path(text.rpartition(":")[2].partition(",")[0]).stem
    lines = [Entry("name", name)] if name.strip() else []
    lines += [Entry("model", text, "files named here are found from where the commands run")]
    if weights is not None:
        lines.append(Entry("weights", os.path.relpath(weights, card.parent), "from the folder of this file"))
    guess = None
    if samples:
        try:
            guess = guess_model(text, samples, data.classes, weights)
        except SegradiusError as error:
            warn(f"nothing could be guessed of the model's output: {error}")
    if guess is not None and guess.bands not in (None, 3):
        lines.append(Entry("bands", guess.bands))
    for key, why in (("outputs", guess.why if guess else ""), ("normalisation", guess.tried if guess else "")):
        given, value = getattr(known, key), None if guess is None else getattr(guess, key)
        if given is not None:
            lines.append(Entry(key, from_yaml(given, key)))
        elif value is not None:
            lines.append(_asked(Entry(key, value, why, guess=True), ask))
    return lines


def _target(text: str, known: Known, samples: Sequence[Sample], data: SegmentationData) -> str:
    """A target with what its answers are, as told or guessed."""
    from segradius.evaluation.guess import guess_target

    text += "" if known.normalisation is None else f",normalisation={known.normalisation}"
    if known.outputs is not None:
        return f"{text},outputs={known.outputs}"
    if "outputs=" in text or not samples:
        return text
    try:
        found, why = guess_target(text, samples, data.classes)
    except SegradiusError as error:
        warn(f"nothing could be guessed of the target's answers: {error}")
        return text
    say(f"Guess: {found}, as {why}; images go to it in [0, 1] unless normalisation=… says otherwise.")
    return found


def _sheet(data: SegmentationData, folder: Path, most: int = 23) -> Path | None:
    """A contact sheet of images that are spread over the data set; None where none can be used."""
    from segradius.core.sums import write_files
    from segradius.data.prepared import Prepared
    from segradius.evaluation.check import check_data
    from segradius.report.check import check_files

    spread = sorted({round(k * (len(data) - 1) / max(1, most - 1)) for k in range(most)}) if len(data) else []
    some = Prepared(data, spread)
    with progress("images", len(some), first="looking") as advance:
        looks = check_data(some, progress=advance)
    for name, why in list(looks.faults.items())[:3]:
        warn(f"{name} cannot be used: {why}")
    folder.mkdir(parents=True, exist_ok=True)
    write_files(folder, check_files(looks, some, f"{len(some)} of {len(data)} images"))
    return folder / "sheet.png" if looks.good else None


def _tell_guesses(lines: Sequence[Entry], *, yes: bool) -> None:
    left = [each.key for each in lines if each.guess]
    if left:
        how = "as --yes asks" if yes else "as nobody was asked" if not sys.stdin.isatty() else "as you left them"
        say(f"Guesses, {how}: {', '.join(left)}. Each is marked '# guess' in its file: correct what is wrong there.")


def _next(data: str, split: str | None, text: str, *, target: bool, model: bool) -> None:
    """The commands that come next."""
    part: Mapping[str, str] = {} if split is None else {"--split": split}
    words = [word for pair in part.items() for word in pair]
    asked = [f"--{'target' if target else 'model'}", text if model else "MODEL"]
    attacks = ["--attack", "local_pbgd,local_search"] if target else ["--attack", "pgd,cr_pgd"]
    commands = [
        ["segradius", "data", "check", data, *words],
        ["segradius", "evaluate", *asked, "--data", data, *words],
        ["segradius", "assess", *asked, "--data", data, *words],
        ["segradius", "attack", *asked, "--data", data, *words, *attacks, "--limit", "8"],
    ]
    say("Next:")
    for command in commands:
        say(f"  {shlex.join(command)}")
