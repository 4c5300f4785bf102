"""Section 6 of the paper: what a defence does to the radius of the pixels that are easiest to perturb.

The paper recalculates the radius of the 20 % of pixels with the least and finds it 11 % larger. But pixels chosen as
ONE network's weakest are stronger under ANY other network, by regression to the mean. So the change is measured too at
the weakest of the network AFTER, and of each network at its own weakest pixels, which has no such bias; and for a
control, a network that was trained on without attack.

Pixels are chosen image by image among the labelled ones, then pooled; noise belongs to the image's id and is the same
for all networks.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import astuple, dataclass
from functools import partial
from itertools import combinations, product
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from segradius.core.declared import Copies, Seed, Share, Sigma
from segradius.core.errors import InputError
from segradius.core.randomness import Randomness
from segradius.data.sample import Sample, SegmentationData
from segradius.metrics.intervals import Interval, jackknife
from segradius.models.segmenter import Segmenter
from segradius.paper.computed.subject import COMPUTED, Subject, remembered
from segradius.radius.gaussian import signed_radius
from segradius.radius.smoothing import CEILING, normalised_radius, smoothed_probabilities

Key = tuple[str, int, int]  # kind of radius, the network that chose the pixels, the network they are measured under
#: ``radius`` is Φ⁻¹(p) of Eq. 8, within [0, 4.61], whatever the class; ``signed`` the two-class radius with respect to
#: the label, negative for a wrong pixel. Both are in units of σ.
KINDS = ("radius", "signed")
ALL = -1
_TINY = 1e-37  # a probability that is 0 in float32 still has a logarithm


@dataclass(frozen=True)
class Noise:
    """Gaussian noise behind a radius, σ in pixel units."""

    sigma: float
    samples: int
    seed: int


@dataclass(frozen=True)
class Change:
    """Chosen pixels under two networks, images pooled: mean radii, the second minus the first with its 95 % interval.

    ``percent`` is NaN where the first mean may not be positive. ``right`` is the share of the pixels whose label wins,
    ``capped`` of those whose unsigned radius is at its ceiling.
    """

    kind: str
    pixels: str
    networks: tuple[str, str]
    means: tuple[float, float]
    difference: tuple[float, float, float]
    percent: tuple[float, float, float]
    right: tuple[float, float]
    capped: tuple[float, float]


def radii(model: Segmenter, sample: Sample, noise: Noise, void: int) -> Tensor:
    """Radius, signed radius and top probability of the K labelled pixels of an image; (3, K) float64."""
    known, label = sample.label != void, sample.label.masked_fill(sample.label == void, 0)
    keys, images = Randomness(noise.seed, (sample.id,)), sample.image[None].to(model.device)
    found = smoothed_probabilities(model, images, keys, sigma=noise.sigma, samples=noise.samples)
    top = found.amax(1)
    signed = signed_radius(found.clamp_min(_TINY).log(), label[None].to(model.device))
    return torch.stack([normalised_radius(top), signed, top])[:, 0].cpu()[:, known].double()


def sums(found: Sequence[Tensor], share: float) -> dict[Key, Tensor]:
    """Sums of (radius, right, capped, 1) over the weakest ``share`` of an image's pixels, and all, from its `radii`."""
    summed, pixels = {}, found[0].shape[1]
    for place, kind in enumerate(KINDS):
        # Top probabilities order pixels as the radius does, and also those at an end of its range.
        ranks = [each[(2, 1)[place]].argsort(stable=True)[: math.ceil(share * pixels)] for each in found]
        for who, chosen in enumerate([*ranks, torch.arange(pixels)]):
            for network, each in enumerate(found):
                radius, right, capped = each[place, chosen], each[1, chosen] > 0, each[2, chosen] >= CEILING
                parts = torch.stack([radius, right.double(), capped.double(), torch.ones_like(radius)])
                summed[kind, ALL if who == len(found) else who, network] = parts.sum(1)
    return summed


def changes(images: Sequence[Mapping[Key, Tensor]], names: Sequence[str]) -> list[Change]:
    """Every comparison of two networks, from the `sums` of each image."""
    pooled = {key: torch.stack([image[key] for image in images]) for key in images[0]}
    found = []
    pairs = sorted(combinations(range(len(names)), 2), key=lambda pair: -pair[1])
    for kind, (i, j) in product(KINDS, pairs):
        choices = {f"weakest of {names[k]}": (k, k) for k in sorted({0, i, j})}
        for pixels, (who, whose) in (choices | {"weakest of each": (i, j), "all": (ALL, ALL)}).items():
            pair = pooled[kind, who, i], pooled[kind, whose, j]
            found.append(_change(kind, pixels, (names[i], names[j]), pair))
    return found


