"""Steps along the gradients of a surrogate, for the pixels that the attacked target still has right."""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor

from segradius.attacks.loop import Room, ascend, see
from segradius.core.ledger import Ledger
from segradius.objectives.losses import ExpectedFlips
from segradius.objectives.objective import Objective

#: A smooth count of flipped pixels, from wide to narrow within the steps of a round.
OBJECTIVE = Objective(ExpectedFlips(2.0, 0.5))
#: How far the steps of a round go in all, over ε.
REACH = 1.5


def guided_steps(room: Room, delta: Tensor, weights: Tensor, steps: int, round: int) -> tuple[Tensor, tuple[int, int]]:
    """Steepest steps from δ that raise the weighted expected flips of the task's surrogate.

    Each gradient is taken beside the iterate, at a point that is uniform in the ball of half the radius around it: one
    that is the same all around has a better chance to be another network's too, and no two rounds propose the same.

    Args:
        room: Ball and box, and the task with its surrogate.
        delta: (N, B, H, W) inside the threat.
        weights: (N, H, W) of the pixels.
        steps: Steps, each REACH · ε over their number.
        round: Key of the random numbers.

    Returns:
        The perturbation, inside the threat, and the forward and backward passes that it took over each image.
    """
    task, norm, surrogate = room.task, room.threat.norm, room.task.surrogate
    there, ledger = Room(room.threat, replace(task, model=surrogate), room.eps, steps, compares=False), Ledger(1)
    eps = room.eps.view(-1, 1, 1, 1)
    for step in range(steps):
        beside = 0.5 * eps * norm.sample_ball(delta, task.randomness.spawn("guided"), round * steps + step)
        sight = see(there, task.seen(delta + task.confine(beside)), step, ledger)
        gradient = ascend(OBJECTIVE, there, sight, weights, ledger)
        delta = room.project(delta + (REACH / steps) * eps * norm.steepest(gradient))
    networks = getattr(getattr(surrogate, "network", None), "passes", 1)  # of a mean, each
    return delta, (networks * int(ledger.forward[0]), networks * int(ledger.backward[0]))
