"""What a data set is, for a reader: tables, notes, a contact sheet of images with their masks, and files."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from segradius.core.escapes import listed
from segradius.core.storage import as_csv, as_json, null
from segradius.data.sample import Sample, SegmentationData
from segradius.data.usable import usable
from segradius.evaluation.check import Looks
from segradius.evaluation.preflight import warnings
from segradius.report.cells import Cells, page
from segradius.report.overlay import Painter
from segradius.report.panels import grid, height, panel, partly, photo, png

#: Panels of the contact sheet at most, one of them the legend, and those in a row.
MOST, ROW = 24, 6
#: Pixels of the larger side of an image there.
SIDE = 320
COLUMNS = ("image", "fault", "height", "width", "bands", "dtype", "low", "high", "void", "image_digest", "label_digest")


def check_tables(looks: Looks) -> list[Cells]:
    """What is there, the classes, and the samples that cannot be used."""
    found = [_whole(looks)]
    if looks.parts:
        found.append(_parts(looks))
    if looks.faults:
        rows = [(name, reason) for name, reason in list(looks.faults.items())[:20]]
        more = f", the first {len(rows)} of {len(looks.faults)}" if len(looks.faults) > len(rows) else ""
        found.append(Cells(f"Cannot be used{more}", ("image", "reason"), rows))
    return found


def _whole(looks: Looks) -> Cells:
    rows = [("images", str(len(looks.samples))), ("that can be used", str(len(looks.good)))]
    sizes = list(looks.sizes.items())
    rows += [(f"size {size}", str(count)) for size, count in sizes[:8]]
    if len(sizes) > 8:
        rows.append((f"{len(sizes) - 8} further sizes", str(sum(count for _, count in sizes[8:]))))
    rows += [
        (f"files of {dtype}", f"{count}, numbers from {low:.6g} to {high:.6g}")
        for dtype, (count, low, high) in looks.types.items()
    ]
    if looks.parts:
        rows.append(("void", f"{looks.void:.2%} of the pixels"))
    if looks.classes.foreground:
        rows.append((f"without {' or '.join(looks.classes.foreground)}", str(len(looks.empty))))
    rows.append(("images that are there twice", str(sum(map(len, looks.twins)) - len(looks.twins))))
    if looks.against:
        rows.append((f"images of {looks.against} that are here too", str(len(looks.also))))
    return Cells(looks.name, ("what", "how many"), rows)


def _parts(looks: Looks) -> Cells:
    kind = "structure" if looks.classes.structures else "class"
    labelled, images = sum(each.labelled for each in looks.good), len(looks.good)
    rows = [
        (
            each.name,
            str(each.pixels),
            f"{100 * each.pixels / max(1, labelled):.2f}",
            str(each.images),
            f"{100 * each.images / max(1, images):.1f}",
        )
        for each in looks.parts
    ]
    return Cells(f"By {kind}", (kind, "pixels", "% of labelled pixels", "images", "% of images"), rows)


def check_notes(looks: Looks) -> list[str]:
    """What a reader should look at."""
    found = warnings(looks.findings)
    if looks.empty:
        found.append(f"Nothing of {' or '.join(looks.classes.foreground)}: {listed(looks.empty)}.")
    found += [f"The same image: {', '.join(ids)}." for ids in looks.twins[:5]]
    if looks.torn:
        found.append(f"The same image under different masks: {'; '.join(', '.join(ids) for ids in looks.torn[:5])}.")
    if looks.also:
        pairs = ", ".join(f"{there} = {here}" for there, here in looks.also[:5])
        found.append(
            f"{len(looks.also)} image(s) of {looks.against} are in {looks.name} too ({pairs}): what is learnt from one "
            "is no test of it in the other."
        )
    return found


def check_files(looks: Looks, data: SegmentationData, heading: str, sheet: int = MOST) -> Iterator[tuple[str, Any]]:
    """check.md, check.json, check.csv and sheet.png.

    Args:
        looks: What was seen.
        data: The data set, for the sheet.
        heading: Above all.
        sheet: Panels of the sheet at most; 0 for none.
    """
    yield "check.md", page(check_tables(looks), check_notes(looks), heading)
    yield "check.json", check_json(looks)
    yield "check.csv", check_csv(looks)
    if sheet and looks.good:
        yield "sheet.png", contact_sheet(looks, data, sheet)


def check_json(looks: Looks) -> str:
    """All that was found but the rows of samples, which are in check.csv."""
    report = {
        "data": looks.name,
        "images": len(looks.samples),
        "usable": len(looks.good),
        "faults": looks.faults,
        "sizes": dict(looks.sizes),
        "files": {d: {"files": n, "low": low, "high": high} for d, (n, low, high) in looks.types.items()},
        "structures" if looks.classes.structures else "classes": [asdict(each) for each in looks.parts],
        "void": looks.void,
        "empty": list(looks.empty),
        "twins": [list(ids) for ids in looks.twins],
        "torn": [list(ids) for ids in looks.torn],
        "against": looks.against or None,
        "also": [list(pair) for pair in looks.also],
        "warnings": [asdict(each) for each in looks.findings],
    }
    return as_json(null(report))


def check_csv(looks: Looks) -> str:
    """A line for each sample; pixels of each class as ``pixels NAME``."""
    rows = []
    for each in looks.samples:
        file = each.file
        held = ("", "", "") if file is None else (file.dtype, file.low, file.high)
        size = (each.height, each.width, each.bands) if each.fault is None else ("", "", "")
        void = each.void if each.fault is None else ""
        pixels = each.pixels or ("",) * len(looks.classes)
        rows.append((each.id, each.fault or "", *size, *held, void, each.image, each.label, *pixels))
    return as_csv((*COLUMNS, *(f"pixels {name}" for name in looks.classes.names)), rows)


def contact_sheet(looks: Looks, data: SegmentationData, most: int = MOST) -> bytes:
    """A PNG of images that are spread over the data set, with their masks over them, and a legend."""
    places = [place for place, each in enumerate(looks.samples) if each.fault is None]
    chosen = torch.linspace(0, len(places) - 1, max(1, min(most - 1, len(places)))).round().long().tolist()
    samples = [small(sample) for at in chosen if isinstance(sample := _usable(data, places[at]), Sample)]
    cells = len(samples) + 1
    columns = min(ROW, cells)
    rows = -(-cells // columns)
    of_row = [samples[row * columns :][:columns] or samples[-1:] for row in range(rows)]
    tall = [max(height(each.image) for each in row) for row in of_row]
    figure, axes = grid(tall, columns, looks.name)
    painter = Painter.of(looks.classes, [each.label for each in samples])
    panels: list[Axes] = axes.ravel().tolist()
    for axis, sample in zip(panels, samples, strict=False):
        panel(axis, drawn(sample, painter), f"{sample.id}{partly(sample.image)}")
    if len(looks.classes):
        painter.legend(panels[len(samples)], [each.label for each in samples])
    return png(figure)


def drawn(sample: Sample, painter: Painter) -> NDArray[np.generic]:
    """An image with its mask over it: outlines of what is asked with yes or no, or classes in their colours."""
    if not len(painter.classes):
        return photo(sample.image)
    if painter.asked:
        return painter.paint(sample.image, sample.label)
    half = 127.5 * photo(sample.image).astype(np.float64)
    mixed: NDArray[np.uint8] = (half + 0.5 * painter.paint(sample.image, sample.label)).round().astype(np.uint8)
    return mixed


def small(sample: Sample) -> Sample:
    """A sample no larger than the sheet shows it."""
    longest = max(sample.label.shape)
    if longest <= SIDE:
        return sample
    size = [max(1, round(side * SIDE / longest)) for side in sample.label.shape]
    image = functional.interpolate(sample.image[None], size, mode="area")[0]
    return Sample(sample.id, image, _nearest(sample.label, size))


def _nearest(label: Tensor, size: Sequence[int]) -> Tensor:
    found: Tensor = functional.interpolate(label[None, None].double(), list(size), mode="nearest")[0, 0].long()
    return found


def _usable(data: SegmentationData, place: int) -> Sample | str:
    return usable(data, place, len(data.classes), labels=len(data.classes) > 0)
