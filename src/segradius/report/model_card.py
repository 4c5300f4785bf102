"""The figures of finished runs as ``model-index``, the block in which a model card on Hugging Face has results."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from segradius.core.errors import InputError, shown
from segradius.core.escapes import visible
from segradius.core.safe_yaml import from_yaml
from segradius.evaluation.certified_by import OWN_RADII, common_radius, condition, options_of
from segradius.report.ruled import Source

KEY = "model-index"
TASK = {"type": "image-segmentation", "name": "Image Segmentation"}
#: Metrics of a row, with the types by which Hugging Face knows them; what it does not know has our name.
TYPES = {"pixacc": ("accuracy", "Pixel accuracy"), "miou": ("mean_iou", "Mean IoU"), "dice": ("dice", "Dice")}
KEPT = {"pixacc": ("stability", "Pixels that keep the prediction")}
FENCE = "---"


def model_index(sources: Sequence[Source]) -> list[dict[str, Any]]:
    """An entry for each model, with a result for each data set.

    Args:
        sources: The measurements; those that are not finished have no result.
    """
    entries: dict[str, dict[str, Any]] = {}
    for source in sources:
        if source.report is not None:
            name, data = (visible(names[0]) for names in (source.models, source.data))
            entry = entries.setdefault(name, {"name": name, "results": []})
            results = entry["results"]
            result = next((each for each in results if each["dataset"]["name"] == data), None)
            if result is None:
                result = {"task": dict(TASK), "dataset": _dataset(data, source.report), "metrics": []}
                results.append(result)
            result["metrics"] += _metrics(source)
    for entry in entries.values():
        entry["results"] = [each for each in entry["results"] if each["metrics"]]
    return [entry for entry in entries.values() if entry["results"]]


def _dataset(data: str, report: Mapping[str, Any]) -> dict[str, Any]:
    described = report["experiment"]["data"]
    kind = str(described["spec"]).partition(":")[0].partition(",")[0]
    found = {"type": visible(kind), "name": data}
    return found | ({"split": visible(described["split"])} if described.get("split") else {})


def _metrics(source: Source) -> Iterator[dict[str, Any]]:
    report = source.report or {}
    ran = report["experiment"]
    types = TYPES | (KEPT if ran["data"].get("labels") == "predicted" else {})
    for row in report["rows"]:
        told, more = _certificate(row, ran, report) if source.kind == "certify" else _attack(row)
        for metric, (kind, words) in types.items():
            found = row.get(metric)
            if isinstance(found, Mapping) and found.get("value") is not None:
                args = {"seed": ran["seed"], **more, "low": found["low"], "high": found["high"]}
                given = {name: value for name, value in args.items() if value is not None}
                named = f"{words} ({told})" if told else words
                yield {"type": kind, "name": visible(named), "value": float(found["value"]), "args": given}


def _attack(row: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    if not row["norm"]:
        return "", {"attack": "none", "images": row["images"]}
    told = f"{row['name']}, {row['norm']}, ε = {row['eps']:g}" if row["eps"] is not None else f"{row['name']}"
    return told, {"attack": row["name"], "norm": row["norm"], "eps": row["eps"], "images": row["images"]}


def _certificate(
    row: Mapping[str, Any], ran: Mapping[str, Any], report: Mapping[str, Any]
) -> tuple[str, dict[str, Any]]:
    it, images, under = options_of(ran), report["images"], condition(ran)
    if not row["curve"]:
        told = {"base": "", "smoothed": f"smoothed, {under}"}.get(row["name"], row["name"])
        return told, {"answer": row["name"], "images": images}
    if "smoothing" not in ran:
        return f"{row['name']}, {under}", {"answer": row["name"], **it, "images": images}
    radius = None if row["name"] in OWN_RADII else common_radius(ran)
    beyond = "" if radius is None else f", r = {radius:.4g}"
    told = f"certified, l2{beyond}, {under}, α = {it['alpha']:g}"
    return told, {"answer": row["name"], "sigma": it["sigma"], "alpha": it["alpha"], "radius": radius, "images": images}


def with_index(card: str, index: Sequence[Mapping[str, Any]], what: str = "the card") -> str:
    """A model card with this ``model-index``: all else in it, comments too, stays as it is.

    Args:
        card: The card's text; may be empty.
        index: Of `model_index`.
        what: It is, for error messages.

    Raises:
        InputError: What stands between its first two lines ``---`` is no YAML mapping.

    Example:
        >>> print(with_index("---" + chr(10) + "license: mit  # ours" + chr(10) + "---" + chr(10) + "# A net", []))
        ---
        license: mit  # ours
        model-index: []
        ---
        # A net
    """
    block = yaml.safe_dump({KEY: list(index)}, sort_keys=False, allow_unicode=True, width=100)
    lines = card.replace("\r\n", "\n").split("\n")
    closing = next((k for k, line in enumerate(lines[1:], 1) if line.rstrip() == FENCE), None)
    if lines[0].rstrip() != FENCE or closing is None:
        return f"{FENCE}\n{block}{FENCE}\n{card}"
    front, body = lines[1:closing], lines[closing:]
    found = from_yaml("\n".join(front), what)
    if not isinstance(found, dict | None):
        raise InputError(f"{what} begins with {shown(found)}; expected a YAML mapping between two lines {FENCE}")
    kept = _without(front)
    text = "\n".join([FENCE, *kept, *block.rstrip("\n").split("\n"), *body])
    return text if text.endswith("\n") or not card.endswith("\n") else text + "\n"


def _without(front: Sequence[str]) -> list[str]:
    """The lines of YAML without those of the old block, which ends where the next key begins."""
    node = yaml.compose("\n".join(front), Loader=yaml.SafeLoader)
    pairs = node.value if isinstance(node, yaml.MappingNode) else []
    place = next((k for k, (key, _) in enumerate(pairs) if key.value == KEY), None)
    if place is None:
        return list(front)
    first = pairs[place][0].start_mark.line
    after = pairs[place + 1][0].start_mark.line if place + 1 < len(pairs) else len(front)
    return [*front[:first], *front[after:]]


def write_card(file: Path, sources: Sequence[Source]) -> str:
    """What a model card is to hold: the old one with another ``model-index``, or a new one.

    Args:
        file: The card; need not be there.
        sources: The measurements.

    Raises:
        InputError: None of them is finished, or the card cannot be read.
    """
    index = model_index(sources)
    if not index:
        raise InputError("no measurement is finished; expected figures for a model card")
    try:
        card = file.read_text("utf-8") if file.exists() else ""
    except UnicodeDecodeError as error:
        raise InputError(f"{file} is no model card: it is not UTF-8") from error
    return with_index(card, index, str(file))
