"""A model as an ONNX file that takes images in [0, 1] and gives class probabilities: a target for black-box attacks.

    python studies/export_onnx.py --model demo --size 96x128 --out demo.onnx

Normalisation, padding and softmax are inside; the batch is free, height and width are not. Needs the extra ``export``.
"""

from __future__ import annotations

from pathlib import Path

import torch
from jsonargparse import auto_cli
from torch import Tensor, nn

from segradius.core.errors import missing_extra
from segradius.core.text import size as parse_size
from segradius.models import Segmenter, load_model


class Probabilities(nn.Module):
    """Images (N, 3, H, W) in [0, 1] to probabilities (N, C, H, W), as `Segmenter.scores`, for the exporter to trace."""

    def __init__(self, model: Segmenter) -> None:
        super().__init__()
        self.model, self.network = model, model.network
        self.training = False  # of this module alone; the network is held by `Segmenter.frozen`

    def forward(self, images: Tensor) -> Tensor:
        """The probabilities."""
        coarse = self.model.raw_logits(images)
        return self.model.size.undo(coarse, images.shape[-2], images.shape[-1]).softmax(1)


def export(model: Segmenter, path: Path, height: int, width: int) -> None:
    """Write ``model`` to ``path``, weights included, for images of this height and width and any batch."""
    try:
        import onnxscript  # noqa: F401  what the exporter needs
    except ModuleNotFoundError as error:
        raise missing_extra("onnxscript", "export") from error
    # Two images: a batch of one would be taken for a constant.
    images = torch.rand(2, 3, height, width, device=model.device)
    with model.frozen(), torch.no_grad():
        program = torch.onnx.export(
            Probabilities(model),
            (images,),
            dynamo=True,  # the older exporter has no adaptive pooling to sizes that do not divide
            dynamic_shapes={"images": {0: torch.export.Dim("batch", min=1)}},
            input_names=["images"],
            output_names=["probabilities"],
            external_data=False,
            verbose=False,
        )
    assert program is not None
    program.save(str(path))


def main(
    model: str,
    out: str,
    size: str = "240x320",
    weights: str | None = None,
    num_classes: int | None = None,
    normalisation: str | None = None,
) -> None:
    """Export a model.

    Args:
        model: Model text or card, as ``segradius attack`` takes it.
        out: File to write.
        size: Height x width.
        weights: File of its weights.
        num_classes: Number of classes, where the model does not tell.
        normalisation: Normalisation, where the model does not tell.
    """
    height, width = parse_size(size) or (240, 320)
    network = load_model(model, weights=weights, num_classes=num_classes, normalisation=normalisation)
    export(network, Path(out), height, width)
    print(f"{out}: {network.num_classes} classes, {height} x {width}, {Path(out).stat().st_size:,} bytes")


if __name__ == "__main__":
    auto_cli(main, as_positional=False)
