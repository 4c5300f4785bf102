"""Certificates, for a reader: tables and notes, what is certified where and how far, accuracy against radius."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from segradius.certification.certificate import ABSTAIN
from segradius.certification.certifiers import Hierarchy
from segradius.core import escapes
from segradius.core.names import safe_names
from segradius.data.sample import Classes, Sample
from segradius.evaluation.certified_by import OWN_RADII, WITHOUT_RADII
from segradius.evaluation.certify import Certification
from segradius.evaluation.certify_summary import (
    CertifiedRow,
    CertifiedSummary,
    certificates,
    certified_csv,
    certified_json,
    summarise_certified,
)
from segradius.evaluation.crosscheck import check_rows
from segradius.evaluation.outcome import digest_of
from segradius.evaluation.preflight import findings, told, warnings
from segradius.evaluation.record import Record, unpack
from segradius.evaluation.run import Run
from segradius.evaluation.store import Store
from segradius.report.cells import Cells, Report, nothing_usable, page, set_aside_note, share
from segradius.report.figures import GIVEN, Words, about, certified_figures, certified_shares, said_of, structures_table
from segradius.report.overlay import Painter
from segradius.report.panels import (
    LINES,
    VOID,
    bare,
    colour_bar,
    empty,
    full_palette,
    grid,
    height,
    panel,
    partly,
    photo,
    png,
    rgb,
    swatch,
)  # fmt: skip
from segradius.report.provenance import labels_line, made

if TYPE_CHECKING:
    from matplotlib.axes import Axes

NAMES = {
    "base": "the model",
    "smoothed": "smoothed, uncertified",
    "segcertify": "certified",
    "adaptive": "certified, groups",
    "radii": "certified, own radii",
    "soft": "certified, own soft radii",
    "lipschitz": "certified, own radii by L",
    "recovery": "certified recovery",
    "detection": "certified detection",
    "defended": "double masking, uncertified",
}


def report_certificates(run: Run[Certification], store: Store, facts: Mapping[str, Any], figures: int = 2) -> Report:
    """The report of finished certificates.

    Args:
        run: What was run.
        store: Its results.
        facts: What changes no result, for the record.
        figures: How many images the picture shows.

    Raises:
        InputError: No image could be used.
    """
    experiment, set_aside = run.experiment, store.all_set_aside()
    packed = dict(certificates(experiment, store, run.data.ids))
    found = [unpack(each) for each in packed.values()]
    if not any(record.finite for record in found):
        raise nothing_usable(set_aside, "answers to noisy copies are NaN or infinite")
    summary, seen = summarise_certified(experiment, found, run.named, set_aside), run.facts(store)
    summary = replace(summary, digest=digest_of(experiment, store, run.data.ids))
    doubts = findings(seen)
    notes = certified_notes(summary) + warnings(doubts)
    heading, shown = certified_heading(experiment, run.model.name, run.data.name), certified_tables(summary)
    rest = _files(run, found, summary, facts, figures, notes, told(seen, doubts))
    files = chain(_certificate_files(packed, run.data.ids), rest)
    return Report(summary, shown[:-1], notes, files, "images", heading)  # that by class is long


def _certificate_files(packed: Mapping[str, bytes], ids: Sequence[str]) -> Iterator[tuple[str, bytes]]:
    names = safe_names(ids)
    return ((f"certificates/{names[image]}.npz", content) for image, content in packed.items())


def _files(
    run: Run[Certification],
    found: Sequence[Record],
    summary: CertifiedSummary,
    facts: Mapping[str, Any],
    figures: int,
    notes: Sequence[str],
    doubts: Mapping[str, Any],
) -> Iterator[tuple[str, str | bytes]]:
    way, classes = run.experiment.way, run.classes
    groups, title = way.groups(run.names), f"{run.model.name} on {run.data.name}, {way.short}"
    yield "per_image.csv", certified_csv(found)
    heading = certified_heading(run.experiment, run.model.name, run.data.name)
    yield "table.md", page(certified_tables(summary), [*notes, *made(facts)], heading)
    if way.key not in WITHOUT_RADII:
        yield "radius.png", draw_radii(summary, title)
    if shown := _shown(run, [record for record in found if record.finite][:figures]):
        yield "figure.png", draw_certified(shown, classes, title, groups, said_of(summary))
    names = safe_names(run.data.ids)
    palette = full_palette(classes, [torch.tensor([run.model.num_classes - 1])])
    for record in found:
        kind = record.finest
        yield f"maps/{names[record.image]}.png", map_png(kind.classes, palette, kind.level, groups)
    yield "results.json", certified_json(run.experiment, summary, facts, doubts)


def _shown(run: Run[Certification], found: Sequence[Record]) -> list[Certified]:
    """Images for the picture, with the finest certificate there is."""
    places = {image: place for place, image in enumerate(run.data.ids)}
    own = run.experiment.data.predicted
    return [_certified(record, run.data[places[record.image]], predicted=own) for record in found]


def _certified(record: Record, sample: Sample, *, predicted: bool) -> Certified:
    kind, own = record.finest, next((record.kinds[name] for name in OWN_RADII if name in record.kinds), None)
    radius = None if "detection" in record.kinds else kind.radius if own is None else own.radius
    base, certified = (sum(score.pixels.intersection) / score.labelled for score in (record.base_score, kind.score))
    label = record.base if predicted else sample.label
    return Certified(
        record.image, sample.image, label, record.base, kind.classes, kind.level, radius, (base, certified),
        own is not None, record.kinds["detection"].classes if "recovery" in record.kinds else None,
    )  # fmt: skip


def certified_heading(experiment: Certification, model: str, data: str) -> str:
    """What was certified, in a line: without it no figure below can be read."""
    options = [
        f"model {model} ({experiment.model.fingerprint})",
        ", ".join([f"data {data}", *labels_line(experiment.data)]),
        *experiment.way.heading(),
        f"seed {experiment.seed}",
    ]
    return f"Certified: {'; '.join(options)}."


def certified_tables(summary: CertifiedSummary) -> list[Cells]:
    """One line for each answer, for each attack on the certificates, and for each class."""
    attacked = [attacks_table(summary)] if summary.checked else []
    attacked += [] if summary.whole is None else [whole_table(summary)]
    attacked += [stood_table(summary)] if summary.attacked else []
    by = structures_table(summary, NAMES) if summary.structures else classes_table(summary)
    return [answers_table(summary), *attacked, by]


def answers_table(summary: CertifiedSummary) -> Cells:
    """Accuracies with 95 % intervals over images, abstention and radius of each answer."""
    groups = any(row.name == "adaptive" for row in summary.rows)
    rest = ("abstained %", "radius l2", "boundary %", "interior %")
    header = ["answer", "images", *certified_figures(summary), *rest]
    wrong = said_of(summary).wrong
    title = f"Per cent of labelled pixels [95 % interval over images]; an abstained pixel is {wrong}"
    title += about(summary.rows[0].foreground)
    rows = [_answer(row, summary) + ([_number(100 * row.gain, ".1f")] if groups else []) for row in summary.rows]
    return Cells(title, [*header, "gain %"] if groups else header, rows)


def classes_table(summary: CertifiedSummary) -> Cells:
    """Accuracy and IoU of each class, for the model and each certificate."""
    rows = [row for row in summary.rows if row.name != "smoothed"]
    shares = (said_of(summary).accuracy, "IoU")
    header = ["class", "pixels", *(f"{NAMES[row.name]}: {what} %" for row in rows for what in shares)]
    known = {row.name: {each.name: each for each in row.classes} for row in rows}
    names = list(dict.fromkeys(each.name for row in rows for each in row.classes))
    lines = []
    for name in names:
        each = [known[row.name].get(name) for row in rows]
        pixels = next(found.pixels for found in each if found is not None)
        known_of = [(found.accuracy, found.iou) if found else (math.nan, math.nan) for found in each]
        lines.append([name, str(pixels), *(_number(100 * part, ".1f") for both in known_of for part in both)])
    return Cells("By class, over all images", header, lines)


def attacks_table(summary: CertifiedSummary) -> Cells:
    """What became of certified pixels under attacks inside their radius, by attack and by what it aimed at."""
    header = ("attack, aim", "images", "pixels", "flipped", "lost", "below bound", "images lost", "images below",
              "bound used", "refuted")  # fmt: skip
    rows = []
    for name, each, caught in check_rows(summary.checked):
        counts = (each.images, each.pixels, each.flipped, each.lost, each.below, each.images_lost, each.images_below)
        rows.append((name, *map(str, counts), "" if each.used is None else f"{each.used:.2f}", caught))
    return Cells("Certified pixels under attack inside the certified radius", header, rows)


def whole_table(summary: CertifiedSummary) -> Cells:
    """What stays of all images together, by the length of a change of each."""
    assert summary.whole is not None
    header = ("l2 ε", f"{said_of(summary).pixacc} %, least", "MIoU %, least", "IoU %, least, by class")
    rows = []
    for row in summary.whole.rows:
        known = [each for each in row.classes if not math.isnan(each.iou)]
        by = ", ".join(f"{each.name} {100 * each.iou:.1f}" for each in known)
        rows.append((f"{row.eps:g}", f"{100 * row.pixacc:.1f}", f"{100 * row.miou:.1f}", by))
    return Cells("Whole images: what is left under any change of at most ε of each", header, rows)


def stood_table(summary: CertifiedSummary) -> Cells:
    """What attacks left beside what was promised."""
    pixacc = said_of(summary).pixacc
    header = ("attack", "allowed", "images", f"promised {pixacc} %", f"left {pixacc} %", "lost", "bound used",
              "images contradicted")  # fmt: skip
    rows = []
    for each in summary.attacked:
        used = "" if each.used is None else f"{each.used:.3f}"
        shares = (f"{100 * each.promised:.1f}", f"{100 * each.left:.1f}")
        rows.append((each.attack, each.at, str(each.images), *shares, str(each.lost), used, str(each.contradicted)))
    return Cells("Under attack", header, rows)


def certified_notes(summary: CertifiedSummary) -> list[str]:
    """What is promised, what it cost, and which images are in no figure."""
    found = [f"{NAMES[row.name]}: {row.promise}" for row in summary.rows if row.promise]
    found.append("The promise is about every pixel of an image, void ones too; the figures count labelled pixels only.")
    if summary.checked:
        found.append(
            "Under attack: flipped pixels have more fresh votes for another class, near a tie by chance; lost ones "
            "beyond chance; below are those whose probability is beyond chance under what the certificate implies. "
            "Bound used: how much of the shift that the theory allows the attack attained. Refuted: where a sound "
            "certificate would show this with a probability below 0.001, all attacks together."
        )
    found += [
        f"{each.attack} REFUTES the certificate: {'; '.join(each.refuted)}" for each in summary.checked if each.refuted
    ]
    found += _stood_notes(summary)
    passes = ", ".join(
        f"{book['forward']} forward" + f" and {book['backward']} backward" * (book["backward"] > 0) + f" for {purpose}"
        for purpose, book in summary.ledger.items()
    )
    if summary.undecided is not None:
        found.append(
            f"Left undecided when sampling stopped: {100 * summary.undecided:.2g} % of the pixels of an image on "
            "average, which further copies, up to n, might have certified. Every test holds whenever sampling stops."
        )
    if summary.timed:
        found.append(
            "The clock set the number of copies of each image (per_image.csv), so that figures differ between "
            "machines; the promise is the same on all."
        )
    copies = f"; {summary.copies:g} noisy copies an image" if summary.copies else ""
    found.append(f"Passes over all images: {passes}{copies}.")
    if summary.invalid:
        found.append(
            f"{len(summary.invalid)} image(s) gave NaN or infinite answers to noisy copies, not counted: "
            + ", ".join(summary.invalid[:5])
        )
    return found + set_aside_note(summary.set_aside)


def _stood_notes(summary: CertifiedSummary) -> list[str]:
    found = []
    if summary.attacked:
        found.append(
            "Under attack: promised is what the certificates leave at least, left what the attack did; lost pixels had "
            "something promised that does not hold; bound used is how far the answers moved, of what the theory "
            "allows. One contradiction refutes the certificates."
        )
    if any(each.at == "detection" for each in summary.attacked):
        found.append("Of detection, left are pixels that are right or at which there is an alarm.")
    refuted = sorted({f"{each.attack} ({each.at})" for each in summary.attacked if each.contradicted})
    return found + ([f"REFUTED, the certificates do not hold, by {', '.join(refuted)}"] if refuted else [])


def _answer(row: CertifiedRow, summary: CertifiedSummary) -> list[str]:
    abstained = "" if row.promise is None else share(row.abstained)
    where = [share(row.boundary), share(row.interior)]
    accuracy = certified_shares(row, summary)
    return [NAMES[row.name], str(summary.images), *accuracy, abstained, _number(row.radius, ".3f"), *where]


def _number(value: float, form: str) -> str:
    return "" if math.isnan(value) else format(value, form)


_STRIPE = (150, 150, 150)


@dataclass(frozen=True, eq=False)
class Certified:
    """One image with what is said of it.

    Attributes:
        name: Its id.
        image: (B, H, W).
        label: (H, W).
        base: (H, W) the model's prediction.
        classes: (H, W) certified classes, `ABSTAIN` elsewhere.
        level: (H, W) how coarse a group was certified; None for single classes.
        radius: (H, W); None for certificates that have none.
        share: Share of the labelled pixels that are right, of the model and certified.
        own: Whether the radii are each pixel's own, a certificate beside that of the classes.
        detected: (H, W) classes whose change would be detected, `ABSTAIN` elsewhere; None where ``classes`` are all.
    """

    name: str
    image: Tensor
    label: Tensor
    base: Tensor
    classes: Tensor
    level: Tensor | None
    radius: Tensor | None
    share: tuple[float, float]
    own: bool = False
    detected: Tensor | None = None


def draw_certified(
    shown: Sequence[Certified], classes: Classes, title: str, hierarchy: Hierarchy | None, said: Words = GIVEN
) -> bytes:
    """A PNG with a row for each image: image, label, the model's prediction, certified classes, radius map.

    Args:
        shown: At least one.
        classes: Names and palette.
        title: Heading.
        hierarchy: Groups of classes; None for single classes.
        said: What labels, and pixels that agree with them, are called.
    """
    ceiling = max((float(each.radius.max()) for each in shown if each.radius is not None), default=-1.0)
    figure, axes = grid([height(each.image) for each in shown], 6, title)
    painter = Painter.of(classes, [m for each in shown for m in (each.base, each.classes)])

    def painted(each: Certified, found: Tensor) -> NDArray[np.uint8]:
        if painter.asked and hierarchy is None:
            colours = painter.paint(each.image, found)
            colours[(found == ABSTAIN).numpy()] = VOID
        else:
            colours = certified_colours(found, painter.palette, each.level, hierarchy)
        stripes(colours, found == ABSTAIN)
        return colours

    for row, each in zip(axes, shown, strict=True):
        base, certified = (f"{100 * share:.1f} % {said.right}" for share in each.share)
        panel(row[0], photo(each.image), f"image {each.name}{partly(each.image)}")
        panel(row[1], painter.paint(each.image, each.label), said.label)
        panel(row[2], painter.paint(each.image, each.base), f"model: {base}")
        panel(row[3], painted(each, each.classes), f"certified: {certified}")
        if each.radius is not None:
            panel(row[4], each.radius.numpy(), "own radii" if each.own else "radius", ceiling or 1.0)
        elif each.detected is not None:
            panel(row[4], painted(each, each.detected), "a change is detected")
    abstained = swatch(VOID, "abstained", edgecolor=rgb(_STRIPE), hatch="////")
    maps = [m for each in shown for m in (each.label, each.base, each.classes)]
    painter.legend(axes[0, -1], maps, [abstained], left=0.4)
    if ceiling >= 0:
        colour_bar(figure, axes[0, -1], ceiling or 1.0, "certified radius, l2", upright=True)
    return png(figure)


def certified_colours(
    found: Tensor, palette: NDArray[np.uint8], level: Tensor | None = None, hierarchy: Hierarchy | None = None
) -> NDArray[np.uint8]:
    """Certified classes (H, W) in colours (H, W, 3), abstained pixels white, a group in the mean of its colours.

    Example:
        >>> palette = np.array([[255, 0, 0], [0, 0, 255]], dtype=np.uint8)
        >>> certified_colours(torch.tensor([[1, ABSTAIN]]), palette).tolist()
        [[[0, 0, 255], [255, 255, 255]]]
    """
    index = found.clamp_min(0).numpy()
    if hierarchy is None or level is None:
        painted: NDArray[np.uint8] = palette[index]
    else:
        painted = group_colours(palette, hierarchy)[level.numpy(), index]
    painted[(found == ABSTAIN).numpy()] = VOID
    return painted


def group_colours(palette: NDArray[np.uint8], hierarchy: Hierarchy) -> NDArray[np.uint8]:
    """For each level the colour of each class's group, (L, C, 3): the mean of its classes'."""
    groups = torch.tensor(hierarchy.levels)
    same = (groups.unsqueeze(1) == groups.unsqueeze(2)).double().numpy()
    known = palette[: same.shape[1]].astype(np.float64)
    mean: NDArray[np.uint8] = (same @ known / same.sum(2, keepdims=True)).round().astype(np.uint8)
    return mean


def stripes(painted: NDArray[np.uint8], where: Tensor) -> None:
    """Hatch the pixels ``where`` of colours (H, W, 3), in place."""
    rows, columns = np.indices(painted.shape[:2])
    period = max(4, painted.shape[0] // 20)
    painted[where.numpy() & ((rows + columns) % period < max(1, period // 4))] = _STRIPE


def map_png(found: Tensor, palette: NDArray[np.uint8], level: Tensor | None, hierarchy: Hierarchy | None) -> bytes:
    """Certified classes (H, W) as a PNG in the data's colours, abstained pixels white."""
    file = io.BytesIO()
    Image.fromarray(certified_colours(found, palette, level, hierarchy)).save(file, format="PNG")
    return file.getvalue()


