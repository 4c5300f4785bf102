"""A model and data whose every number is known in closed form."""

from __future__ import annotations

import pytest
from threshold_model import Memory, grey, threshold

from segradius.models import Segmenter, wrap


@pytest.fixture
def model() -> Segmenter:
    return wrap(threshold, num_classes=2, name="threshold")


@pytest.fixture
def data() -> Memory:
    """Clean: all right but one pixel of image 1. l∞ ε = 0.1 turns exactly the pixels with brightness 0.45 and 0.55."""
    return Memory(
        [
            grey(0, [[0.2, 0.45, 0.55, 0.8]], [[0, 0, 1, 1]]),
            grey(1, [[0.2, 0.45, 0.8, 0.55]], [[1, 0, 1, 255]]),
            grey(2, [[0.45, 0.45], [0.8, 0.8]], [[0, 0], [1, 1]]),
        ]
    )