def _change(kind: str, pixels: str, names: tuple[str, str], pair: tuple[Tensor, Tensor]) -> Change:
    first, second = (each.sum(0) / each[:, -1].sum() for each in pair)
    parts = torch.cat([each[:, [0, -1]] for each in pair], 1)
    least = jackknife(parts, lambda sums: _means(sums)[0], shares=False)
    percent = Interval(math.nan, math.nan, math.nan)
    if not min(least.value, least.low) <= 0:
        percent = jackknife(parts, lambda sums: 100 * _gain(sums) / _means(sums)[0], shares=False)
    difference = jackknife(parts, _gain, shares=False)
    both = [(float(first[k]), float(second[k])) for k in range(3)]
    return Change(kind, pixels, names, both[0], astuple(difference), astuple(percent), both[1], both[2])


def _means(sums: Tensor) -> tuple[Tensor, Tensor]:
    return sums[..., 0] / sums[..., 1], sums[..., 2] / sums[..., 3]


def _gain(sums: Tensor) -> Tensor:
    first, second = _means(sums)
    return second - first


def summed(models: Sequence[Segmenter], data: SegmentationData, noise: Noise, share: float) -> list[dict[Key, Tensor]]:
    """`sums` of each image that has a labelled pixel."""
    if not 0 < share <= 1:
        raise InputError(f"share {share}; expected a number in (0, 1]")
    for model in models:
        if model.num_classes < len(data.classes):
            raise InputError(f"{model.name} predicts {model.num_classes} classes; the data has {len(data.classes)}")
    void, found = data.classes.ignore_index, []
    for sample in (data[place] for place in range(len(data))):
        if (sample.label != void).any():
            each = [radii(model, sample, noise, void) for model in models]
            found.append(sums(each, share))
    if not found:
        raise InputError(f"{data.name}: none of {len(data)} images has a labelled pixel")
    return found


def _groups(subjects: Sequence[Subject], roles: Sequence[str]) -> list[list[Subject]]:
    """Networks that began as one, in the order of their roles: those of one family, data and seed."""
    found = []
    for before in (each for each in subjects if each.role == roles[0]):
        same = [on for on in subjects if (on.family, on.data, on.seed) == (before.family, before.data, before.seed)]
        rest = [on for role in roles[1:] for on in same if role and on.role == role]
        if rest:
            found.append([before, *rest])
    return found


def _passes(
    subjects: Sequence[Subject] = (), *, before: str = "plain", control: str = "clean_more", after: str = "cr_pgd_at",
    samples: int = 8, **others: Any,
) -> int:  # fmt: skip
    return sum(len(group) * samples * len(group[0].images) for group in _groups(subjects, (before, control, after)))


@COMPUTED.register("weakest", passes=_passes)
def weakest(
    subjects: Sequence[Subject],
    folder: Path,
    *,
    before: str = "plain",
    control: str = "clean_more",
    after: str = "cr_pgd_at",
    share: Share = 0.2,
    samples: Copies = 8,
    sigma: Sigma = 0.001,
    seed: Seed = 0,
) -> dict[str, Any]:
    """Section 6: the radius of the pixels that had the least, before and after a defence, and beside a control.

    Args:
        subjects: Networks; those of one family, data and seed belong together.
        folder: Of the computation.
        before: Role of the networks that others were trained on from.
        control: Role of those trained on without attack.
        after: Role of the defence.
        share: Of an image's pixels that are its weakest.
        samples: M of the radius.
        sigma: σ of it.
        seed: Of its noise.

    Returns:
        ``share``, ``samples``, ``sigma`` and ``rows``: for each family, data and seed every comparison of two networks,
        with ``from`` and ``to`` (before, control, after), ``kind`` of radius, ``pixels`` (weakest of before, weakest of
        each, all, …), ``means`` in units of σ, ``difference`` and ``percent`` with their intervals, ``right``,
        ``capped`` and ``n`` images; see `Change`.

    Raises:
        InputError: There are not two networks that belong together.
    """
    roles = {before: "before", control: "control", after: "after"}
    groups = _groups(subjects, tuple(roles))
    if not groups:
        there = ", ".join(f"{each.label} ({each.role})" for each in subjects) or "none"
        raise InputError(
            f"weakest: the networks are {there}; expected one of role {before} and of {control} or {after}, of one "
            "family, data and seed"
        )
    rows = []
    for group in groups:
        names = [roles[each.role] for each in group]
        noise = Noise(sigma, samples, seed)
        given = {"networks": [each.known for each in group], "names": names, "noise": astuple(noise), "share": share}
        part = "-".join(each.label for each in group)
        rows += remembered(folder, part, given, partial(_of_group, group, names, noise, share))
    return {"share": share, "samples": samples, "sigma": sigma, "rows": rows}


def _of_group(group: Sequence[Subject], names: Sequence[str], noise: Noise, share: float) -> list[dict[str, Any]]:
    images = summed([each.load() for each in group], group[0].images, noise, share)
    first = group[0]
    about = {"family": first.family, "seed": first.seed, "data": first.data}
    rows = []
    for each in changes(images, names):
        ends = {
            name: dict(zip(("value", "low", "high"), getattr(each, name), strict=True))
            for name in ("difference", "percent")
        }
        start, end = each.networks
        shares = {"means": each.means, "right": each.right, "capped": each.capped}
        what = {"from": start, "to": end, "kind": each.kind, "pixels": each.pixels}
        rows.append({**about, **what, **ends, **shares, "n": len(images)})
    return rows