def draw_radii(summary: CertifiedSummary, title: str) -> bytes:
    """A PNG of certified pixel accuracy against radius, and below how many pixels have which radius of their own."""
    rows = [row for row in summary.rows if row.curve is not None]
    own = [row for row in rows if row.name in OWN_RADII]
    figure, said = empty(6.4, 3.6 if not own else 5.6), said_of(summary)
    axes = figure.subplots(1 + len(own), 1, squeeze=False, sharex=True, height_ratios=[3, 2][: 1 + len(own)])[:, 0]
    axes[0].set_title(escapes.figure(title), fontsize=10, loc="left")
    for name, marker in (("base", "ko"), ("smoothed", "kx")):
        for row in summary.rows:
            if row.name == name:
                axes[0].plot(0, 100 * row.pixacc.value, marker, markersize=5, clip_on=False, label=NAMES[name])
    for colour, row in zip(LINES, rows, strict=False):
        shares, edges = steps(row)
        axes[0].stairs(100 * np.array(shares), edges, color=colour, linewidth=1.6, label=NAMES[row.name])
    _draw_whole(axes[0], summary)
    axes[0].set_ylabel(f"certified {said.pixacc}, %", fontsize=9)
    axes[0].set_ylim(0, 100)
    axes[0].legend(fontsize=8, frameon=False)
    for axis, row in zip(axes[1:], own, strict=True):
        _bars(axis, row, LINES[rows.index(row)], said)
    for axis in axes:
        bare(axis)
    axes[-1].set_xlabel("l2 radius, images in [0, 1]", fontsize=9)
    axes[-1].set_xlim(left=0)
    return png(figure)


