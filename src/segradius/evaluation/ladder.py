"""A ladder of attacks by price: which of them, on how many images, a budget of seconds, passes or queries allows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from segradius.evaluation.attack import Attacking, AttackPlan, make_plans
from segradius.evaluation.expecting import Passes, Price
from segradius.evaluation.probe import wanted

#: Images of one state of the ladder after the other.
GROWING = (12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024, 2048, 4096, 8192)
#: Share of a budget that a certificate may take.
CERTIFIED = 0.25
#: Of it at most so many images: a certificate is looked at, not averaged.
CERTIFIED_IMAGES = 8

#: Passes for the checks of a network: over each of the few images that are looked at before a run, and over one of
#: those for sanity verdicts, about.
LOOKED, CHECKED = Passes(12, 2), Passes(36, 12)

#: Budgets of attacks on a network, the one that all rungs are at first: the least that an 8-bit camera can tell, what
#: people hardly see, and the paper's for l2.
THREATS = (("linf", 1 / 255), ("linf", 4 / 255), ("l2", 1.5))
#: Of attacks on a target, which are weaker: they ask for scores alone.
TARGET_THREATS = (("linf", 8 / 255), ("linf", 4 / 255))
#: Further ones at the end, for a curve of accuracy against ε.
CURVE = (("linf", 2 / 255), ("linf", 8 / 255))


@dataclass(frozen=True)
class Rung:
    """An attack in one threat model.

    Attributes:
        label: In tables.
        attack: Name of the attack.
        norm: Of the budget ε.
        eps: It.
        why: What it is there for.
        options: Of the attack.
        looks: Passes over what it found, to judge it: by itself, once more, and rounded to 8 bits; none of a target,
            whose queries are all in the attack's.
    """

    label: str
    attack: str
    norm: str
    eps: float
    why: str
    options: dict[str, Any] = field(default_factory=dict)
    looks: int = 3

    @cached_property
    def plan(self) -> AttackPlan:
        """As an experiment has it."""
        (plan,) = make_plans({self.label: {"attack": self.attack, **self.options}}, [(self.norm, self.eps)])
        return plan

    @cached_property
    def passes(self) -> Passes:
        """Over one image."""
        task = Attacking(self.plan)
        return Passes(task.total_steps + self.looks, 0 if task.asks else task.total_steps)

    def price(self, cost: Price) -> float:
        """Of one image.

        Example:
            >>> Rung("fgsm", "fgsm", "linf", 1 / 255, "").price(Price(1, 3))
            6
        """
        return cost.of(self.passes)


def rungs_of(threats: Sequence[tuple[str, float]], *, asks: bool) -> tuple[tuple[Rung, ...], ...]:
    """The rungs of a ladder in the groups in which they are added, the cheapest first.

    Args:
        threats: Norms and budgets, the one of most interest first.
        asks: Whether a target is asked, so that only black-box attacks are possible.

    Example:
        >>> [[rung.label for rung in group] for group in rungs_of([("linf", 4 / 255)], asks=False)][:2]
        [['fgsm', 'flips'], ['local_pbgd']]
    """
    return _asking(threats) if asks else _following(threats)


def _following(threats: Sequence[tuple[str, float]]) -> tuple[tuple[Rung, ...], ...]:
    (main, *others), black = threats, _for_queries(threats)
    short = {"steps": 10}
    first = (
        Rung("fgsm", "fgsm", *main, "one step: what the cheapest attack finds"),
        Rung("flips", "flips", *main, "ten steps of a strong attack", short),
    )
    further = tuple(Rung("flips", "flips", *each, "the same in another budget", short) for each in others)
    blind = (Rung("local_pbgd", "local_pbgd", *black, "scores alone: is the gradient masked?", {"queries": 100}, 2),)
    longer = (
        Rung("flips-30", "flips", *main, "thirty steps: do more steps find more?", {"steps": 30}),
        Rung("pgd", "pgd", *main, "the attack that most papers report", short),
    )
    strongest = [
        (Rung("auto", "auto", *each, "an ensemble of three objectives, the strongest here", {"steps": 30}),)
        for each in threats
    ]
    more = [each for each in CURVE if each not in threats]
    curve = tuple(Rung("flips", "flips", *each, "for the curve of accuracy against ε", short) for each in more)
    return tuple(group for group in (first, further, blind, longer, *strongest, curve) if group)


def _asking(threats: Sequence[tuple[str, float]]) -> tuple[tuple[Rung, ...], ...]:
    main, *others = threats
    first = (Rung("local_pbgd-50", "local_pbgd", *main, "a few questions", {"queries": 50}, 0),)
    second = (Rung("square-100", "square", *main, "another search, which needs no loss", {"queries": 100}, 0),)
    third = (
        Rung("local_pbgd-200", "local_pbgd", *main, "four times as many: do more find more?", {"queries": 200}, 0),
    )
    further = tuple(
        Rung("local_pbgd-200", "local_pbgd", *each, "the same in another budget", {"queries": 200}, 0)
        for each in others
    )
    last = (Rung("local_pbgd-1000", "local_pbgd", *main, "what patience finds", {"queries": 1000}, 0),)
    return tuple(group for group in (first, second, third, further, last) if group)


def _for_queries(threats: Sequence[tuple[str, float]]) -> tuple[str, float]:
    """Of all budgets the largest in l∞, in which an attack without gradients has most room; the first where none is."""
    return max((each for each in threats if each[0] == "linf"), key=lambda each: each[1], default=threats[0])


@dataclass(frozen=True)
class State:
    """How far up a ladder: so many images, and the rungs of so many groups."""

    images: int
    groups: int


def states(groups: int, images: int) -> list[State]:
    """All states of a ladder, each with no fewer images and rungs than the one before.

    A few images and the first rungs come first, then all rungs but the dear ones on eight images, which is where
    intervals begin to say something, then images and dear rungs in turn.

    Args:
        groups: Of rungs.
        images: That there are.

    Example:
        >>> [(state.images, state.groups) for state in states(3, 16)]
        [(1, 1), (2, 1), (4, 1), (8, 1), (8, 2), (8, 3), (12, 3), (16, 3)]
    """
    path = [State(n, 1) for n in (1, 2, 4, 8)]
    path += [State(8, k) for k in range(2, min(groups, 4) + 1)]
    at = path[-1].groups
    for n in GROWING:
        path.append(State(n, at))
        if n >= 16 and at < groups:
            at += 1
            path.append(State(n, at))
    found = [State(min(state.images, images), state.groups) for state in path]
    found += [State(images, k) for k in range(found[-1].groups, groups + 1)]
    return list(dict.fromkeys(found))


@dataclass(frozen=True)
class Ladder:
    """What is done for a budget.

    Attributes:
        state: How far up it goes.
        rungs: On each image, after a look at it as it is.
        left_out: Rungs for which there was no budget.
        certified: Images that are certified.
        price: Of it all, in the unit of the budget.
        next_price: Of the next state; 0 where there is none.
    """

    state: State
    rungs: tuple[Rung, ...]
    left_out: tuple[Rung, ...]
    certified: int
    price: float
    next_price: float

    @property
    def images(self) -> int:
        """How many."""
        return self.state.images


def choose(
    groups: Sequence[Sequence[Rung]],
    cost: Price,
    budget: float,
    images: int,
    *,
    copies: int = 0,
    reached: State | None = None,
) -> Ladder:
    """The last state of a ladder that a budget allows; the first where it allows none.

    More budget never takes an image or a rung away, and the price is within the budget unless not even the first state,
    or the one that was reached, is.

    Args:
        groups: From `rungs_of`.
        cost: Of a pass.
        budget: In its unit.
        images: That there are.
        copies: Noisy copies behind a certificate; 0 for no certificate.
        reached: The state of an earlier run, which is kept.

    Example:
        >>> groups = rungs_of([("linf", 4 / 255)], asks=False)
        >>> [choose(groups, Price(1, 3), budget, images=64).images for budget in (10, 500, 20_000)]
        [1, 8, 32]
    """
    every = states(len(groups), images)
    reserve = _certified(copies * cost.forward, budget, images) * copies * cost.forward
    steps = [step for step, state in enumerate(every) if _price(groups, state, cost) <= budget - reserve]
    step = max(steps, default=0)
    if reached is not None:
        step = max(step, step_of(every, reached))
    return ladder_at(groups, cost, budget, images, step, copies=copies)


def step_of(every: Sequence[State], reached: State) -> int:
    """Of some states the first with no fewer images and groups than one that was reached; the last where none has.

    Example:
        >>> step_of(states(3, 16), State(8, 2)), step_of(states(3, 6), State(8, 2))
        (4, 4)
    """
    least = State(min(reached.images, every[-1].images), min(reached.groups, every[-1].groups))
    return next(k for k, each in enumerate(every) if each.images >= least.images and each.groups >= least.groups)


def ladder_at(
    groups: Sequence[Sequence[Rung]], cost: Price, budget: float, images: int, step: int, *, copies: int = 0
) -> Ladder:
    """A ladder at one of its states; arguments as `choose` has them."""
    every = states(len(groups), images)
    state = every[step]
    certified = min(_certified(copies * cost.forward, budget, images), state.images)
    proof = certified * copies * cost.forward
    return Ladder(
        state,
        tuple(rung for group in groups[: state.groups] for rung in group),
        tuple(rung for group in groups[state.groups :] for rung in group),
        certified,
        _price(groups, state, cost) + proof,
        _price(groups, every[step + 1], cost) + proof if step + 1 < len(every) else 0.0,
    )


def _price(groups: Sequence[Sequence[Rung]], state: State, cost: Price) -> float:
    """Of a state: each image is looked at once as it is, then attacked; of a network a few are looked at for checks."""
    each = cost.forward + sum(rung.price(cost) for group in groups[: state.groups] for rung in group)
    asks = groups[0][0].looks == 0
    checks = 0.0 if asks else cost.of(CHECKED) + len(wanted(state.images)) * cost.of(LOOKED)
    return state.images * each + checks


def _certified(each: float, budget: float, images: int) -> int:
    """Images that are certified within their share of a budget, one at least; none at no price."""
    return max(1, min(CERTIFIED_IMAGES, images, int(CERTIFIED * budget / each))) if each else 0
