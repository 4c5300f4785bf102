"""What a finished run found, read back from the files of its folder: for the page, which tells several at once."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from segradius.core.errors import InputError
from segradius.core.escapes import from_cell, visible
from segradius.core.seal import read_json, readable
from segradius.core.sums import checked
from segradius.evaluation.certified_by import certified_by, refutations
from segradius.evaluation.certify_summary import CertifiedRow, RadiusCurve
from segradius.evaluation.folders import RunFolder
from segradius.evaluation.trace import ImageTrace
from segradius.metrics.intervals import Interval
from segradius.report.curve import Curve
from segradius.report.figures import Words, words

Plan = tuple[str, str, float]
"""Attack, norm and ε; ``CLEAN`` for the unattacked images."""

CLEAN: Plan = ("clean", "", 0.0)
NOTHING = Interval(math.nan, math.nan, math.nan)
#: Shares of a row of results.json, in the order of tables.
SHARES = ("dice", "iou", "dice_image", "pixacc", "miou", "miou_image", "success")


@dataclass(frozen=True)
class Part:
    """Of a class, or structure: labelled pixels, and what is right of them."""

    name: str
    pixels: int
    accuracy: Interval
    iou: Interval
    dice: Interval


@dataclass(frozen=True)
class Line:
    """A row of results.json: an attack at a budget, or the unattacked images.

    Attributes:
        plan: Attack, norm and ε.
        images: Behind the figures.
        invalid: Left out as their logits were not finite.
        shares: By the names of results.json, those that it has; ``rounded_pixacc`` and ``rounded_miou`` after rounding
            to 8 bits.
        levels: ε in grey levels of 1/255; NaN where it is not told.
        rounded: Length of the longest perturbation after rounding, in the norm; NaN where it was not measured.
        passes: Forward and backward passes an image.
        seconds: An image.
        parts: Of the structures where there are any, else of the classes.
    """

    plan: Plan
    images: int
    invalid: int
    shares: Mapping[str, Interval]
    levels: float
    rounded: float
    passes: tuple[float, float]
    seconds: float
    parts: tuple[Part, ...] = ()

    @property
    def name(self) -> str:
        """Of the attack."""
        return self.plan[0]


@dataclass(frozen=True)
class Verdict:
    """A sanity check's: ``pass``, ``warn``, ``fail`` or ``open``, what was seen, and what to do."""

    name: str
    grade: str
    text: str
    advice: str


@dataclass(frozen=True)
class Shot:
    """An image of the gallery: where it is, what was done to it, and the share that is right before and after."""

    image: str
    plan: Plan
    before: float
    left: float
    rank: str
    file: str


@dataclass(frozen=True)
class Palette:
    """Names and colours of the classes by their index, and the index of void."""

    names: tuple[str, ...]
    colours: tuple[tuple[int, int, int], ...]
    void: int = -1


@dataclass(frozen=True)
class Story:
    """All that a page tells of a run.

    Attributes:
        run: Name, folder and kind.
        experiment: As results.json has it.
        lines: Of attacks, the unattacked images first; empty for a certification.
        answers: Of a certification.
        promises: Of its answers, in words, by name.
        whole: Radii, and the share of pixels of whole images that stay right at least; empty where that is not known.
        refuted: Attacks that found what its certificates exclude.
        least: What stays of whole images, as results.json has the rows.
        left: What attacks left of what was promised with certainty, likewise.
        confusion: Pixels by attack, and by class of the label and of what is seen: (label, seen, pixels).
        curves: Of black-box attacks.
        shots: The gallery.
        palette: Of its classes; None where it is not told.
        images: What each attack left of each image.
        verdicts: Of the sanity checks; None where the run made none.
        warnings: What is probably a mistake.
        set_aside: Images that could not be used, and why.
        absent: Files that this version writes and the folder has not, with what they are for.
        command: That made it, without secrets; empty where that is not known.
        made: When, by which version, where.
        structures: Whether the classes are sets of structures.
        asked: What Dice and IoU are of; empty where nothing is asked with yes or no.
    """

    run: RunFolder
    experiment: Mapping[str, Any]
    lines: tuple[Line, ...] = ()
    answers: tuple[CertifiedRow, ...] = ()
    promises: Mapping[str, str] = field(default_factory=dict)
    confusion: Mapping[Plan, tuple[tuple[str, str, int], ...]] = field(default_factory=dict)
    curves: Mapping[Plan, Curve] = field(default_factory=dict)
    shots: tuple[Shot, ...] = ()
    palette: Palette | None = None
    images: Mapping[Plan, Mapping[str, float]] = field(default_factory=dict)
    verdicts: tuple[Verdict, ...] | None = None
    warnings: tuple[Verdict, ...] = ()
    set_aside: Mapping[str, str] = field(default_factory=dict)
    absent: tuple[tuple[str, str], ...] = ()
    command: str = ""
    made: str = ""
    structures: bool = False
    asked: str = ""
    certified_images: int = 0
    whole: tuple[tuple[float, float], ...] = ()
    refuted: tuple[str, ...] = ()
    least: tuple[Mapping[str, Any], ...] = ()
    left: tuple[Mapping[str, Any], ...] = ()

    @property
    def words(self) -> Words:
        """What pixels that agree with their labels are called."""
        return words(predicted=self.experiment["data"].get("labels") == "predicted", structures=self.structures)

    @property
    def targeted(self) -> bool:
        """Whether the attacks had an aim."""
        return self.experiment.get("target") is not None

    @property
    def seed(self) -> int:
        """Of all random numbers."""
        return int(self.experiment["seed"])


