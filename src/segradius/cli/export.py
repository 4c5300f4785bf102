"""``segradius export``."""

from __future__ import annotations

from segradius.cli.options import NetworkOptions
from segradius.core import text


def export(model: str, size: str, out: str, network: NetworkOptions) -> int:
    """Write a model as an ONNX file that takes images in [0, 1] and gives class probabilities.

    Normalisation, padding and softmax are inside; the batch is free, height and width are not. Attack the file with
    segradius attack --target onnx:FILE. Needs the extra export.

    Args:
        model: Network or card, as segradius attack takes it.
        size: Height x width of the images, as in 240x320.
        out: File to write.
        network: See `NetworkOptions`.
    """
    from pathlib import Path

    from segradius.models import export_onnx, load_model

    height_width = text.size(size)
    assert height_width is not None  # as size is a text
    found = load_model(model, **vars(network))
    export_onnx(found, out, *height_width)
    print(f"{out}: {found.num_classes} classes, {size}, {Path(out).stat().st_size:,} bytes")
    return 0
