"""Attacks on segmentation models: one loop with gradients, one with queries, many objectives and steps."""

from segradius.attacks import (  # noqa: F401 - they register their attacks
    apgd,
    bandit,
    dag,
    ensemble,
    local_pbgd,
    local_search,
    pgd,
    sea,
    simba,
    square,
)
from segradius.attacks.base import Attack, Result, Trace
from segradius.attacks.footprint import footprint
from segradius.attacks.make import attack_options, default_eps, guided_by, make_attack
from segradius.attacks.settings import ATTACKS, BLACK_BOX

__all__ = [
    "ATTACKS",
    "BLACK_BOX",
    "Attack",
    "Result",
    "Trace",
    "attack_options",
    "default_eps",
    "footprint",
    "guided_by",
    "make_attack",
]
