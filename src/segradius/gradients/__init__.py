"""Gradient estimators for black boxes: ZOO, NES, OPGE, TPGE, and the subspaces they search."""

from segradius.gradients.directions import DIRECTIONS, Dct, Directions, Pixel, ShiftedTiles, Tiles, dimension
from segradius.gradients.local import LocalTPGE
from segradius.gradients.nes import NES
from segradius.gradients.opge import OPGE
from segradius.gradients.parsing import parse_directions
from segradius.gradients.probe import ESTIMATORS, Draw, Estimator, Probe, estimate
from segradius.gradients.sphere import Sphere
from segradius.gradients.tpge import TPGE
from segradius.gradients.zoo import ZOO

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
