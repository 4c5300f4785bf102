"""Attacks on segmentation models: one loop, many objectives and steps."""

from segradius.attacks.recipes import ATTACKS, attack_options, make_attack
from segradius.attacks.task import Attack, Result

__all__ = ["ATTACKS", "Attack", "Result", "attack_options", "make_attack"]
