"""What attacks did, for a reader: tables with what must be known beside them, and a picture of the first images."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from segradius.data.sample import Classes
from segradius.evaluation.attack_files import (
    per_image_csv,
    results_json,
    summary_classes_csv,
    summary_structures_csv,
    traces_csv,
)
from segradius.evaluation.attack_summary import Comparison, Row, Summary, summarise, without_gradient
from segradius.evaluation.class_summary import ClassRow
from segradius.evaluation.confusion import confusion_csv
from segradius.evaluation.facts import Facts, Finding
from segradius.evaluation.gallery import share_left
from segradius.evaluation.job import Experiment, Job
from segradius.evaluation.norms import image_norms
from segradius.evaluation.preflight import findings, told, warnings
from segradius.evaluation.rows import CLEAN
from segradius.evaluation.run import Run
from segradius.evaluation.sanity import gathered, verdicts, verdicts_told
from segradius.evaluation.store import Store
from segradius.report.adversarial import adversarial_files
from segradius.report.cells import Cells, Report, nothing_usable, page, percent, set_aside_note, share
from segradius.report.curve import Curve, draw_curves
from segradius.report.figures import GIVEN, Words, about, figures, said_of, shares
from segradius.report.gallery import gallery_files
from segradius.report.norms import NEEDED, draw_norms, norm_cells, norm_notes
from segradius.report.overlay import Painter
from segradius.report.panels import colour_bar, grid, height, panel, partly, photo, png, swatch
from segradius.report.provenance import heading, made
from segradius.report.sanity_table import sanity_lines, sanity_table
from segradius.report.shown import Looks, Shown, attacking, shown_images

NAMES = {"iou": "IoU", "dice": "Dice"}


def tables(summary: Summary) -> list[Cells]:
    """The tables of a run: metrics of each attack, and paired differences where attacks can be compared."""
    found = [metrics_table(summary)]
    return [*found, differences_table(summary)] if summary.comparisons else found


def metrics_table(summary: Summary) -> Cells:
    """One line for each attack: accuracy left, with 95 % intervals over images, and what the attack cost."""
    grey = any(row.eps_levels is not None for row in summary.rows)
    eps = ("ε", "ε in 1/255") if grey else ("ε",)
    eight = f"{figures(summary)[0]}, 8 bits", "ε, 8 bits"
    needed = NEEDED if any(row.norms for row in summary.rows) else ()
    shown = *eps, "images", *needed, *figures(summary), *eight
    header = ("attack", "norm", *shown, "success %", "passes f+b", "s/image")
    title = "After attack, per cent [95 % interval over images]; passes and seconds per image"
    title += about(summary.rows[0].foreground)
    return Cells(title, header, [_metrics(row, grey=grey, needed=bool(needed)) for row in summary.rows])


def differences_table(summary: Summary) -> Cells:
    """One line for each pair: the difference in what is left of each image."""
    said = said_of(summary)
    left, short = ("pixels not where aimed", "not aimed") if summary.targeted else (said.whole, said.pixacc)
    header = ("attack against other", "norm", "ε", "images", f"{short} difference, points", "p")
    title = f"Paired over images: {left} after one attack minus after the other; below 0 the first is stronger"
    return Cells(title, header, [_difference(comparison) for comparison in summary.comparisons])


def classes_tables(summary: Summary) -> list[Cells]:
    """IoU and Dice of each class, or structure, a column for each attack; nothing where they were not counted."""
    each_of = {row_title(row): _parts(row) for row in summary.rows if _parts(row)}
    found = {title: {each.name: each for each in rows} for title, rows in each_of.items()}
    pixels = {each.name: each.pixels for rows in each_of.values() for each in rows}
    kind, tables = "structure" if summary.structures else "class", []
    for what in ("iou", "dice") if found else ():
        lines = []
        for name, labelled in pixels.items():
            known = (each.get(name) for each in found.values())
            lines.append([name, str(labelled), *("" if row is None else share(getattr(row, what)) for row in known)])
        title = f"{NAMES[what]} of each {kind} over all images, per cent [95 % interval over images]"
        tables.append(Cells(title, (kind, "pixels", *found), lines))
    return tables


def _parts(row: Row) -> Sequence[ClassRow]:
    """Rows of the structures where there are any, else of the classes."""
    return (row.foreground.structures if row.foreground else ()) or row.classes


def row_title(row: Row) -> str:
    """An attack with its norm and budget."""
    return row.name if row.norm is None else f"{row.name} {row.norm} {row.eps:.4g}"


def notes(summary: Summary) -> list[str]:
    """What a reader must know beside the tables: images set aside or invalid, and checks that failed."""
    found = set_aside_note(summary.set_aside)
    for weights in dict.fromkeys(row.weights for row in summary.rows if row.weights):
        found.append(f"Bands have weights w = {weights}: ε bounds ‖w ⊙ δ‖, and lengths in files are those of w ⊙ δ")
    for patch in dict.fromkeys(row.patch for row in summary.rows if row.patch):
        found.append(
            f"Attacks keep to one square of an image (share of its pixels, place: {patch}); pixels under it count "
            "as before the attack"
        )
    for levels in dict.fromkeys(row.lattice for row in summary.rows if row.lattice):
        found.append(f"On k/{levels}: adversarial images are of whole levels, inside the ball, as the attack saw them")
    found += norm_notes(summary)
    for row in summary.rows:
        if row.invalid:
            named = summary.invalid.get((row.name, row.norm, row.eps), ())
            names = f": {', '.join(named[:5])}{', …' if len(named) > 5 else ''}" if named else ""
            told = f"{row.invalid} image(s) gave NaN or infinite logits, not counted"
            found.append(f"{row.name} ({row.norm}): {told}{names}")
        found += _broken(row)
    return found


def _broken(row: Row) -> list[str]:
    if row.sanity is None:
        return []
    where, found = f"{row.name} ({row.norm}, ε = {row.eps:g})", []
    if row.sanity.length_over_eps > 1 + 1e-4:
        found.append(f"{where}: a perturbation is {row.sanity.length_over_eps:.6g} times as long as ε")
    if row.sanity.outside > 1e-6:
        found.append(f"{where}: adversarial values lie up to {row.sanity.outside:g} outside [0, 1]")
    if row.sanity.disagreement > 1e-3:
        share = f"{row.sanity.disagreement:.2%}"
        found.append(f"{where}: {share} of the predictions differ when the adversarial images are judged again")
    return found


def _metrics(row: Row, *, grey: bool = False, needed: bool = False) -> list[str]:
    norm = f"{row.norm} of w ⊙ δ" if row.weights else row.norm or ""
    norm += f" on k/{row.lattice}" if row.lattice else ""
    threat = [norm, "" if row.eps is None else f"{row.eps:.4g}"]
    if grey:
        threat.append("" if row.eps_levels is None else f"{row.eps_levels:.3g}")
    success = "" if math.isnan(row.success.value) else share(row.success)
    cost = [f"{row.forward:g}+{row.backward:g}", f"{row.seconds:.2f}"]
    first = [row.name, *threat, str(row.images), *(norm_cells(row) if needed else ())]
    return [*first, *shares(row), *_eight_bit(row), success, *cost]


def _eight_bit(row: Row) -> list[str]:
    """What is left after rounding to 8 bits, and how long the longest perturbation is then."""
    if row.rounded is None:
        return ["", ""] if row.norm is None else ["–", "–"]
    return [share(row.rounded.first), f"{row.rounded.eps:.4g}"]


def _difference(comparison: Comparison) -> list[str]:
    found = comparison.difference
    threat = [comparison.norm, f"{comparison.eps:.4g}", str(comparison.images)]
    points = percent(found.mean, found, sign="+")
    return [f"{comparison.attack} − {comparison.against}", *threat, points, f"{found.p_value:.2g}"]


def draw(shown: Sequence[Shown], classes: Classes, title: str, said: Words = GIVEN) -> bytes:
    """A PNG with four rows of panels for each image: images, where it is weak and what was added, predictions, changes.

    The left column is before any attack, then one column for each attack, and the label at the right.

    Args:
        shown: The images, all with the same attacks.
        classes: Names and palette; more predicted classes than names get colours of their own.
        title: Heading.
        said: What labels, and pixels that agree with them, are called.
    """
    columns = len(shown[0].attacks) + 2
    figure, axes = grid([height(image.image) for image in shown for _ in range(4)], columns, title)
    predicted = [m for s in shown for m in (s.prediction, *(each.prediction for each in s.attacks))]
    painter = Painter.of(classes, predicted)
    ceiling = max((image.radius.max().item() for image in shown if image.radius is not None), default=0.0)
    for place, image in enumerate(shown):
        _draw_image(axes[4 * place : 4 * place + 4], image, painter, ceiling or 1.0, said)
    painter.legend(axes[0, -1], [*predicted, *(s.label for s in shown)])
    kinds = zip(said.changed, CHANGES.values(), strict=False)
    patches = [swatch(colour, name) for name, colour in kinds]
    legend = axes[3, 0].legend(handles=patches, title="changed pixels", loc="center", fontsize=7, frameon=False)
    legend.get_title().set_fontsize(8)
    if ceiling:
        colour_bar(figure, axes[1, -1], ceiling, "radius / σ: small (dark) is easily turned")
    return png(figure)


def magnification(delta: Tensor) -> int:
    """A round factor (1, 2, 5, 10, …) that brings the 99th percentile of |δ| near, and not beyond, one half.

    Example:
        >>> import torch
        >>> magnification(torch.full((3, 4, 4), 0.004))
        100
    """
    size = np.quantile(delta.abs().cpu().numpy(), 0.99).item()
    if not size > 0:
        return 1
    wanted = max(1.0, 0.5 / size)
    power: int = 10 ** math.floor(math.log10(wanted))
    return max(step * power for step in (1, 2, 5) if step * power <= wanted * (1 + 1e-9))


def _draw_image(axes: NDArray[np.object_], shown: Shown, painter: Painter, top: float, said: Words) -> None:
    ignore = painter.classes.ignore_index
    panel(axes[0, 0], photo(shown.image), f"image {shown.name}{partly(shown.image)}")
    if shown.radius is not None:
        panel(axes[1, 0], shown.radius.cpu().numpy(), "radius map (score)", top)
    seen = painter.paint(shown.image, shown.prediction)
    panel(axes[2, 0], seen, f"prediction: {_right(shown, shown.prediction, painter, said)}")
    panel(axes[2, -1], painter.paint(shown.image, shown.label), said.label)
    for column, attacked in enumerate(shown.attacks, start=1):
        delta = attacked.adversarial - shown.image
        factor = magnification(delta)
        panel(axes[0, column], photo(attacked.adversarial), f"after {attacked.title}")
        panel(axes[1, column], photo(0.5 + factor * delta), f"perturbation ×{factor}")
        painted = painter.paint(attacked.adversarial, attacked.prediction)
        panel(axes[2, column], painted, f"prediction: {_right(shown, attacked.prediction, painter, said)}")
        turned = changes(shown, attacked.prediction, ignore)
        panel(axes[3, column], turned, f"changed: {_changed(shown, attacked.prediction, ignore)}")


#: What became of a pixel, and in which colour that is shown.
CHANGES = dict(zip(GIVEN.changed, ((213, 94, 0), (204, 121, 167), (0, 114, 178)), strict=True))


def changes(shown: Shown, prediction: Tensor, ignore_index: int) -> NDArray[np.uint8]:
    """The image, pale, with every labelled pixel whose prediction an attack changed in a colour of `CHANGES`.

    Returns:
        (H, W, 3).
    """
    painted = (photo(0.6 + 0.4 * shown.image.mean(0, keepdim=True).expand(3, -1, -1)) * 255).astype(np.uint8)
    labelled = (shown.label != ignore_index) & (prediction != shown.prediction)
    before, now = shown.prediction == shown.label, prediction == shown.label
    for where, colour in zip((before, ~before & ~now, now), CHANGES.values(), strict=True):
        painted[(labelled & where).numpy()] = colour
    return painted


def _changed(shown: Shown, prediction: Tensor, ignore_index: int) -> str:
    labelled = shown.label != ignore_index
    return f"{100 * (prediction != shown.prediction)[labelled].double().mean().item():.1f} %"


def _right(shown: Shown, prediction: Tensor, painter: Painter, said: Words) -> str:
    labelled = shown.label != painter.classes.ignore_index
    if painter.asked:
        found, asked = (painter.masks(each.where(labelled, 0)) for each in (prediction, shown.label))
        each = 2 * (found & asked).sum((1, 2)).double() / (found.sum((1, 2)) + asked.sum((1, 2)))
        return "nothing there" if each.isnan().all() else f"Dice {100 * each.nanmean().item():.1f} %"
    right = (prediction == shown.label)[labelled].double().mean().item()
    return f"{100 * right:.1f} % {said.right}"


def doubted(seen: Facts, summary: Summary) -> list[Finding]:
    """What is probably a mistake, by what was seen before the attacks and by how they went."""
    return [*findings(seen), *without_gradient(summary)]


def report_attacks(run: Run[Experiment], store: Store, facts: Mapping[str, Any]) -> Report:
    """The report of finished attacks.

    Args:
        run: What was run.
        store: Its results.
        facts: What changes no result, for the record.

    Raises:
        InputError: No image could be used.
    """
    summary = summarise(run.experiment, store, run.data.ids, run.named)
    if not summary.rows[0].images:
        raise nothing_usable(summary.set_aside, "the data set is empty")
    evidence = gathered(run, store, summary)
    doubts, sane = doubted(evidence.facts, summary), verdicts(evidence)
    said = [*notes(summary), *warnings(doubts), *sanity_lines(sane, doubts)]
    found = told(evidence.facts, doubts) | verdicts_told(sane, evidence.probed)
    files = _files(run, store, summary, facts, said, found, sanity_table(sane))
    return Report(summary, tables(summary), said, files, "results", heading(run, summary.rows[0].images), "yellow")


def _files(
    run: Run[Experiment],
    store: Store,
    summary: Summary,
    facts: Mapping[str, Any],
    said: Sequence[str],
    doubts: Mapping[str, Any],
    sanity: Cells,
) -> Iterator[tuple[str, str | bytes]]:
    experiment, ids, looks = run.experiment, run.data.ids, Looks(run, store)
    threats, wording = list(dict.fromkeys(plan.threat for plan in experiment.attacks)), said_of(summary)
    for norm, eps in threats:
        mine = [job for job in experiment.jobs if (norm, eps) == attacking(job).plan.threat]
        name = "" if (norm, eps) == threats[0] else f"-{norm}-{eps:.4g}"
        weights = f", w = {experiment.attacks[0].weights}" if experiment.attacks[0].weights else ""
        patch = f", patch {experiment.attacks[0].patch}" if experiment.attacks[0].patch else ""
        title = f"{run.model.name} on {run.data.name}, {norm} ε = {eps:.4g}{weights}{patch}"
        if shown := shown_images(run, mine, looks):
            yield f"figure{name}.png", draw(shown, run.classes, title, wording)
        if (needed := lengths(run, mine, store)) and any(map(math.isfinite, chain(*needed.values()))):
            yield f"norms{name}.png", draw_norms(needed, norm, title)
        if drawn := curves(run, mine, store):
            above = f"{title}, {len(drawn[0].traces)} images"
            yield f"curve{name}.png", draw_curves(drawn, above, targeted=experiment.aim is not None, said=wording)
    yield "per_image.csv", per_image_csv(experiment, store, ids, run.named)
    if (traces := traces_csv(experiment, store, ids)) is not None:
        yield "trace.csv", traces
    if run.save:
        yield from adversarial_files(run, experiment.jobs, store)
    if run.gallery:
        yield from gallery_files(run, looks)
    yield "classes.csv", summary_classes_csv(summary)
    yield "confusion.csv", confusion_csv(experiment, store, ids, run.names)
    if (structures := summary_structures_csv(summary)) is not None:
        yield "structures.csv", structures
    yield (
        "table.md",
        page(
            [*tables(summary), *classes_tables(summary), sanity],
            [*said, *made(facts)],
            heading(run, summary.rows[0].images),
        ),
    )
    parts = {
        f"{task.plan.label} {task.plan.norm} {task.plan.eps:g}": str(task.attack)
        for task in map(attacking, experiment.jobs)
    }
    facts = {**facts, "picture": looks.book.by_purpose()}
    yield "results.json", results_json(experiment, summary, parts, facts, doubts)


def curves(run: Run[Experiment], jobs: Sequence[Job], store: Store) -> list[Curve]:
    """How those of ``jobs`` went that are black-box attacks and have a trace, over all images with a valid result."""
    return [curve for job in jobs if (curve := _curve(run, job, store)) is not None]


def lengths(run: Run[Experiment], jobs: Sequence[Job], store: Store) -> dict[str, list[float]]:
    """Length that each image needed, ∞ where its pixels were not fooled, by attack; of attacks without a ball."""
    usable, found, targeted = store.results(CLEAN), {}, run.experiment.aim is not None
    for job in jobs:
        plan, results = attacking(job).plan, store.results(job.key)
        valid = [results[image] for image in run.data.ids if image in results and image in usable]
        if needed := image_norms(plan, [each for each in valid if each.valid], targeted=targeted):
            found[plan.label] = needed
    return found


def _curve(run: Run[Experiment], job: Job, store: Store) -> Curve | None:
    traces, results, clean = store.traces(job.key), store.results(job.key), store.results(CLEAN)
    ids = [image for image in run.data.ids if image in traces and image in clean and results[image].valid]
    if not ids:
        return None
    targeted = run.experiment.aim is not None
    before = tuple(share_left(clean[image], targeted=targeted) for image in ids)
    task = attacking(job)
    return Curve(task.plan.label, task.total_steps, before, tuple(traces[image] for image in ids))
