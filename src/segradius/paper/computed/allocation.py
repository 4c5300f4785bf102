"""Figure 5 of the paper: which pixels an attack spends its perturbation on, by their certified radius."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from segradius.core.declared import Count, Eps, Seed, Sigma
from segradius.core.names import safe_name
from segradius.core.randomness import Randomness
from segradius.core.storage import replacing
from segradius.paper.computed.attacking import Budget, Plans, passes, shots
from segradius.paper.computed.maps import THREE
from segradius.paper.computed.spread import difference_of, mean_of
from segradius.paper.computed.subject import COMPUTED, Subject, remembered
from segradius.radius.smoothing import pixel_radius

QUANTILES = (0.1, 0.25, 0.5, 0.75, 0.9)
#: What is told of an image: see `statistics`.
STATISTICS = ("radius_by_square", "radius_by_size", "small_half", "small_fifth", "spearman", "spearman_known")


@dataclass(frozen=True)
class Pixels:
    """The pixels of an image.

    Attributes:
        radius: (K,) float64, cr/σ = Φ⁻¹(p).
        known: (K,) bool, labelled.
        size: |δ| of each, l2 over the bands, by attack; (K,) float64.
        right: Labelled pixels that are right, clean under "" and by attack.
    """

    radius: Tensor
    known: Tensor
    size: Mapping[str, Tensor]
    right: Mapping[str, int]


def statistics(radius: Tensor, size: Tensor, known: Tensor) -> dict[str, float]:
    """How the size of a perturbation goes with the radius, over the pixels of one image.

    Args:
        radius: (K,).
        size: |δ| of each pixel, (K,).
        known: (K,) bool, labelled.

    Returns:
        ``radius_by_square``, ``radius_by_size``: mean radius weighted by |δ|² and by |δ|, over the plain mean radius:
        below 1 where small radii get more. ``small_half``, ``small_fifth``: share of Σ|δ|² that the half, the fifth of
        pixels with the least radius gets, equal radii sharing alike. ``spearman``: rank correlation of radius and |δ|;
        ``spearman_known``: over labelled pixels alone. NaN where there is no perturbation.

    Example:
        >>> found = statistics(torch.tensor([1.0, 2.0]), torch.tensor([3.0, 1.0]), torch.tensor([True, True]))
        >>> found["small_half"], round(found["radius_by_square"], 3), round(found["spearman"], 3)
        (0.9, 0.733, -1.0)
    """
    from scipy.stats import rankdata  # half a second to import

    radius, size = radius.double(), size.double()
    square, mean = size.square(), radius.mean()
    _, place, counts = np.unique(radius.cpu().numpy(), return_inverse=True, return_counts=True)
    shared = np.bincount(place, square.cpu().numpy()) / counts
    spent = np.cumsum(np.repeat(shared, counts))

    def least(part: float) -> float:
        count = part * len(spent)
        whole = int(count)
        below = float(spent[whole - 1]) if whole else 0.0
        above = float(spent[whole]) if whole < len(spent) else below
        return (below + (count - whole) * (above - below)) / float(spent[-1]) if spent[-1] > 0 else float("nan")

    def ranks(keep: Tensor) -> float:
        pair = torch.from_numpy(np.stack([rankdata(each[keep].cpu().numpy()) for each in (radius, size)]))
        return float(torch.corrcoef(pair)[0, 1])

    weighted = [float((radius * by).sum() / by.sum() / mean) for by in (square, size)]
    every = torch.ones_like(known)
    return dict(zip(STATISTICS, (*weighted, least(0.5), least(0.2), ranks(every), ranks(known)), strict=True))


def binned(images: Sequence[Pixels], bins: int) -> dict[str, Any]:
    """Quantiles of |δ| in bins of the radius that hold as many pixels each, all images pooled.

    Args:
        images: The pixels.
        bins: How many; fewer where many radii are equal.

    Returns:
        ``edges`` (B + 1), ``pixels`` (B), and ``attacks``: by label ``quantiles``, B lists of |δ| at `QUANTILES`, and
        ``share`` of Σ|δ|², (B).
    """
    radius = torch.cat([each.radius for each in images]).cpu().numpy()
    edges = np.unique(np.quantile(radius, np.linspace(0, 1, bins + 1)))
    if len(edges) == 1:
        edges = np.array([edges[0], edges[0]])
    place = np.searchsorted(edges[1:-1], radius, side="right")
    inside = [place == k for k, _ in enumerate(pairwise(edges))]
    attacks = {}
    for label in images[0].size:
        size = torch.cat([each.size[label] for each in images]).cpu().numpy()
        total = float(np.square(size).sum()) or float("nan")
        attacks[label] = {
            "quantiles": [np.quantile(size[rows], QUANTILES).tolist() for rows in inside],
            "share": [float(np.square(size[rows]).sum()) / total for rows in inside],
        }
    return {"edges": edges.tolist(), "pixels": [int(rows.sum()) for rows in inside], "attacks": attacks}


def _passes(
    subjects: Sequence[Subject] = (), *, attacks: Plans = THREE, norm: str = "l2", eps: float = 1.5, steps: int = 50,
    preset: str = "", limit: int = 10, samples: int = 8, **others: Any,
) -> int:  # fmt: skip
    return passes(subjects, Budget(norm, eps, steps, preset), attacks, limit, samples + 1)


@COMPUTED.register("allocation", passes=_passes)
def allocation(
    subjects: Sequence[Subject],
    folder: Path,
    *,
    attacks: Mapping[str, Any] = THREE,
    norm: Literal["l1", "l2", "linf"] = "l2",
    eps: Eps = 1.5,
    steps: Count = 50,
    preset: str = "",
    limit: Count = 10,
    samples: Count = 8,
    sigma: Sigma = 0.001,
    bins: Count = 10,
    points: Count = 5000,
    seed: Seed = 0,
) -> dict[str, Any]:
    """Figure 5: how much of their perturbation attacks give to pixels of each radius.

    Args:
        subjects: Networks, each with its images.
        folder: For the points.
        attacks: By label; the first is what the others are compared with.
        norm: Of the perturbation.
        eps: Its budget.
        steps: T.
        preset: As of a study.
        limit: How many of a subject's images.
        samples: M behind the radius, of the clean image.
        sigma: σ of it.
        bins: Of the radius.
        points: How many pixels of all images go into the file, evenly spread.
        seed: Of noise and attacks.

    Returns:
        ``networks``: of each `Subject.about`, ``images``, ``pixacc`` clean under "" and by attack, ``bins`` as `binned`
        gives, ``file``; ``rows``: for each network and attack the mean of each of `STATISTICS` over images with its
        interval, ``difference`` of each from the first attack's (mean, interval, p-value of flipped signs), and
        ``each``, the values of the images.

        The file is an .npz: ``radius`` (P,) float16, in units of σ, and ``size_k`` (P,) float16, |δ| of attack k.

    Raises:
        InputError: An attack or option is unknown.
    """
    budget = Budget(norm, eps, steps, preset)
    budget.attacks(attacks)
    networks, rows = [], []
    for on in subjects:
        asked = (budget, attacks, limit, samples, sigma, bins, points, seed)
        given = {"network": on.known, "asked": list(map(str, asked))}
        found = remembered(folder, on.label, given, partial(_of_subject, on, folder, *asked), [_file(on)])
        networks.append(found["network"])
        rows += found["rows"]
    return {"norm": norm, "eps": eps, "steps": steps, "quantiles": list(QUANTILES), "networks": networks, "rows": rows}


def _file(on: Subject) -> str:
    return f"allocation-{safe_name(on.label)}.npz"


def _of_subject(
    on: Subject, folder: Path, budget: Budget, plans: Plans, limit: int, samples: int, sigma: float, bins: int,
    points: int, seed: int,
) -> dict[str, Any]:  # fmt: skip
    model, found, ids = on.load(), list[Pixels](), []
    made = budget.attacks(plans)
    for shot in shots(on, model, limit):
        radii = pixel_radius(model, shot.images, Randomness(seed, (shot.id,)), sigma=sigma, samples=samples)
        results = {label: shot.attacked(attack, model, seed) for label, attack in made.items()}
        size = {label: each.delta[0].double().norm(dim=0).flatten() for label, each in results.items()}
        right = {label: shot.right(each.prediction) for label, each in results.items()}
        right[""] = shot.right(shot.clean(model))
        found.append(Pixels(radii.normalised[0].double().flatten(), shot.known[0].flatten(), size, right))
        ids.append(shot.id)
    _write(folder / _file(on), found, points)
    known = sum(int(each.known.sum()) for each in found)
    pixacc = {label: sum(each.right[label] for each in found) / known for label in ("", *made)}
    about = {**on.about, "images": ids, "pixacc": pixacc, "file": _file(on), "bins": binned(found, bins)}
    return {"network": about, "rows": [{**on.about, **row} for row in _rows(found, list(made))]}


def _rows(found: Sequence[Pixels], labels: Sequence[str]) -> list[dict[str, Any]]:
    values = {label: [statistics(each.radius, each.size[label], each.known) for each in found] for label in labels}
    rows = []
    for label in labels:
        columns = {name: [each[name] for each in values[label]] for name in STATISTICS}
        first = {name: [each[name] for each in values[labels[0]]] for name in STATISTICS}
        rows.append(
            {
                "attack": label,
                "n": len(found),
                **{name: mean_of(columns[name]) for name in STATISTICS},
                "difference": {name: difference_of(columns[name], first[name]) for name in STATISTICS},
                "each": columns,
            }
        )
    return rows


def _write(file: Path, found: Sequence[Pixels], points: int) -> None:
    radius = torch.cat([each.radius for each in found])
    kept = torch.linspace(0, len(radius) - 1, min(points, len(radius))).round().long()
    arrays = {"radius": radius.cpu()[kept].half().numpy()}
    for place, label in enumerate(found[0].size):
        arrays[f"size_{place}"] = torch.cat([each.size[label] for each in found]).cpu()[kept].half().numpy()
    with replacing(file) as new, new.open("wb") as out:
        np.savez_compressed(out, allow_pickle=False, **arrays)