def read_story(run: RunFolder) -> Story:
    """What a finished run found; files that an earlier version did not write are named in `Story.absent`.

    Args:
        run: From `segradius.evaluation.folders.run_folders`.

    Raises:
        InputError: The run is not finished.
        DamagedError: A file is not what was written.
    """
    if not run.is_reported:
        raise InputError(f"{run.path} has no results.json: the run is not finished; run the same command again")
    file = run.path / "results.json"
    report = read_json(file, checked(run.path, file.name))
    return readable(partial(_story, run, report), file, "results of segradius attack, evaluate or certify")


def _story(run: RunFolder, report: Mapping[str, Any]) -> Story:
    experiment, runtime = report["experiment"], report.get("runtime", {})
    common = Story(
        run,
        experiment,
        verdicts=tuple(map(_verdict, report["verdicts"])) if "verdicts" in report else None,
        warnings=tuple(_verdict({"verdict": "warn", **each}) for each in report.get("warnings", ())),
        set_aside={visible(name): visible(why) for name, why in report.get("set_aside", {}).items()},
        command=str(report.get("command") or runtime.get("command") or ""),
        made=_made(runtime),
    )
    told = vars(common) | (_certified(report) if certified_by(experiment) else _attacked(run.path, report))
    return Story(**told)


def _attacked(folder: Path, report: Mapping[str, Any]) -> dict[str, Any]:
    lines = tuple(map(_line, report["rows"]))
    attacked, absent = len(lines) > 1, []
    found: dict[str, Any] = {}
    targeted = report["experiment"].get("target") is not None
    images = found["images"] = _images(folder, targeted=targeted)
    if (folder / "trace.csv").exists():
        found["curves"] = _curves(folder, images.get(CLEAN, {}))
    if (folder / "confusion.csv").exists():
        found["confusion"] = _confusion(folder)
    elif attacked:
        absent.append(("confusion.csv", "what classes become under attack"))
    if (folder / "gallery" / "index.json").exists():
        found["shots"] = _shots(folder)
        found["palette"] = _palette(folder)
    elif attacked:
        absent.append(("gallery", "the images that were hurt most and least"))
    if "verdicts" not in report and attacked:
        absent.append(("verdicts in results.json", "whether the attacks can be believed"))
    first = report["rows"][0]
    more = {"structures": "structures" in first, "asked": visible(str(first.get("foreground") or ""))}
    return {**found, **more, "lines": lines, "absent": tuple(absent)}


def _certified(report: Mapping[str, Any]) -> dict[str, Any]:
    rows = tuple(map(_answer, report["rows"]))
    promises = {row.name: visible(row.promise) for row in rows if row.promise}
    return {
        "answers": rows,
        "promises": promises,
        "structures": "structures" in report,
        "certified_images": int(report["images"]),
        "whole": tuple(zip(report["whole"]["edges"], report["whole"]["accuracy"], strict=True))
        if "whole" in report
        else (),
        "refuted": tuple(map(visible, refutations(report))),
        "least": tuple(report.get("whole", {}).get("rows", ())),
        "left": tuple(report.get("attacked", ())),
    }


def _answer(row: Mapping[str, Any]) -> CertifiedRow:
    return CertifiedRow(
        name=row["name"],
        pixacc=as_interval(row["pixacc"]),
        miou=as_interval(row["miou"]),
        abstained=as_interval(row["abstained"]),
        boundary=as_interval(row["boundary"]),
        interior=as_interval(row["interior"]),
        radius=_number(row["radius"]),
        gain=_number(row["gain"]),
        promise=row["promise"],
        classes=(),
        curve=RadiusCurve(**row["curve"]) if row["curve"] else None,
    )


def as_interval(found: Mapping[str, float | None] | float | None) -> Interval:
    """A share of results.json, where null stands for what is not known; of an earlier version it may have no ends.

    Example:
        >>> as_interval({"value": 0.5, "low": None, "high": 0.75})
        Interval(value=0.5, low=nan, high=0.75)
    """
    if isinstance(found, Mapping):
        return Interval(*(_number(found[name]) for name in ("value", "low", "high")))
    return Interval(_number(found), math.nan, math.nan)


def _number(found: float | None) -> float:
    return math.nan if found is None else float(found)


