"""A network and a folder of images with answers known in closed form, in the working folder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

NETWORK = '''
import torch

def threshold():
    """Class 1 where the mean of the channels is above one half."""
    def network(x):
        mean = x.mean(1, keepdim=True)
        return torch.cat([0.5 - mean, mean - 0.5], 1)
    return network

def probabilities():
    network = threshold()
    return lambda x: network(x).softmax(1)

def not_a_number():
    network = threshold()
    return lambda x: network(x) * float("nan")

def flat():
    return lambda x: x.mean((1, 2, 3))
'''

# l∞ ε = 0.1 turns the pixels with brightness 115 and 140, and no others; the last column is void in image b.
BRIGHTNESS = {"a": [51, 115, 140, 204], "b": [51, 115, 204, 51], "c": [51, 51, 204, 204]}
LABELS = {"a": [0, 0, 1, 1], "b": [0, 0, 1, 255], "c": [0, 0, 1, 1]}


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, with ``closed_form.py`` and the data set ``images``."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "closed_form.py").write_text(NETWORK)
    for kind, table in (("images", BRIGHTNESS), ("masks", LABELS)):
        folder = tmp_path / "data" / kind
        folder.mkdir(parents=True)
        for name, row in table.items():
            pixels = np.array([row] * 2, dtype=np.uint8)
            Image.fromarray(pixels).save(folder / f"{name}.png")
    (tmp_path / "data" / "segradius.yaml").write_text("classes: [dark, bright]\n")
    return tmp_path
