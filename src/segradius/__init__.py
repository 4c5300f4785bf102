"""segradius: measure, attack, certify and harden image-segmentation models, guided by the certified radius.

The names below are loaded when first used, so that ``import segradius`` and ``segradius --help`` are instant.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from segradius.attacks import Attack, Result, attack_options, make_attack
    from segradius.core.errors import InputError, SegradiusError
    from segradius.core.randomness import Randomness
    from segradius.data import open_data
    from segradius.models import AsModule, Segmenter, load_model, wrap
    from segradius.objectives.criterion import CertifiedRadiusLoss
    from segradius.radius.smoothing import RadiusMap, pixel_radius

__version__ = "0.1.0"

_HOME = {
    "AsModule": "models",
    "Attack": "attacks",
    "CertifiedRadiusLoss": "objectives.criterion",
    "InputError": "core.errors",
    "RadiusMap": "radius.smoothing",
    "Randomness": "core.randomness",
    "Result": "attacks",
    "Segmenter": "models",
    "SegradiusError": "core.errors",
    "attack_options": "attacks",
    "load_model": "models",
    "make_attack": "attacks",
    "open_data": "data",
    "pixel_radius": "radius.smoothing",
    "wrap": "models",
}

__all__ = [
    "AsModule",
    "Attack",
    "CertifiedRadiusLoss",
    "InputError",
    "RadiusMap",
    "Randomness",
    "Result",
    "Segmenter",
    "SegradiusError",
    "attack_options",
    "load_model",
    "make_attack",
    "open_data",
    "pixel_radius",
    "wrap",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'segradius' has no attribute {name!r}")
    return getattr(importlib.import_module(f"segradius.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