def _draw_whole(axes: Axes, summary: CertifiedSummary) -> None:
    """What is left of whole images at least, and what attacks left of them."""
    if summary.whole is not None:
        shares = 100 * np.array(summary.whole.accuracy)
        axes.plot(summary.whole.edges, shares, color="black", linewidth=1.6, label="of whole images, at least")
        lengths = {f"ε = {row.eps:g}": row.eps for row in summary.whole.rows}
        left = [(lengths[each.at], 100 * each.left) for each in summary.attacked if each.at in lengths]
        if left:
            axes.plot(*zip(*left, strict=True), "v", color="black", markersize=4, label="left by attacks")


def steps(row: CertifiedRow) -> tuple[Sequence[float], Sequence[float]]:
    """Certified accuracy between radii, and the radii: never more than is certified at the end of an interval."""
    assert row.curve is not None
    if row.name not in OWN_RADII:
        return (row.pixacc.value,), (0.0, 0.0 if math.isnan(row.radius) else row.radius)
    reached = 1 + sum(share > 0 for share in row.curve.accuracy[1:])
    return row.curve.accuracy[1 : 1 + reached], row.curve.edges[: 1 + reached]


def _bars(axis: Axes, row: CertifiedRow, colour: str, said: Words) -> None:
    """Share of the labelled pixels in each interval of radii: right ones dark, wrong ones on top."""
    assert row.curve is not None
    pixels = sum(each.pixels for each in row.classes)
    certified, right = (100 * np.array(part) / pixels for part in (row.curve.certified, row.curve.right))
    axis.stairs(certified, row.curve.edges, fill=True, color=colour, alpha=0.35, label=f"certified, {said.wrong}")
    axis.stairs(right, row.curve.edges, fill=True, color=colour, label=f"certified, {said.right}")
    axis.set_ylabel("labelled pixels, %", fontsize=9)
    axis.legend(fontsize=8, frameon=False)
