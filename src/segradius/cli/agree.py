"""``segradius agree``."""

from __future__ import annotations

from dataclasses import MISSING, dataclass, field, fields, make_dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_type_hints

from segradius.cli.options import DataOptions, ModelOptions, NetworkOptions, RunOptions, target_of
from segradius.core.declared import Budget, Count, Images, Seed, Share
from segradius.core.screen import warn

if TYPE_CHECKING:
    from segradius.evaluation import ModelChoice
    from segradius.evaluation.agreeing import Agreement
    from segradius.evaluation.run import Run
    from segradius.evaluation.store import Store

#: The exit status where two deployments do not agree.
DIFFER = 6


@dataclass(frozen=True)
class ImageOptions:
    """The images, whose masks are not looked at.

    Args:
        data: Images: scenes, images:PATH, or NAME:PATH as voc:PATH; see segradius list data. python:MODULE:OBJECT runs
            that code.
        split: Part of the data set; its evaluation part by default.
        limit: Only the first so many images.
        stride: Only every stride-th image, as neighbouring frames of a video look alike.
        size: Resize to height x width, as in 240x320.
        protocol: Named preparation of images, instead of size.
        order: given by the data, or spread: one of which limit takes images from everywhere.
    """

    data: str
    split: str | None = None
    limit: Images | None = None
    stride: Images = 1
    size: str | None = None
    protocol: str | None = None
    order: Literal["given", "spread"] = "given"

    @property
    def whole(self) -> DataOptions:
        """With the first deployment's predictions in place of labels."""
        return DataOptions(**vars(self), labels="predicted")


@dataclass(frozen=True)
class FirstOptions:
    """The first, MODEL.

    Args:
        network: See `NetworkOptions`.
        answers: Make its answers as a deployed one's: digits=3 (rounded), top=2 (only the two best classes), labels, or
            several with commas; it is then asked as a target.
        input: Make of the images what a deployed target would: uint8, jpeg=90; likewise.
        budget: Images that it may answer in all, earlier runs in the folder included; likewise. Default: no limit.
        dtype: Of a network's weights and so of what it computes: float32 or bfloat16. Default: its own.
        denoiser: What every image goes through before a network sees it.
    """

    network: NetworkOptions = field(default_factory=NetworkOptions)
    answers: str | None = None
    input: str | None = None
    budget: Budget | None = None
    dtype: Literal["float32", "bfloat16"] | None = None
    denoiser: str | None = None

    def of(self, spec: str) -> ModelOptions:
        """The options of a model, or of a target if it is one or is to be asked as one."""
        asked = target_of(spec) is not None or any((self.answers, self.input, self.budget))
        given: dict[str, Any] = {"target" if asked else "model": spec, **vars(self)}
        return ModelOptions(**given)


def _others() -> type:
    """Those of `FirstOptions` for the second, each name with ``other_`` before it."""
    hints = {
        **get_type_hints(NetworkOptions, include_extras=True),
        **get_type_hints(FirstOptions, include_extras=True),
    }
    known = [*fields(NetworkOptions), *(each for each in fields(FirstOptions) if each.name != "network")]
    made = [
        (f"other_{each.name}", hints[each.name], field(default=None if each.default is MISSING else each.default))
        for each in known
    ]
    docs = "\n".join(f"    other_{each.name}: As --{each.name.replace('_', '-')}, of the second." for each in known)
    doc = f"The second, TARGET.\n\nArgs:\n{docs}\n"
    return make_dataclass("OtherOptions", made, frozen=True, namespace={"__doc__": doc, "__module__": __name__})


OtherOptions: Any = _others()


def _second(given: Any) -> FirstOptions:
    """The options of the second under the names of the first's."""
    plain = {name.removeprefix("other_"): value for name, value in vars(given).items()}
    network = {each.name: plain.pop(each.name) for each in fields(NetworkOptions)}
    return FirstOptions(NetworkOptions(**network), **plain)


def agree(
    model: str,
    target: str,
    /,
    data: ImageOptions,
    first: FirstOptions,
    other: OtherOptions,
    least: Share = 0.99,
    out: str = "segradius-agreement",
    seed: Seed = 0,
    device: str = "auto",
    batch_size: Count = 8,
    figures: Images = 2,
    overwrite: bool = False,
    fail_on_set_aside: bool = False,
) -> int:
    """Tell whether two deployments of one network say the same, before any figure of one is believed of the other.

    Each of the two is anything that --model or --target of the other commands takes; both are asked about the same
    images, each image once, and a target's queries are counted. Prints how many pixels agree, at boundaries and inside,
    by class, which shift, order of classes or preparation of the images would make them agree best, and a verdict, and
    writes results.json, per_image.csv, classes.csv, confusion.csv, table.md, figure.png and results.sqlite into a
    folder. Ends with exit status 0 where they agree and 6 where they do not.

    Args:
        model: The first: a network, file, server or card.
        target: The second, likewise.
        data: See `ImageOptions`.
        first: See `FirstOptions`.
        other: See `OtherOptions`.
        least: Share of the pixels that must agree.
        out: Folder of the report.
        seed: Seed of a network without weights.
        device: auto, cpu, cuda or cuda:N.
        batch_size: Images at a time; changes no result but by rounding.
        figures: Number of images in the picture, those that agree least.
        overwrite: Replace what another experiment left in the folder.
        fail_on_set_aside: End with exit status 3 where an image was set aside; the report is written all the same.

    Returns:
        The exit status.
    """
    from functools import partial

    from segradius.cli.run_folder import carry_out, status
    from segradius.core.bands import bands_of
    from segradius.data.usable import refuse_other_bands
    from segradius.evaluation.agreeing import Agreeing, Agreement, Second
    from segradius.evaluation.run import Run
    from segradius.report.agree import report_agreement

    at = RunOptions(
        out, seed, device, batch_size, figures=figures, overwrite=overwrite, fail_on_set_aside=fail_on_set_aside
    )
    asked = data.whole
    opened = asked.open()
    seen, chosen = first.of(model).open(opened, device, seed)
    theirs, described = _second(other).of(target).open(opened, device, seed)
    refuse_other_bands(opened, bands_of(theirs), theirs.name)
    _tell_same(chosen, described)
    second = Second(theirs)
    study = Agreement(chosen, asked.choice, Agreeing(described, second), seed)
    run = Run(study, seen, opened, batch_size)
    found = carry_out(
        run,
        at,
        partial(report_agreement, least=least, figures=figures),
        doubt=partial(_begin, second, at.folder),
        files={},
    )
    second.finish()
    return status(found, at) or (0 if found.summary.verdict == "agree" else DIFFER)


def _begin(second: Any, folder: Path, run: Run[Agreement], store: Store) -> None:
    """Let the second go on counting where an earlier run stopped."""
    from segradius.cli.run_store import OTHERS

    second.resume(run.experiment.jobs[0], store, folder / OTHERS, warn)


def _tell_same(first: ModelChoice, second: ModelChoice) -> None:
    """Warn where the two are one."""
    if replace(first, fingerprint="") == replace(second, fingerprint=""):
        warn("both are the same: they agree by definition, unless the network is not deterministic")
