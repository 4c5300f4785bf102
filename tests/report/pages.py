"""Folders of runs made by hand, in the form of ``segradius attack`` and ``certify``, for the page that tells them."""

from __future__ import annotations

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from segradius.core.storage import as_csv, as_json
from segradius.core.sums import write_files

CLASSES = ("road", "sky", "tree", "car")
PALETTE = ((128, 64, 128), (70, 130, 180), (107, 142, 35), (0, 0, 142))
#: Names that are code, markup, Plotly's tags, controls and Unicode's marks of direction to who takes them for that.
HOSTILE = (
    "<script>window.harm=1</script>",
    "</script><img src=x onerror=window.harm=1>",
    "\"'><b onclick=alert(1)>%{x}&lt;",
    "r\u202etl\u2028\nname",
)
PLANS = (("pgd", "l2", 0.5), ("pgd", "l2", 1.5), ("sea", "linf", 4 / 255))


def share(value: float, n: int) -> dict[str, float | None]:
    """As results.json has it: of fewer than five images without ends."""
    wide = 0.1 / max(1, n) ** 0.5
    ends = (max(0.0, value - wide), min(1.0, value + wide)) if n >= 5 else (None, None)
    return {"value": value, "low": ends[0], "high": ends[1]}


def attacked(
    folder: Path,
    *,
    model: str = "demo",
    data: str = "scenes",
    seed: int = 0,
    plans: Sequence[tuple[str, str, float]] = PLANS,
    images: Sequence[str] = tuple(f"val-{k}" for k in range(6)),
    classes: Sequence[str] = CLASSES,
    gallery: int = 1,
    size: tuple[int, int] = (24, 32),
    block: int = 0,
    predicted: bool = False,
    traces: bool = True,
    verdicts: Sequence[dict[str, Any]] | None = (),
    command: str = "segradius attack --model demo --data scenes --out first",
) -> Path:
    """A run of attacks.

    Returns:
        The folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    random, n = np.random.default_rng(seed), len(images)
    left = {plan: 0.9 / (1 + (1 + k) * (1 + 20 * plan[2])) for k, plan in enumerate(plans)}
    rows = [_row("clean", None, None, n, 1.0 if predicted else 0.9, classes)]
    rows += [_row(*plan, n, left[plan], classes) for plan in plans]
    experiment = {
        "model": {"spec": model, "weights": None, "fingerprint": f"mark of {model}"},
        "data": {"spec": data, "split": None, "size": None, "protocol": None, "limit": n, "stride": 1},
        "attacks": [{"name": name, "norm": norm, "eps": eps, "options": {}} for name, norm, eps in plans],
        "target": None,
        "seed": seed,
    }
    if predicted:
        experiment["data"] |= {"labels": "predicted"}
    runtime = {"date": "2026-11-29T00:00:00+00:00", "command": command, "versions": {"segradius": "0"}, "device": "cpu"}
    report: dict[str, Any] = {
        "identity": "x",
        "experiment": experiment,
        "rows": rows,
        "set_aside": {},
        "runtime": runtime,
    }
    report |= {"warnings": []} | ({} if verdicts is None else {"verdicts": list(verdicts)})
    files: dict[str, str | bytes] = {"per_image.csv": _per_image(plans, images, left), "results.json": as_json(report)}
    cells = [
        (*about, label, after, 1 + 7 * (label == after) + k)
        for k, about in enumerate([("clean", "", ""), *plans])
        for label in classes
        for after in classes
    ]
    files["confusion.csv"] = as_csv(("attack", "norm", "eps", "label", "after", "pixels"), cells)
    if traces:
        steps = [(q, 1, 0.5, 0.9 - 0.1 * q / 4, 0.9 - 0.1 * q / 4) for q in (1, 2, 4)]
        columns = ("attack", "norm", "eps", "image", "queries", "judged", "loss", "pixacc", "best")
        files["trace.csv"] = as_csv(columns, [(*plans[-1], image, *step) for image in images for step in steps])
    if gallery:
        files |= _gallery(random, plans, images, left, classes, gallery, size, block)
    write_files(folder, files.items())
    return folder


def _row(
    name: str, norm: str | None, eps: float | None, n: int, value: float, classes: Sequence[str]
) -> dict[str, Any]:
    parts = [
        {"name": each, "pixels": 100 + k, **{what: share(value / (1 + k), n) for what in ("accuracy", "iou", "dice")}}
        for k, each in enumerate(classes)
    ]
    rounded = None if norm is None else {"pixacc": share(value, n), "miou": share(value, n), "eps": 1.1 * (eps or 0)}
    shares = {what: share(value * part, n) for what, part in (("pixacc", 1), ("miou", 0.8), ("miou_image", 0.7))}
    about = {"name": name, "norm": norm, "eps": eps, "images": n, "invalid": 0}
    cost = {"forward": 11.0, "backward": 10.0, "seconds": 0.25, "ledger": {}, "sanity": None}
    return about | shares | {"success": share(1 - value, n)} | cost | {"classes": parts, "rounded": rounded}


def _per_image(plans: Sequence[tuple[str, str, float]], images: Sequence[str], left: dict[Any, float]) -> str:
    header = ("attack", "norm", "eps", "image", "valid", "pixels", "right", "pixacc", "hit", "eligible")
    rows = [("clean", "", "", image, 1, 100, 90, 0.9, 0, 0) for image in images]
    rows += [
        (*plan, image, 1, 100, 50, left[plan] - 0.001 * k, 0, 0) for plan in plans for k, image in enumerate(images)
    ]
    return as_csv(header, rows)


def _gallery(
    random: np.random.Generator,
    plans: Sequence[tuple[str, str, float]],
    images: Sequence[str],
    left: dict[Any, float],
    classes: Sequence[str],
    each: int,
    size: tuple[int, int],
    block: int,
) -> dict[str, str | bytes]:
    files: dict[str, str | bytes] = {}
    index = []
    for at, plan in enumerate(plans):
        first = at * each
        for rank, places in (("most", range(-1 - first, -1 - first - each, -1)), ("least", range(first, first + each))):
            for image in (images[place % len(images)] for place in places):
                file = f"gallery/{at}-{images.index(image)}.npz"
                files[file] = shot(np.random.default_rng(images.index(image)), random, len(classes), size, block)
                about = {"attack": plan[0], "norm": plan[1], "eps": plan[2]}
                index.append({"image": image, **about, "before": 0.9, "left": left[plan], "rank": rank, "file": file})
    files["gallery/index.json"] = json.dumps(index)
    palette = [PALETTE[k % 4] for k in range(len(classes))]
    files["gallery/classes.json"] = json.dumps({"names": list(classes), "palette": palette, "void": -1})
    return files


def shot(
    clean: np.random.Generator, attack: np.random.Generator, classes: int, size: tuple[int, int], block: int
) -> bytes:
    """An image of the gallery: the left half of its labels is class 0, the right half class 1, a corner void.

    With blocks of so many pixels, each has a class by chance, and before and after others.
    """
    height, width = size
    smooth = np.linspace(0, 200, width, dtype=np.float64)[None, :, None].repeat(height, 0).repeat(3, 2)
    image = (smooth + clean.integers(0, 40, (height, width, 3))).astype(np.uint8)
    delta = attack.normal(0, 0.01, (3, height, width)).astype(np.float16)
    label: NDArray[np.int16] = np.zeros((height, width), dtype=np.int16)
    label[:, width // 2 :] = 1
    after = label.copy()
    after[height // 2 :] = classes - 1
    before = label.copy()
    if block:
        label, before, after = (_blocks(rng, size, block, classes) for rng in (clean, clean, attack))
    label[:2, :2] = -1
    arrays = {
        "clean": image,
        "adversarial": (image + 255 * delta.transpose(1, 2, 0).astype(np.float32)).clip(0, 255).astype(np.uint8),
        "delta": delta,
        "label": label,
        "before": before,
        "after": after,
        "radius": np.linspace(0, 1, height * width, dtype=np.float16).reshape(height, width),
    }
    file = io.BytesIO()
    np.savez_compressed(file, **arrays)  # type: ignore[arg-type]
    return file.getvalue()


def _blocks(random: np.random.Generator, size: tuple[int, int], block: int, classes: int) -> NDArray[np.int16]:
    coarse = random.integers(0, classes, (size[0] // block + 1, size[1] // block + 1), dtype=np.int16)
    return coarse.repeat(block, 0).repeat(block, 1)[: size[0], : size[1]]


def certified(folder: Path, *, model: str = "demo", data: str = "scenes", n: int = 6, sigma: float = 0.25) -> Path:
    """A run of certificates: one common radius, and radii of pixels.

    Returns:
        The folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    edges = [0.05 * k for k in range(9)]
    own = [0.7, 0.65, 0.6, 0.5, 0.4, 0.2, 0.1, 0.0, 0.0]
    common = [0.6, 0.6, 0.6, 0.6, 0.0, 0.0, 0.0, 0.0, 0.0]
    rows = [_answer("base", 0.9, n), _answer("smoothed", 0.8, n)]
    rows += [_answer("segcertify", 0.6, n, 0.17, edges, common), _answer("radii", 0.7, n, 0.2, edges, own)]
    experiment = {
        "model": {"spec": model, "weights": None, "fingerprint": f"mark of {model}"},
        "data": {"spec": data, "split": None, "size": None, "protocol": None, "limit": n, "stride": 1},
        "smoothing": {"sigma": sigma, "n0": 10, "n": 100, "alpha": 0.001, "tau": 0.75, "early_stop": None},
        "seed": 0,
    }
    report = {"experiment": experiment, "rows": rows, "images": n, "set_aside": {}, "warnings": [], "copies": 110.0,
              "runtime": {"command": "segradius certify --model demo --data scenes --out certified"}}  # fmt: skip
    write_files(folder, {"results.json": as_json(report)}.items())
    return folder


def _answer(
    name: str,
    value: float,
    n: int,
    radius: float | None = None,
    edges: Sequence[float] = (),
    accuracy: Sequence[float] = (),
) -> dict[str, Any]:
    shares = {what: share(value, n) for what in ("pixacc", "miou", "abstained", "boundary", "interior")}
    counts = [1] * (len(edges) - 1)
    curve = {"edges": list(edges), "certified": counts, "right": counts, "accuracy": list(accuracy)} if edges else None
    told = "Every certified pixel keeps its class." if edges else None
    return {"name": name, **shares, "radius": radius, "gain": None, "promise": told, "classes": [], "curve": curve}
