"""The columns of every table that segradius writes: type, unit and meaning, to read them back and to tell them."""

from __future__ import annotations

import csv
import importlib
import io
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from segradius.core.errors import DamagedError, missing_extra
from segradius.core.escapes import from_cell, visible

Kind = Literal["string", "integer", "number"]
Cell = str | int | float | None


@dataclass(frozen=True)
class Column:
    """What stands in a column.

    Attributes:
        kind: ``string``, ``integer`` or ``number``, as a JSON Schema and a Data Package call them.
        told: What it is, with its unit.
    """

    kind: Kind
    told: str


def _of(kind: Kind, **told: str) -> dict[str, Column]:
    return {name: Column(kind, what) for name, what in told.items()}


_SHARES = {
    "pixacc": "share of labelled pixels that are right, in [0, 1]",
    "miou": "mean IoU over the data set, in [0, 1]",
    "miou_image": "mean IoU as the paper defines it, the mean over images, in [0, 1]",
    "success": "share of the eligible pixels that reached the goal, in [0, 1]",
    "dice": "Dice of what is asked with yes or no, of several structures the mean; of a class its own; in [0, 1]",
    "iou": "intersection over union, likewise, in [0, 1]",
    "dice_image": "mean of the Dice of each image and structure, in [0, 1]",
    "accuracy": "share of the labelled pixels of the class that are right, in [0, 1]",
    "abstained": "share of labelled pixels about which nothing is said, in [0, 1]; pixels in a row of an image",
    "boundary": "accuracy near other classes, in [0, 1]; pixels there in a row of an image",
    "interior": "accuracy elsewhere, in [0, 1]",
    "rounded_pixacc": "pixacc of the adversarial images rounded to 8 bits",
    "rounded_dice": "dice of the adversarial images rounded to 8 bits",
    "rounded_miou": "miou of the adversarial images rounded to 8 bits",
}
_ENDS = {"low": "lower end of the 95 % interval over images", "high": "upper end of the 95 % interval over images"}

COLUMNS: Mapping[str, Column] = {
    **_of(
        "string",
        measurement="name of the measurement in its study; of a run by itself its folder's",
        model="the network or target, as it was asked for",
        data="the images, as they were asked for",
        attack="label of the attack; clean for the unattacked images",
        answer="base (the model), smoothed (its majority under noise), defended (double masking), or the certificate",
        name="label of the attack; clean, or worst of K",
        against="the attack that it is compared with",
        norm="norm of the threat: l1, l2 or linf; empty of the unattacked",
        image="id of the image",
        foreground="what is asked of each pixel with yes or no",
        weights="weights w of the bands: eps bounds the norm of w times the change",
        promise="what the certificate promises",
        aim="what an attack on a certificate aimed at",
        refuted="statements of the certificate that the attack refutes, with + between them",
        label="class of the label",
        after="class predicted",
        **{"class": "name of the class", "structure": "name of the yes/no map"},
    ),
    **_of(
        "integer",
        seed="of all random numbers",
        rounded_right="labelled pixels that are right after rounding to 8 bits; empty where a look has a price",
        valid="1, or 0 where NaN or infinite logits were met: then nothing of it counts",
        pixels="labelled pixels",
        right="labelled pixels that are right",
        hit="eligible pixels that reached the goal",
        eligible="pixels that could: right before the attack, or of a targeted one all that have a target",
        disagreement="pixels seen differently when the adversarial image is judged again; empty where that has a price",
        forward="forward passes over the image",
        backward="backward passes over the image",
        images="images behind the figures",
        lattice="L where adversarial images are of whole levels k/L; empty where any values are allowed",
        invalid="images left out, as NaN or infinite logits were met",
        boundary_right="pixels near other classes that are right",
        copies="noisy copies",
        queries="queries about the image so far",
        judged="1 where the row is a verdict on an iterate, 0 of the points that were asked about anyway",
        certified="labelled pixels certified at a radius between this edge and the next",
        dropped="pairs left out, as a value was not there",
        sanity_zero_gradient="images whose gradient was exactly zero at every step",
        needed="images in which a pixel must be lost, or below, to refute",
        flipped="certified pixels with more fresh votes for another class",
        lost="certified pixels whose class is lost beyond chance",
        below="certified pixels whose probability is below what is implied, beyond chance",
        images_lost="images with a lost pixel",
        images_below="images with a pixel below",
    ),
    **_of(
        "number",
        eps="budget ε of the threat, for images in [0, 1]; empty of the unattacked",
        eps_levels="ε in grey levels, ε·255, for linf",
        l1="‖δ‖₁ over all values of the image, in [0, 1]; with weights of ‖w ⊙ δ‖, like the next two",
        l2="‖δ‖₂",
        linf="‖δ‖∞",
        rounded_l1="‖δ‖₁ of the adversarial image rounded to 8 bits, like l1",
        rounded_l2="‖δ‖₂ of it",
        rounded_linf="‖δ‖∞ of it",
        outside="how far any adversarial value lies outside [0, 1]; 0 is right",
        seconds="wall time of an image",
        loss="mean loss over the counted pixels",
        best="pixacc of the best point so far inside the threat; empty before the first",
        mean="mean difference over images, in [−1, 1]",
        low=_ENDS["low"],
        high=_ENDS["high"],
        p_value="two-sided, of no difference, from flipping signs",
        mean_radius="mean certified l2 radius over the certified pixels of the image",
        radius="mean certified l2 radius over certified pixels; in a curve the radius itself",
        gain="mean information gain; 1 where every pixel is certified right as a single class",
        sanity_length_over_eps="largest ‖δ‖/ε over the images; at most 1 save for rounding",
        sanity_outside="largest distance of an adversarial value from [0, 1]",
        sanity_disagreement="share of labelled pixels seen differently when judged again",
        rounded_eps="largest ‖δ‖ of an image rounded to 8 bits, in the norm of the row",
        rounded_levels="that in grey levels of 1/255",
        used="how much of the shift that the theory allows the attack attained",
        p_lost="p-value of so many images with a lost pixel, were the certificate sound",
        p_below="p-value of so many images with a pixel below, were the certificate sound",
        rate="rate of failing images that the certificate allows",
        norms_median="of eps=inf: median over images of the length needed; empty where at most half got there",
        norms_reached="of eps=inf: share of the images of which that share of the pixels is fooled, in [0, 1]",
        norms_share="of eps=inf: share of the pixels to fool, in (0, 1]",
        norms_apsr="of eps=inf: attack pixel success rate, the mean over images of the share of pixels fooled",
        **_SHARES,
        **{f"{name}_{end}": told for name in _SHARES for end, told in _ENDS.items()},
    ),
}
"""By name. The two of each structure are ``dice NAME`` and ``iou NAME``."""

