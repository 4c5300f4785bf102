"""Gradient estimators for black boxes: ZOO, NES, OPGE, TPGE, and the subspaces they search."""

from segradius.gradients.directions import (
    DIRECTIONS,
    Dct,
    Directions,
    Pixel,
    ShiftedTiles,
    Tiles,
    dimension,
    parse_directions,
)
from segradius.gradients.estimator import ESTIMATORS, Draw, Estimator, Probe, estimate
from segradius.gradients.estimators import NES, OPGE, TPGE, ZOO
from segradius.gradients.local import LocalTPGE
from segradius.gradients.sphere import Sphere

__all__ = [
    "DIRECTIONS",
    "ESTIMATORS",
    "NES",
    "OPGE",
    "TPGE",
    "ZOO",
    "Dct",
    "Directions",
    "Draw",
    "Estimator",
    "LocalTPGE",
    "Pixel",
    "Probe",
    "ShiftedTiles",
    "Sphere",
    "Tiles",
    "dimension",
    "estimate",
    "parse_directions",
]
