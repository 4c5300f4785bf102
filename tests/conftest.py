"""Fixtures that find the shared research data, and skip with a reason where it is absent."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import Tensor

import segradius as sr

# One thread a worker: on the small tensors of these tests, threads cost far more than they bring.
torch.set_num_threads(1)


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What trials of speed chose is kept apart from the user's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SEGRADIUS_CACHE", str(tmp_path_factory.mktemp("cache")))
        yield


def shared_folder() -> Path:
    """Folder of the shared data: $SEGRADIUS_SHARED, else ``../shared`` beside the checkout."""
    given = os.environ.get("SEGRADIUS_SHARED")
    return Path(given) if given else Path(__file__).resolve().parents[2] / "shared"


def _need(path: Path) -> Path:
    if not path.exists():
        pytest.skip(
            f"shared data absent: {path.name} (set SEGRADIUS_SHARED to the folder that holds data/ and models/)"
        )
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


@pytest.fixture(scope="session")
def camvid_model(camvid_weights: Path) -> sr.Segmenter:
    """The CamVid network, ready to attack at sides that are multiples of 8."""
    spec = "smp:PSPNet,encoder_name=resnet18,encoder_weights=null,encoder_depth=3,classes=11"
    return sr.load_model(spec, weights=str(camvid_weights))


@pytest.fixture(scope="session")
def camvid_batch(camvid_folder: Path) -> tuple[Tensor, Tensor]:
    """Four test images at 120 × 160 and their labels."""
    data = sr.open_data(f"camvid:{camvid_folder}", split="test", size=(120, 160))
    samples = [data[i] for i in range(0, 156, 39)]
    return torch.stack([s.image for s in samples]), torch.stack([s.label for s in samples])
