"""Fixtures that find the shared research data, and skip with a reason where it is absent."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


def shared_folder() -> Path:
    """Folder of the shared data: $SEGRADIUS_SHARED, else ``../shared`` beside the checkout."""
    given = os.environ.get("SEGRADIUS_SHARED")
    return Path(given) if given else Path(__file__).resolve().parents[2] / "shared"


def _need(path: Path) -> Path:
    if not path.exists():
        pytest.skip(f"shared data absent: {path.name} (set SEGRADIUS_SHARED to the folder that holds data/ and models/)")
    return path


@pytest.fixture(scope="session")
def camvid_folder() -> Path:
    """CamVid: images/<split>/NAME.jpg and masks/<split>/NAME.png."""
    return _need(shared_folder() / "data" / "camvid")


@pytest.fixture(scope="session")
def camvid_weights() -> Path:
    """The smp PSPNet-ResNet18 trained on CamVid, safetensors, bfloat16."""
    return _need(shared_folder() / "models" / "smp_pspnet_resnet18_camvid.safetensors")


@pytest.fixture(scope="session")
def golden_folder() -> Path:
    """Parity data for the paper's networks."""
    return _need(shared_folder() / "golden")
