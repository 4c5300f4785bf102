"""Networks behind one face: `wrap` yours, or `load_model` by name, library or card."""

from segradius.models import demo, published
from segradius.models.cards import ModelCard, read_card
from segradius.models.checkpoints import Conversion, convert, load_into, load_state
from segradius.models.identity import fingerprint
from segradius.models.loading import load_model
from segradius.models.preprocessing import Normalisation, SizeRule
from segradius.models.segmenter import AsModule, Segmenter, wrap
from segradius.models.sources import MODELS
from segradius.models.tiling import Tiling, tiled

__all__ = [
    "MODELS",
    "AsModule",
    "Conversion",
    "ModelCard",
    "Normalisation",
    "Segmenter",
    "SizeRule",
    "Tiling",
    "convert",
    "demo",
    "fingerprint",
    "load_into",
    "load_model",
    "load_state",
    "published",
    "read_card",
    "tiled",
    "wrap",
]
