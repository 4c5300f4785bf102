"""Attacks on segmentation models: one loop with gradients, one with queries, many objectives and steps."""

from segradius.attacks import estimated, local, searched  # noqa: F401 - they register their attacks
from segradius.attacks.black_box import BLACK_BOX
from segradius.attacks.making import attack_options, default_eps, make_attack
from segradius.attacks.recipes import ATTACKS
from segradius.attacks.task import Attack, Result, Trace

__all__ = ["ATTACKS", "BLACK_BOX", "Attack", "Result", "Trace", "attack_options", "default_eps", "make_attack"]
