"""`evaluate`: attack a model over a data set from Python; and what comes of it, to look at and to save."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, cast

from segradius.attacks.make import default_eps
from segradius.core.contracts import LOGITS, Seen, surrogate_of
from segradius.core.errors import InputError, is_whole, must
from segradius.core.locking import owned
from segradius.core.screen import note, warn
from segradius.core.screen import progress as bar
from segradius.core.sums import write_files
from segradius.data.opening import open_data
from segradius.data.pairs import as_data
from segradius.evaluation.attack import make_plans, with_class_weights
from segradius.evaluation.attack_files import per_image_csv
from segradius.evaluation.attack_summary import Summary, summarise
from segradius.evaluation.columns import as_frame, read_table
from segradius.evaluation.driver import execute
from segradius.evaluation.evidence import SanityVerdict
from segradius.evaluation.facts import Finding
from segradius.evaluation.job import DataChoice, Experiment, Job, ModelChoice
from segradius.evaluation.preflight import warnings
from segradius.evaluation.quicken import NOTE as QUICK
from segradius.evaluation.quicken import quickened
from segradius.evaluation.rows import CLEAN
from segradius.evaluation.run import InProcess, Run, surrogate_marks, work
from segradius.evaluation.sanity import gathered, probed_once, verdicts
from segradius.evaluation.sizing import AUTO, USUAL, sized
from segradius.evaluation.sizing import NOTE as TRIAL
from segradius.evaluation.store import Store
from segradius.models.tiling import fingerprint
from segradius.report.attack import classes_tables, doubted, notes, report_attacks, tables
from segradius.report.cells import nothing_usable, page, set_aside_note
from segradius.report.evaluate import report_accuracy
from segradius.report.provenance import begun_at, runtime
from segradius.report.sanity_table import sanity_lines
from segradius.speed.forms import Speed
from segradius.targets.target import Target
from segradius.threats.budgets import budgets

#: The strongest single attack (docs/strongest.md), and the paper's attacks.
DEFAULT = ("flips", "pgd", "cr_pgd")


@dataclass(frozen=True)
class Results:
    """What attacks did to a model over a data set; printed, it is the tables.

    Attributes:
        run: What was run.
        store: All that is known of each image.
    """

    run: Run[Experiment]
    store: Store

    @cached_property
    def summary(self) -> Summary:
        """Rows of metrics with intervals, each class's among them, paired differences, and images set aside."""
        return summarise(self.run.experiment, self.store, self.run.data.ids, self.run.named)

    @cached_property
    def warnings(self) -> list[Finding]:
        """What is probably a mistake: the name of each check, what it saw, what to do, and the figure behind it."""
        return doubted(self.run.facts(self.store), self.summary)

    @cached_property
    def verdicts(self) -> tuple[SanityVerdict, ...]:
        """Sanity verdicts: the name of each check, its verdict, what it saw, what to do, and the figure behind it."""
        return verdicts(gathered(self.run, self.store, self.summary)) if self.run.experiment.attacks else ()

    def per_image(self) -> list[dict[str, Any]]:
        """A row for each attack and image, as in per_image.csv, with numbers for numbers; None where there is none."""
        text = per_image_csv(self.run.experiment, self.store, self.run.data.ids, self.run.named)
        return list(read_table(text, "images"))

    def to_pandas(self) -> Any:
        """`per_image` as a pandas data frame; raises `InputError` where pandas is not installed."""
        return as_frame(self.per_image(), "images")

    def save(self, folder: str | Path) -> Path:
        """Write the files of ``segradius attack`` into a folder, which is made, and return it.

        Raises:
            InputError: Another process writes there, or there is a results.sqlite already.
        """
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        with owned(folder, (), warn):
            if (folder / "results.sqlite").exists():
                raise InputError(f"{folder} holds results already; expected another folder, as none is overwritten")
            self.store.copy(folder / "results.sqlite")
            report = report_attacks if self.run.experiment.attacks else report_accuracy
            quick, trial = (self.store.noted(name) for name in (QUICK, TRIAL))
            told = (trial or {}).get("told", "")
            facts = runtime(self.run.model, self.run.batch_size, begun_at(self.store), quick, told)
            write_files(folder, report(self.run, self.store, facts).files)
        return folder

    def __str__(self) -> str:
        found = [*tables(self.summary), *classes_tables(self.summary)]
        said = [*notes(self.summary), *warnings(self.warnings), *sanity_lines(self.verdicts, self.warnings)]
        return page(found, said)


