"""``segradius export``."""

from __future__ import annotations

from typing import Any, Literal

from segradius.core import text


def export(
    model: str,
    size: str,
    out: str,
    weights: str | None = None,
    num_classes: int | None = None,
    normalisation: str | dict[str, Any] | None = None,
    outputs: Literal["logits", "probabilities"] | None = None,
) -> int:
    """Write a model as an ONNX file that takes images in [0, 1] and gives class probabilities.

    Normalisation, padding and softmax are inside; the batch is free, height and width are not. Attack the file with
    segradius attack --target onnx:FILE. Needs the extra export.

    Args:
        model: Network or card, as segradius attack takes it.
        size: Height x width of the images, as in 240x320.
        out: File to write.
        weights: File with the network's weights, .safetensors or a checkpoint that holds tensors only.
        num_classes: Number of classes, where the model does not tell.
        normalisation: imagenet, none, or a mapping of mean and std; inside the file.
        outputs: What the network returns, where it is not logits.

    Returns:
        The exit status.
    """
    from pathlib import Path

    from segradius.models import export_onnx, load_model

    options = {"num_classes": num_classes, "normalisation": normalisation, "outputs": outputs}
    network = load_model(model, weights=weights, **options)
    height, width = text.size(size) or (0, 0)
    export_onnx(network, out, height, width)
    print(f"{out}: {network.num_classes} classes, {height} x {width}, {Path(out).stat().st_size:,} bytes")
    return 0