def _line(row: Mapping[str, Any]) -> Line:
    rounded = row.get("rounded") or {}
    shares = {name: as_interval(row[name]) for name in SHARES if name in row}
    shares |= {f"rounded_{name}": as_interval(rounded[name]) for name in ("pixacc", "miou") if name in rounded}
    plan = (visible(row["name"]), row["norm"] or "", float(row["eps"] or 0))
    parts = tuple(map(_part, row.get("structures") or row.get("classes") or ()))
    levels, length = _number(row.get("eps_levels")), _number(rounded.get("eps"))
    passes = (_number(row["forward"]), _number(row["backward"]))
    return Line(plan, row["images"], row["invalid"], shares, levels, length, passes, _number(row["seconds"]), parts)


def _part(row: Mapping[str, Any]) -> Part:
    shares = (as_interval(row[name]) for name in ("accuracy", "iou", "dice"))
    return Part(visible(row["name"]), row["pixels"], *shares)


def _verdict(found: Mapping[str, Any]) -> Verdict:
    return Verdict(*(visible(str(found.get(name) or "")) for name in ("name", "verdict", "text", "advice")))


def _made(runtime: Mapping[str, Any]) -> str:
    versions = runtime.get("versions", {})
    told = [runtime.get("date", ""), f"segradius {versions['segradius']}" if "segradius" in versions else ""]
    told += [f"torch {versions['torch']}" if "torch" in versions else "", runtime.get("device", "")]
    return visible(", ".join(each for each in told if each))


def _rows(folder: Path, name: str) -> Iterator[dict[str, str]]:
    return csv.DictReader(io.StringIO(checked(folder, name).decode()))


def _plan(row: Mapping[str, str]) -> Plan:
    return from_cell(row["attack"]), row["norm"], float(row["eps"] or 0)


def _images(folder: Path, *, targeted: bool) -> dict[Plan, dict[str, float]]:
    found: dict[Plan, dict[str, float]] = {}
    if (folder / "per_image.csv").exists():
        for row in _rows(folder, "per_image.csv"):
            if row["valid"] == "1":
                eligible = int(row["eligible"])
                aimed = 1 - int(row["hit"]) / eligible if eligible else math.nan
                left = aimed if targeted else float(row["pixacc"])
                found.setdefault(_plan(row), {})[from_cell(row["image"])] = left
    return found


def _curves(folder: Path, before: Mapping[str, float]) -> dict[Plan, Curve]:
    found: dict[Plan, dict[str, list[tuple[int, bool, float, float, float]]]] = {}
    for row in _rows(folder, "trace.csv"):
        loss, pixacc, best = (float(row[name]) if row[name] else math.nan for name in ("loss", "pixacc", "best"))
        each = found.setdefault(_plan(row), {}).setdefault(from_cell(row["image"]), [])
        each.append((int(row["queries"]), row["judged"] == "1", loss, pixacc, best))
    curves = {}
    for plan, traces in found.items():
        known = {image: ImageTrace(*zip(*rows, strict=True)) for image, rows in traces.items() if image in before}
        if known:
            budget = max(trace.queries[-1] for trace in known.values())
            curves[plan] = Curve(plan[0], budget, tuple(before[image] for image in known), tuple(known.values()))
    return curves


def _confusion(folder: Path) -> dict[Plan, tuple[tuple[str, str, int], ...]]:
    found: dict[Plan, list[tuple[str, str, int]]] = {}
    for row in _rows(folder, "confusion.csv"):
        cell = from_cell(row["label"]), from_cell(row["after"]), int(row["pixels"])
        found.setdefault(_plan(row), []).append(cell)
    return {plan: tuple(cells) for plan, cells in found.items()}


def _shots(folder: Path) -> tuple[Shot, ...]:
    index = json.loads(checked(folder, "gallery/index.json"))
    return tuple(
        Shot(
            visible(each["image"]),
            (visible(each["attack"]), each["norm"], float(each["eps"])),
            float(each["before"]),
            float(each["left"]),
            each["rank"],
            _inside(folder, each["file"]),
        )
        for each in index
    )


def _inside(folder: Path, file: str) -> str:
    """The path of a file from the folder; the gallery's index may name it from its own place."""
    place = file if file.startswith("gallery/") else f"gallery/{file}"
    if ".." in Path(place).parts or Path(file).is_absolute():
        raise InputError(f"{folder / 'gallery/index.json'} names {file!r}; expected a file of the gallery")
    return place


def _palette(folder: Path) -> Palette | None:
    if not (folder / "gallery" / "classes.json").exists():
        return None
    found = read_json(folder / "gallery/classes.json", checked(folder, "gallery/classes.json"))
    colours: Sequence[Sequence[int]] = found["palette"]
    names = tuple(visible(str(name)) for name in found["names"])
    return Palette(names, tuple((int(r), int(g), int(b)) for r, g, b in colours), int(found["void"]))
