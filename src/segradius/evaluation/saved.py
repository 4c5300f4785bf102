"""What results.json of any version holds, read back into the objects that a run had when it wrote it."""

from __future__ import annotations

import math
import types
from collections.abc import Mapping
from dataclasses import MISSING, fields, is_dataclass
from functools import cache
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

from segradius.core.errors import InputError
from segradius.evaluation.attack_summary import Comparison, Row, Summary
from segradius.evaluation.certified_by import options_of
from segradius.evaluation.certify_summary import CertifiedRow, CertifiedSummary
from segradius.evaluation.certify_whole import WholeImages
from segradius.evaluation.contradicting import Stood
from segradius.evaluation.crosscheck import Checked
from segradius.evaluation.facts import Finding
from segradius.evaluation.outcome import Digest
from segradius.evaluation.schema import VERSION
from segradius.metrics.intervals import Interval

T = TypeVar("T")


def summary_of(report: Mapping[str, Any]) -> Summary:
    """What ``segradius attack`` or ``evaluate`` found out, from its results.json.

    Of images whose logits were not finite the report has the number and not the names, which are in per_image.csv.

    Args:
        report: The whole of it, of this version or an earlier one.

    Raises:
        InputError: It is of a later version.
    """
    refuse_later(report)
    rows = tuple(made(Row, with_foreground(_bounded(row))) for row in report["rows"])
    asked = rows[0].foreground
    it = report["experiment"]
    return Summary(
        rows,
        tuple(made(Comparison, _bounded(each)) for each in report["paired_differences"]),
        dict(report["set_aside"]),
        it.get("target") is not None,
        _digest(report),
        tuple(each.name for each in asked.structures) if asked else (),
        predicted=_predicted(it),
    )


def _bounded(row: Mapping[str, Any]) -> Mapping[str, Any]:
    """A row with its budget, also where that is the pixel box alone: JSON has no infinity."""
    return {**row, "eps": math.inf} if row.get("norm") is not None and row.get("eps") is None else row


def certified_summary_of(report: Mapping[str, Any]) -> CertifiedSummary:
    """What ``segradius certify`` found out, from its results.json.

    Args:
        report: The whole of it, of this version or an earlier one.

    Raises:
        InputError: It is of a later version.
    """
    refuse_later(report)
    return CertifiedSummary(
        tuple(made(CertifiedRow, with_foreground(row)) for row in report["rows"]),
        report["images"],
        tuple(report["invalid"]),
        report["copies"],
        report["ledger"],
        dict(report["set_aside"]),
        dict(report.get("studies") or {}),
        tuple(made(Checked, each) for each in report.get("checked", ())),
        _digest(report),
        tuple(report.get("structures", ())),
        made(WholeImages, report["whole"]) if report.get("whole") else None,
        tuple(made(Stood, each) for each in report.get("attacked", ())),
        _predicted(report["experiment"]),
        report.get("undecided"),
        options_of(report["experiment"]).get("minutes") is not None,
    )


def findings_of(report: Mapping[str, Any], name: str = "warnings") -> tuple[Finding, ...]:
    """What was probably a mistake in a run; nothing of a version that did not look."""
    return tuple(made(Finding, each) for each in report.get(name, ()))


def refuse_later(report: Mapping[str, Any]) -> None:
    """Raise `InputError` where a report is of a version that this one cannot read.

    Example:
        >>> refuse_later({"schema": 1}), refuse_later({})
        (None, None)
    """
    version = report.get("schema", 0)
    if not isinstance(version, int) or version > VERSION:
        raise InputError(
            f"results.json has schema {version!r}; this version of segradius reads 1 to {VERSION}: update it"
        )


def with_foreground(row: Mapping[str, Any]) -> dict[str, Any]:
    """A row of results.json with what is asked with yes or no in a place of its own.

    Example:
        >>> with_foreground({"name": "a", "foreground": "cell", "dice": 0.75, "iou": 0.6, "dice_image": 0.7})
        {'name': 'a', 'foreground': {'of': 'cell', 'dice': 0.75, 'iou': 0.6, 'dice_image': 0.7, 'structures': ()}}
    """
    rest = dict(row)
    if not isinstance(rest.get("foreground"), str):
        return rest
    asked = {"of": rest.pop("foreground")} | {name: rest.pop(name) for name in ("dice", "iou", "dice_image")}
    return rest | {"foreground": asked | {"structures": rest.pop("structures", ())}}


def made(kind: type[T], values: Mapping[str, Any]) -> T:
    """A dataclass from what JSON holds of it, whatever else that has: null is NaN where a number is expected.

    Example:
        >>> made(Interval, {"value": 0.5, "low": None, "high": 1, "news": 3})
        Interval(value=0.5, low=nan, high=1)
    """
    found: Any = _read(kind, values)
    instance: T = found
    return instance


def _read(hint: Any, value: Any) -> Any:
    if hint is float:
        return math.nan if value is None else value
    if isinstance(hint, type) and is_dataclass(hint):
        return _dataclass(hint, value)
    origin, inner = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return None if value is None else _read(next(each for each in inner if each is not type(None)), value)
    if origin is tuple:
        kinds = [inner[0]] * len(value) if inner[1:] == (...,) else inner
        return tuple(_read(each, part) for each, part in zip(kinds, value, strict=True))
    if isinstance(origin, type) and issubclass(origin, Mapping):  # that of a Literal is no class
        return {name: _read(inner[1], part) for name, part in value.items()}
    return value


def _dataclass(kind: type, value: Any) -> Any:
    if kind is Interval and not isinstance(value, Mapping):  # of a version without intervals
        return Interval(math.nan if value is None else value, math.nan, math.nan)
    hints, given = _hints(kind), {}
    for each in fields(kind):
        if each.name in value:
            given[each.name] = _read(hints[each.name], value[each.name])
        elif each.default is MISSING and each.default_factory is MISSING:
            given[each.name] = _absent(hints[each.name])
    return kind(**given)


def _absent(hint: Any) -> Any:
    """What stands for a figure that a version did not have yet."""
    if hint is Interval:
        return Interval(math.nan, math.nan, math.nan)
    if hint is float:
        return math.nan
    return () if get_origin(hint) is tuple else None


@cache
def _hints(kind: type) -> Mapping[str, Any]:
    return get_type_hints(kind)


def _digest(report: Mapping[str, Any]) -> Digest | None:
    found = report.get("digest")
    return None if found is None else made(Digest, found)


def _predicted(experiment: Mapping[str, Any]) -> bool:
    return bool(experiment["data"].get("labels") == "predicted")
