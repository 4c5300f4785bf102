"""The CamVid network as an ONNX file."""

from __future__ import annotations

from pathlib import Path

import pytest

import segradius as sr

SIZE = (96, 128)


@pytest.fixture(scope="session")
def camvid_onnx(camvid_model: sr.Segmenter, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The CamVid network for images of 96 × 128, as ``segradius export`` writes it."""
    path = tmp_path_factory.mktemp("onnx") / "camvid.onnx"
    sr.models.export_onnx(camvid_model, path, *SIZE)
    return path