def evaluate(
    model: Seen,
    data: Any,
    attacks: str | Sequence[str] | Mapping[str, Mapping[str, Any]] = DEFAULT,
    *,
    norm: str | Sequence[str] | None = None,
    eps: float | str | Mapping[str, Any] | None = None,
    options: Mapping[str, Any] | None = None,
    names: Sequence[str] | None = None,
    structures: Sequence[str] = (),
    aim: str | None = None,
    labels: Literal["given", "predicted"] = "given",
    seed: int = 0,
    batch_size: int | Literal["auto"] = 8,
    figures: int = 2,
    save_images: bool = False,
    gallery: int = 3,
    quiet: bool = False,
    speed: Speed = "plain",
    **more: Any,
) -> Results:
    """Attack a model over a data set and count what is left: ``segradius attack`` from Python.

    Args:
        model: From `segradius.wrap` or `segradius.load_model`; a target from `segradius.targets.open_target` too; of
            either what `segradius.transferred` makes, for attacks that are made on another network.
        data: Text as `segradius.open_data` takes it, a data set of this library, a torch data set or list of pairs of
            image (B, H, W) in [0, 1] and mask (H, W), or a pair of tensors (N, B, H, W) and (N, H, W).
        attacks: Names, or variants by label, as in ``{"long": {"attack": "pgd", "steps": 100}}``; none of them judges
            the images as they are.
        norm: One or several; by default those that ``eps`` names, or else l2.
        eps: One budget, or by norm as in ``{"l2": [0.5, 1.5], "linf": 4 / 255}``; the paper's by default.
        options: Options of the attacks, as in ``{"steps": 20, "cr_pgd.samples": 4}``.
        names: Names of the classes, for data that do not name them.
        structures: Names of K yes/no maps that may overlap, for such data: then masks are (N, K, H, W) of 0, 1 and 255
            for void.
        aim: A class to aim at, by name or number, ``"random"``, or a mask image.
        labels: ``given`` by the data, or ``predicted``: what the model itself makes of each unattacked image, so that
            every accuracy is a stability; masks are not looked at then.
        seed: Of all random numbers, which are drawn for each image by its id.
        batch_size: Images at a time; changes no result but by rounding. ``auto``: as many as fit into memory and pay,
            found by a trial of seconds.
        figures: Images in the picture of `Results.save`.
        save_images: Whether every adversarial image is kept, for `Results.save`.
        gallery: How many images of each attack, of those hurt most and of those hurt least, are kept for that too.
        quiet: Whether nothing is shown on the way: no progress and no warning.
        speed: ``exact``: passes are made cheaper by what changes nothing but rounding; ``fast``: gradients are taken in
            reduced precision too. Every verdict is the model's own either way; see `segradius.speed.sped_up`.
        **more: Further options of the attacks, as in ``steps=20``.

    Raises:
        InputError: For an unknown attack or option, a value out of range, a model that is not wrapped, data that are
            none, or images none of which can be used.

    Example:
        >>> import segradius as sr
        >>> found = sr.evaluate(sr.load_model("demo"), "scenes:24x32,4", "pgd", eps=1.5, steps=3, quiet=True)
        >>> [(row.name, row.images) for row in found.summary.rows], len(found.per_image())
        ([('clean', 4), ('pgd', 4)], 8)
    """
    if not hasattr(model, "offers"):
        raise InputError(f"model is a {type(model).__name__}; expected segradius.wrap(network, …) or load_model(…)")
    found = open_data(data) if isinstance(data, str) else data
    opened = as_data(found, model.num_classes, names=names, structures=structures)
    variants = [attacks] if isinstance(attacks, str) else attacks
    used = [own["attack"] for own in variants.values()] if isinstance(variants, Mapping) else list(variants)
    plans = make_plans(variants, budgets(norm, eps, default_eps(used)), {**(options or {}), **more}) if used else ()
    plans = with_class_weights(plans, opened, model.num_classes, predicted=labels == "predicted")
    spec = data if isinstance(data, str) else opened.name
    colours = getattr(model, "normalisation", None)
    choice = ModelChoice(
        getattr(model, "name", type(model).__name__),
        num_classes=model.num_classes,
        normalisation=None if colours is None else str(colours),
        fingerprint=_mark(model),
        scores_only=LOGITS not in model.offers,
        speed="fast" if speed == "fast" else None,
        **_surrogates(model),
    )
    experiment = Experiment(choice, DataChoice(spec, labels=labels), tuple(plans), aim, seed)
    auto = batch_size == AUTO
    must(auto or is_whole(batch_size, 1), "batch_size", batch_size, "a whole number of at least 1, or auto")
    number = USUAL if auto else int(batch_size)
    run = Run(experiment, model, opened, number, opened.ids[:figures], save=save_images, gallery=gallery)
    store = Store(":memory:")
    store.note("experiment", experiment.as_dict())
    begun_at(store)
    run = quickened(run, store, speed, told=lambda choice: None)
    if auto:
        run, trial = sized(run, store)
        if trial is not None and not quiet:
            note(trial.told)
    unit = "steps" if plans else "images"
    with bar(unit, work(run, store), first="reading", quiet=quiet) as advance:

        def advanced(job: Job, steps: int) -> None:
            advance(steps, job.task.title)

        said: Callable[[str], None] = (lambda line: None) if quiet else warn
        run = replace(run, progress=advanced, warn=lambda found: said(found.line))
        execute(run, store, InProcess(run.model, opened, warn=said))
    aside = store.all_set_aside()
    if not store.done(CLEAN):
        raise nothing_usable(aside, "the data set is empty")
    for line in () if quiet else set_aside_note(aside):
        warn(line)
    probed_once(run, store)  # the network may be another one when it is asked for verdicts
    return Results(run, store)


def _surrogates(model: Seen) -> dict[str, Any]:
    """The networks on which adversarial images are made, as an experiment describes them; nothing where none is."""
    made_on = surrogate_of(model)
    if made_on is None:
        return {}
    inside = getattr(made_on.network, "models", (made_on,))
    return {
        "surrogates": tuple(each.name for each in inside),
        "surrogate_fingerprints": surrogate_marks(model),
        "surrogate_mean": getattr(made_on.network, "mean", None) if inside[1:] else None,
    }


def _mark(model: Seen) -> str:
    if LOGITS in model.offers:
        return fingerprint(model)
    from segradius.targets import opening  # brings every protocol

    return opening.fingerprint(cast(Target, model))