#: Where a name means another thing, by the table and the name.
OTHERWISE: Mapping[tuple[str, str], Column] = {
    ("rows", "forward"): Column("number", "forward passes an image, the checking ones left out"),
    ("rows", "backward"): Column("number", "backward passes an image"),
    ("images", "abstained"): Column("integer", "labelled pixels about which nothing is said"),
    ("images", "boundary"): Column("integer", "labelled pixels near other classes"),
    ("trace", "pixacc"): Column(
        "number", "share of the counted pixels that the attack does not have where it wants them"
    ),
    ("curve", "accuracy"): Column("number", "share of labelled pixels right and certified at a radius above this edge"),
    ("curve", "right"): Column("integer", "those of them that are right"),
}


def column(table: str, name: str) -> Column:
    """What stands in a column of a table; text of an unknown name, as of a later version.

    Example:
        >>> column("images", "dice organ").kind, column("rows", "forward").kind, column("images", "forward").kind
        ('number', 'number', 'integer')
    """
    first, _, structure = name.partition(" ")
    if structure and first in ("dice", "iou"):
        return Column("number", f"{first} of the structure {structure}")
    return OTHERWISE.get((table, name)) or COLUMNS.get(name) or Column("string", "of a later version")


def typed(cells: Mapping[str, str], table: str) -> dict[str, Cell]:
    """A line of a CSV file with numbers for numbers; None where there is nothing.

    Example:
        >>> typed({"attack": "'=pgd", "eps": "1", "valid": "1", "l2": ""}, "images")
        {'attack': '=pgd', 'eps': 1.0, 'valid': 1, 'l2': None}
    """
    return {name: _value(cell, column(table, name).kind) for name, cell in cells.items()}


def read_table(text: str, table: str) -> Iterator[dict[str, Cell]]:
    """The lines of a CSV file that segradius wrote, `typed`.

    Args:
        text: Of the file.
        table: What it is, ``images`` for per_image.csv.

    Raises:
        DamagedError: A line is no such line.
    """
    lines = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    for number, line in enumerate(lines, 2):
        if None in line or None in line.values():
            raise DamagedError(f"line {number} of the table {table} has another number of cells than its heading")
        try:
            yield typed(line, table)
        except ValueError as error:
            raise DamagedError(f"line {number} of the table {table} is damaged: {visible(str(error))}") from error


def as_frame(rows: Iterable[Mapping[str, Any]], table: str) -> Any:
    """Rows as a pandas data frame, numbers as float64 and whole numbers as int64, or Int64 where some are not there.

    Args:
        rows: The rows.
        table: What they are, as `column` takes it.

    Raises:
        MissingExtraError: pandas is not installed.
    """
    try:
        pandas = importlib.import_module("pandas")
    except ModuleNotFoundError as error:
        raise missing_extra("pandas", "pandas") from error
    frame = pandas.DataFrame(list(rows))
    for name in frame.columns:
        kind = column(table, name).kind
        if kind == "number":
            frame[name] = frame[name].astype("float64")
        elif kind == "integer":
            frame[name] = frame[name].astype("Int64" if frame[name].isna().any() else "int64")
    return frame


def _value(cell: str, kind: Kind) -> Cell:
    if not cell:
        return None
    if kind == "string":
        return from_cell(cell)
    return int(cell) if kind == "integer" else float(cell)
