"""The CamVid network as an ONNX file."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

import segradius as sr

SIZE = (96, 128)
SCRIPTS = Path(__file__).resolve().parents[2] / "studies"


@pytest.fixture(scope="session")
def camvid_onnx(camvid_model: sr.Segmenter, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The CamVid network for images of 96 × 128, as ``studies/export_onnx.py`` writes it."""
    path = tmp_path_factory.mktemp("onnx") / "camvid.onnx"
    sys.path.insert(0, str(SCRIPTS))
    try:
        from export_onnx import export
    finally:
        sys.path.remove(str(SCRIPTS))
    export(camvid_model, path, *SIZE)
    return path
