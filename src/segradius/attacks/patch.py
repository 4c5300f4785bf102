"""A patch: any change inside one square and none outside, by whatever attack; where the square lies is searched.

A patch needs no loop of its own. Its threat is the ball on the pixels of a square, and what must be fooled lies outside
of it: an attack is given both for each image, as what may change and what counts, and runs as it always does.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from segradius.attacks.base import Method, Result, Task, parts
from segradius.attacks.loop import Iterative, Room, StepSize
from segradius.core.contracts import Model
from segradius.core.declared import PlaceName, Share, check_fields
from segradius.core.errors import InputError, shown
from segradius.core.ledger import Ledger
from segradius.objectives.objective import Objective
from segradius.threats.projections import choose
from segradius.threats.threat import Threat

#: Places that the search begins with: of the largest first-order gain, and spread over the image.
STEEPEST, SPREAD = 4, 4
#: Moves from the best place, in sides of the square, one after the other; each is tried in four directions.
MOVES = (0.5, 0.25)
#: Steps by which a place is tried.
TRIAL = 5
_DIRECTIONS = ((-1, 0), (1, 0), (0, -1), (0, 1))


def side_of(share: float, height: int, width: int) -> int:
    """Side of the largest square of at most a share of an image's pixels; `InputError` where none fits.

    Example:
        >>> side_of(0.01, 96, 128), side_of(0.25, 8, 8)
        (11, 4)
    """
    side = math.isqrt(int(share * height * width + 1e-6))
    if not 1 <= side <= min(height, width):
        raise InputError(
            f"patch is {share:g}, a square of side {side} in an image of {height} × {width}; expected a share that "
            f"makes one of side 1 to {min(height, width)}"
        )
    return side


def squares(places: Tensor, side: int, height: int, width: int) -> Tensor:
    """The pixels of a square in each image, (N, H, W) bool.

    Args:
        places: (N, 2) int64, row and column of the square's first pixel.
        side: Of the square, in pixels.
        height: Of the images, in pixels.
        width: Likewise.

    Example:
        >>> squares(torch.tensor([[0, 1]]), 1, 2, 2).tolist()
        [[[False, True], [False, False]]]
    """
    top, left = places[:, 0].view(-1, 1, 1), places[:, 1].view(-1, 1, 1)
    rows = torch.arange(height, device=places.device).view(1, -1, 1)
    columns = torch.arange(width, device=places.device).view(1, 1, -1)
    return (rows >= top) & (rows < top + side) & (columns >= left) & (columns < left + side)


def inside(task: Task[Any], where: Tensor) -> Task[Any]:
    """The same task where nothing but the pixels of (N, H, W) bool may change, and nothing but the others counts."""
    room = where.unsqueeze(1).to(task.images.dtype)
    counted = task.goal.counted & ~where
    goal = replace(
        task.goal,
        counted=counted,
        reference=task.goal.reference.masked_fill(~counted, 0),
        labels=task.goal.labels.masked_fill(~counted, 0),
    )
    return replace(task, goal=goal, changeable=room if task.changeable is None else room * task.changeable)


def at_places(method: Method, task: Task[Model], places: Tensor, side: int) -> Result:
    """A method run inside one square of each image, whose pixels do not count; as a check of a certificate needs it.

    Args:
        method: Any.
        task: The batch.
        places: (N, 2) int64, row and column of each square's first pixel.
        side: Of the squares, in pixels.

    Returns:
        The method's result, ``covered`` by the squares.
    """
    where = squares(places, side, *task.images.shape[-2:])
    return _covered(method.run(inside(task, where)), where)


def _covered(found: Result, where: Tensor) -> Result:
    return replace(found, covered=where, members={name: _covered(each, where) for name, each in found.members.items()})


def gains(slopes: Tensor, side: int) -> Tensor:
    """First-order gain of a square at every place, (N, H, W) of pixels → (N, H − side + 1, W − side + 1): their sums.

    Example:
        >>> gains(torch.tensor([[[1.0, 2.0, 3.0], [1.0, 1.0, 1.0]]]), 2).tolist()
        [[[5.0, 7.0]]]
    """
    # In float64: differences of running sums lose what a small square has beside a large image.
    sums = torch.nn.functional.pad(slopes.double(), (1, 0, 1, 0)).cumsum(1).cumsum(2)
    wide = sums[:, side:] - sums[:, :-side]
    return wide[:, :, side:] - wide[:, :, :-side]


def best_places(gain: Tensor, side: int, count: int) -> list[Tensor]:
    """The ``count`` places of largest gain that do not overlap one another, best first; each (N, 2) int64.

    Args:
        gain: (N, P, Q), what a square is worth whose first pixel is there, at least 0.
        side: Of the squares, in pixels.
        count: How many.
    """
    rows = torch.arange(gain.shape[1], device=gain.device).view(1, -1, 1)
    columns = torch.arange(gain.shape[2], device=gain.device).view(1, 1, -1)
    found = []
    for _ in range(count):
        first = gain.flatten(1).argmax(1)
        place = torch.stack([first // gain.shape[2], first % gain.shape[2]], 1)
        near = (rows - place[:, 0].view(-1, 1, 1)).abs() < side
        near = near & ((columns - place[:, 1].view(-1, 1, 1)).abs() < side)
        gain = gain.masked_fill(near, -1.0)
        found.append(place)
    return found


@dataclass(frozen=True)
class Patched:
    """An attack inside one square of an image.

    A searched place is the best of several by how many pixels outside of it a few steps of the attack fool there: four
    of the largest first-order gain that do not overlap, four spread over the image, then, twice, four moves of the best
    by a half and by a quarter of its side. The attack itself then runs there, with all its steps, as at a given place.

    Attributes:
        attack: Any; for a search one that is, or is made of, an `Iterative`.
        share: Share of the image's pixels, of which the largest square of at most so many is taken.
        place: "search", "centre", "random", or the row and column of the square's first pixel as "10:20".
    """

    attack: Method
    share: Share
    place: PlaceName = "search"
    _given: tuple[int, int] | None = field(init=False, repr=False, compare=False, default=None)

    def __post_init__(self) -> None:
        check_fields(self, share="patch")
        object.__setattr__(self, "_given", read_place(self.place))
        if self.place == "search" and self._trial is None:
            raise InputError("place is search, and this attack has no threat to be tried in; expected a place")

    @property
    def needs(self) -> frozenset[str]:
        """What the attack needs."""
        return self.attack.needs

    @property
    def total_steps(self) -> int:
        """The attack's, and those of the search."""
        tries = STEEPEST + SPREAD + len(MOVES) * len(_DIRECTIONS)
        return self.attack.total_steps + (1 + TRIAL * tries if self.place == "search" else 0)

    @property
    def _trial(self) -> Iterative | None:
        """A few steps of the attack, or else of PGD, by which places are compared."""
        found = next(parts(self.attack, Iterative), None)
        if found is None:  # one with a loop of its own
            from segradius.attacks.pgd import Steepest  # which makes attacks, and so stands above this file

            threat = next(parts(self.attack, Threat), None)
            return None if threat is None else Iterative(Objective(), threat, Steepest(StepSize(per_eps=2.5)), TRIAL)
        return replace(found, steps=TRIAL, start="zero", keep="best")

    def run(self, task: Task[Model]) -> Result:
        """Find the places, and attack there."""
        ledger = Ledger(len(task.images))
        height, width = task.images.shape[-2:]
        side = side_of(self.share, height, width)
        free = (height - side + 1, width - side + 1)
        found = at_places(self.attack, task.spawn("patch"), self._places(task, side, free, ledger), side)
        ledger.add(found.ledger)
        return replace(found, ledger=ledger)

    def _places(self, task: Task[Model], side: int, free: tuple[int, int], ledger: Ledger) -> Tensor:
        """Row and column of each image's square, (N, 2) int64; ``free`` is how many rows and columns there are."""
        if self.place == "search":
            return self._searched(task, side, free, ledger)
        if self.place == "random":
            drawn = task.randomness.uniform((2,), "patch", dtype=torch.float64)
            return (drawn * drawn.new_tensor(free)).long().to(task.images.device)
        row, column = self._given or ((free[0] - 1) // 2, (free[1] - 1) // 2)
        if row >= free[0] or column >= free[1]:
            raise InputError(
                f"place is {self.place}, where a square of side {side} leaves the image; expected a row below "
                f"{free[0]} and a column below {free[1]}"
            )
        return _everywhere(task, row, column)

    def _searched(self, task: Task[Model], side: int, free: tuple[int, int], ledger: Ledger) -> Tensor:
        trial, tried = self._trial, 0
        assert trial is not None
        found: tuple[Tensor, Tensor] | None = None

        def best(place: Tensor) -> tuple[Tensor, Tensor]:
            nonlocal tried
            result = at_places(trial, task.spawn(f"place {tried}"), place, side)
            tried += 1
            ledger.add(result.ledger)
            if found is None:
                return place, result.fooled
            better = result.fooled > found[1]
            return choose(better, place, found[0]), torch.maximum(found[1], result.fooled)

        for place in [*self._steepest(task, trial, side, ledger), *_spread(task, free)]:
            found = best(place)
        for move in MOVES:
            assert found is not None
            centre, far = found[0], max(1, round(move * side))
            for direction in _DIRECTIONS:
                moved = centre + far * centre.new_tensor(direction)
                found = best(torch.minimum(moved.clamp_min(0), moved.new_tensor(free) - 1))
        assert found is not None
        return found[0]

    @staticmethod
    def _steepest(task: Task[Model], trial: Iterative, side: int, ledger: Ledger) -> list[Tensor]:
        """Places where a change of the whole square gains most to first order; one pass and its gradient."""
        task = task.entered(trial.threat)
        room = Room(
            trial.threat, task, trial.threat.budgets(len(task.images), task.images), trial.steps, compares=False
        )
        none, spare = torch.zeros_like(task.images), Ledger(len(task.images))
        seen, *_ = trial.look.observe(trial.objective, room, none, 0, None, spare)
        ledger.add(spare)
        task.done(1)
        # The largest g·δ over box and ε of single values, in coordinates where ε is that.
        far = room.project(seen.gradient.sign() * 2) if trial.threat.norm.name == "linf" else seen.gradient.sign()
        slopes = (seen.gradient * far).sum(1)
        return best_places(gains(slopes / _largest(slopes), side), side, STEEPEST)


def _largest(slopes: Tensor) -> Tensor:
    top = slopes.flatten(1).amax(1).view(-1, 1, 1)
    return torch.where(top > 0, top, torch.ones_like(top))


def _spread(task: Task[Any], free: tuple[int, int]) -> list[Tensor]:
    """Four places in the middle of the quarters of an image."""
    rows, columns = ([(n - 1) // 4, (3 * (n - 1)) // 4] for n in free)
    return [_everywhere(task, row, column) for row in rows for column in columns]


def _everywhere(task: Task[Any], row: int, column: int) -> Tensor:
    return torch.tensor([[row, column]], device=task.images.device).expand(len(task.images), 2)


def read_place(text: str) -> tuple[int, int] | None:
    """Row and column, where they are given; `InputError` where it is no place."""
    if text in ("search", "centre", "random"):
        return None
    row, _, column = text.replace(",", ":").partition(":")
    if not (row.strip().isascii() and row.strip().isdigit() and column.strip().isascii() and column.strip().isdigit()):
        raise InputError(f"place is {shown(text)}; expected search, centre, random, or a row and a column as 10:20")
    return int(row), int(column)
