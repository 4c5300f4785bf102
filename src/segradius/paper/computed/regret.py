r"""Theorem 3 measured: regret of projected bandit ascent, against the number of rounds T.

An attacker maximises, so the guarantee is about a *concave* loss, and regret is Σ L(δ*) − L(δ⁽ᵗ⁾) ≥ 0. Both losses in
closed form are 1-Lipschitz in l2 (C = 1): a cone, −‖δ − a‖₂ with its top inside the ball, and a plane, ⟨a, δ⟩ with
‖a‖₂ = 1, whose best point is on the border. The ball has radius D = √N/2, the distance that the constants of the
paper's Theorem 4 imply. Three settings, all with the estimator of Eq. 16:

- letter: Theorem 3's α = √N/(2C√T) and γ = N^{3/2}/(6√T), for a regret of at most N^{3/2}C√T.
- norm: Theorem 4 with what Theorem 2 bounds, ‖ĝ‖ ≤ NC: α = D/(NC√T), γ = D/√T; regret at most (N + 1)DC√T.
- moment: the same with E‖ĝ‖² ≤ N²C²/(N − 1): α = D√(N − 1)/(NC√T), γ = D/√T; at most (N/√(N − 1) + 1)DC√T.

The loss of a network is not concave, and its best point is not known: there δ* is the better of what PGD finds with
gradients and of all that was seen, α is D/(G√T) with D = ε and G² the mean of ‖ĝ‖² at the start, and γ is D/√T.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import torch
from torch import Tensor

from segradius.attacks.make import make_attack
from segradius.core.declared import Count, Eps, Range, Seed
from segradius.core.errors import InputError
from segradius.core.randomness import Randomness
from segradius.gradients.estimator import Probe, estimate
from segradius.gradients.estimators import TPGE
from segradius.paper.computed.estimators import attack_loss
from segradius.paper.computed.spread import mean_of
from segradius.paper.computed.subject import COMPUTED, Subject, remembered
from segradius.threats.threat import L2, Threat

#: First estimates of which the size of a step on a network follows.
SIZED = 4


@dataclass(frozen=True)
class Setting:
    """Step α, radius γ and proven bound of a run of T rounds, for N values and C = 1; times √T they do not depend on T.

    Attributes:
        alpha: α√T.
        gamma: γ√T.
        bound: The bound over √T.
    """

    alpha: float
    gamma: float
    bound: float


@dataclass(frozen=True)
class Regrets:
    """Regret of each seed after each number of rounds, for one loss and setting."""

    loss: str
    setting: str
    bound: float
    rounds: tuple[int, ...]
    regret: tuple[tuple[float, ...], ...]

    @property
    def slopes(self) -> tuple[float, ...]:
        """Slope of log regret against log T by least squares, of each seed."""
        return slopes_of(self.rounds, self.regret)

    @property
    def slope(self) -> tuple[float, float]:
        """Its mean over the seeds, and the standard error."""
        slopes = torch.tensor(self.slopes, dtype=torch.float64)
        return float(slopes.mean()), float(slopes.std()) / math.sqrt(len(slopes))


def slopes_of(rounds: Sequence[int], regret: Sequence[Sequence[float]]) -> tuple[float, ...]:
    """Slope of log regret against log T by least squares, of each column of ``regret``, (rounds, seeds).

    Example:
        >>> [round(each, 9) for each in slopes_of([4, 16, 64], [[2.0, 3.0], [4.0, 12.0], [8.0, 48.0]])]
        [0.5, 1.0]
    """
    x = torch.tensor(rounds, dtype=torch.float64).log()
    y = torch.tensor(regret, dtype=torch.float64).log()
    x = x - x.mean()
    return tuple(((x.unsqueeze(1) * y).sum(0) / x.square().sum()).tolist())


def settings(values: int) -> dict[str, Setting]:
    """The three settings for N = ``values`` in the ball of radius √N/2."""
    n, radius = values, math.sqrt(values) / 2
    moment = n / math.sqrt(n - 1)
    return {
        "letter": Setting(math.sqrt(n) / 2, n**1.5 / 6, n**1.5),
        "norm": Setting(radius / n, radius, (n + 1) * radius),
        "moment": Setting(radius / moment, radius, (moment + 1) * radius),
    }


def losses(a: Tensor) -> dict[str, tuple[Callable[[Tensor], Tensor], float]]:
    """Concave 1-Lipschitz losses (M, 3, H, W) → (M,), and their maxima in the ball; ``a`` (3, H, W) has norm 1."""
    radius = math.sqrt(a.numel()) / 2
    top = a * (radius / 2)
    return {
        "cone": (lambda points: -(points - top).flatten(1).norm(dim=1), 0.0),
        "plane": (lambda points: (points * a).flatten(1).sum(1), radius),
    }


def ascend(loss: Callable[[Tensor], Tensor], best: float, setting: Setting, rounds: int, keys: Randomness) -> Tensor:
    """Regret after ``rounds`` rounds of δ ← Proj(δ + αĝ) from 0, an image for each key, (N,)."""
    shape = (len(keys.ids), 3, 2, 2)
    radius = math.sqrt(math.prod(shape[1:])) / 2
    estimator, probe = TPGE(setting.gamma / math.sqrt(rounds)), as_probe(loss)
    delta = torch.zeros(shape, dtype=torch.float64)
    regret = torch.zeros(len(delta), dtype=torch.float64)
    for step in range(rounds):
        regret += best - loss(delta)
        delta += estimate(estimator, probe, delta, keys, step) * (setting.alpha / math.sqrt(rounds))
        delta *= (radius / delta.flatten(1).norm(dim=1)).clamp(max=1).view(-1, 1, 1, 1)
    return regret


def as_probe(loss: Callable[[Tensor], Tensor]) -> Probe:
    """The loss as a black box; it has no pixels of its own, so all of it stands at the first."""

    def probe(points: Tensor) -> Tensor:
        values = loss(points.flatten(0, 1)).view(*points.shape[:2], 1, 1)
        return torch.nn.functional.pad(values, (0, points.shape[4] - 1, 0, points.shape[3] - 1))

    return probe


def regrets(rounds: Sequence[int], seeds: int) -> list[Regrets]:
    """Every loss under every setting."""
    a = torch.randn(3, 2, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    keys = Randomness(0, tuple(f"seed {k}" for k in range(seeds)))
    found = []
    for name, (loss, best) in losses(a / a.norm()).items():
        for label, setting in settings(a.numel()).items():
            regret = tuple(tuple(ascend(loss, best, setting, T, keys).tolist()) for T in rounds)
            found.append(Regrets(name, label, setting.bound, tuple(rounds), regret))
    return found


def of_network(
    subject: Subject, rounds: Sequence[int], images: int, eps: float, steps: int, seed: int
) -> dict[str, Any]:
    """Regret of the estimator of Eq. 16 on the loss of a network, mean over the labelled pixels, in an l2 ball.

    Args:
        subject: The network and its images.
        rounds: Values of T.
        images: How many of its images.
        eps: Radius of the ball, which is cut with the box of images.
        steps: Of the PGD that finds δ*.
        seed: Of the directions.
    """
    model, data = subject.load(), subject.images
    samples = [data[k] for k in range(min(images, len(data)))]
    x, labels = (torch.stack([getattr(each, part) for each in samples]).to(model.device) for part in ("image", "label"))
    void, ids = data.classes.ignore_index, tuple(each.id for each in samples)
    with torch.no_grad():
        maps, keys, threat = attack_loss(model, x, labels, void), Randomness(seed, ids), Threat(L2(), eps)
        run = partial(_bandit, maps, x, keys, threat)
        traces = [run(T) for T in rounds]
        clean = maps(torch.zeros_like(x)).flatten(1).sum(1)
    pgd = make_attack("pgd", norm="l2", eps=eps, steps=steps, keep="last")
    found = pgd(model, x, labels, ids=ids, seed=seed, ignore_index=void)
    with torch.no_grad():
        best = maps(found.delta).flatten(1).sum(1)
    best = torch.stack([best, *(trace.amax(0) for trace in traces)]).amax(0).double()
    regret = [(best - trace.double()).sum(0).tolist() for trace in traces]
    slopes = slopes_of(rounds, regret)
    return {
        **subject.about, "eps": eps, "rounds": list(rounds), "images": list(ids), "clean": clean.tolist(),
        "best": best.tolist(), "reached": [trace[-1].tolist() for trace in traces], "regret": regret,
        "slopes": list(slopes), "slope": mean_of(slopes),
    }  # fmt: skip


def _bandit(maps: Callable[[Tensor], Tensor], x: Tensor, keys: Randomness, threat: Threat, rounds: int) -> Tensor:
    """Loss of every iterate, (rounds, N)."""

    def probe(points: Tensor) -> Tensor:
        return torch.stack([maps(point) for point in points])

    eps = float(threat.budgets(1, x)[0])
    estimator, delta, project = TPGE(eps / math.sqrt(rounds)), torch.zeros_like(x), threat.onto(x)
    first = [estimate(estimator, probe, delta, keys.spawn("size"), step).flatten(1) for step in range(SIZED)]
    size = torch.stack(first).square().sum(2).mean(0).sqrt().clamp_min(torch.finfo(x.dtype).tiny)
    alpha = (eps / (size * math.sqrt(rounds))).view(-1, 1, 1, 1)
    seen = []
    for step in range(rounds):
        seen.append(maps(delta).flatten(1).sum(1))
        delta = project(delta + alpha * estimate(estimator, probe, delta, keys, step))
    return torch.stack(seen)


def _passes(
    subjects: Sequence[Subject] = (), *, network_rounds: Sequence[int] = (16, 64, 256), images: int = 6,
    steps: int = 50, **others: Any,
) -> int:  # fmt: skip
    each = sum(2 * SIZED + 3 * rounds for rounds in network_rounds) + 2 * steps + 3
    return sum(each * min(images, len(on.images)) for on in subjects)


@COMPUTED.register("regret", passes=_passes)
def regret(
    subjects: Sequence[Subject],
    folder: Path,
    *,
    first: Annotated[int, Range("[0, 20]")] = 6,
    last: Annotated[int, Range("[1, 20]")] = 14,
    seeds: Annotated[int, Range("[2, 1000]")] = 8,
    network_rounds: tuple[Count, ...] = (16, 64, 256),
    images: Count = 6,
    eps: Eps = 1.5,
    steps: Count = 50,
    seed: Seed = 0,
) -> dict[str, Any]:
    """Theorem 3: how the regret of bandit ascent grows with the number of rounds T.

    Args:
        subjects: Networks on whose loss it is measured too; none for the losses in closed form alone.
        folder: Of the computation.
        first: Fewest rounds of the losses in closed form, as a power of 2; then every second power.
        last: Most rounds, as a power of 2.
        seeds: Independent runs of each.
        network_rounds: Values of T on networks, two at least.
        images: How many of a network's.
        eps: Radius of the l2 ball around an image.
        steps: Of the PGD that finds the best point of a network's loss.
        seed: Of the directions on networks.

    Returns:
        ``losses``: by loss and setting the fields of `Regrets`, and ``slope`` of log regret against log T with its
        interval over the seeds: ½ is √T. ``networks``: for each, what `of_network` gives; a slope of 1 is no gain on
        standing still.

    Raises:
        InputError: ``first`` is not below ``last``, or there are fewer than two numbers of rounds for a network.
    """
    if not first < last or (subjects and len(set(network_rounds)) < 2):
        raise InputError(
            f"regret: first = {first}, last = {last}, network_rounds = {list(network_rounds)}; expected first < last, "
            "and two different numbers of rounds"
        )
    given: dict[str, Any] = {"first": first, "last": last, "seeds": seeds}
    losses = remembered(folder, "losses", given, partial(_closed_forms, first, last, seeds))
    networks = []
    for on in subjects:
        asked = (network_rounds, images, eps, steps, seed)
        given = {"network": on.known, "asked": asked}
        networks.append(remembered(folder, on.label, given, partial(of_network, on, *asked)))
    return {"losses": losses, "networks": networks}


def _closed_forms(first: int, last: int, seeds: int) -> list[dict[str, Any]]:
    found = regrets([2**power for power in range(first, last + 1, 2)], seeds)
    return [{**asdict(each), "slope": mean_of(each.slopes)} for each in found]
