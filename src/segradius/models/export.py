"""A model as an ONNX file that takes images in [0, 1] and gives class probabilities: a target for black-box attacks."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from segradius.core.border import in_a_line
from segradius.core.errors import InputError, missing_extra
from segradius.core.locking import owned
from segradius.core.screen import warn
from segradius.core.storage import replacing
from segradius.models.bands import RGB
from segradius.models.segmenter import AsModule, Segmenter


def export_onnx(model: Segmenter, path: str | Path, height: int, width: int) -> None:
    """Write ``model`` to ``path``, weights included; normalisation, padding and softmax are inside.

    The file's input ``images`` is (N, B, height, width) in [0, 1] for any N ≥ 1, its output ``probabilities`` is
    (N, C, height, width), as `Segmenter.scores` has it; of yes/no channels the 2^K classes are the sets of structures.
    The file's metadata say so: ``segradius.outputs``, ``segradius.classes``, ``segradius.structures``. The model is
    left as it was found. The file is written whole or not at all.

    Args:
        model: From `wrap` or `load_model`.
        path: File to write.
        height: Of the images.
        width: Of the images.

    Raises:
        InputError: The model does not take such images, or has what ONNX cannot say; or another process writes that
            file.
        MissingExtraError: The extra ``export`` is not installed.

    Example:
        >>> from segradius.models import load_model
        >>> export_onnx(load_model("demo"), "demo.onnx", 96, 128)  # doctest: +SKIP
    """
    try:
        import onnxscript  # noqa: F401  what the exporter needs
    except ModuleNotFoundError as error:
        raise missing_extra("onnxscript", "export") from error
    # Two images: a batch of one would be taken for a constant.
    images = torch.rand(2, model.bands or RGB, height, width, device=model.device)
    model.check(images)  # also makes what the model caches, which must not be made while it is traced
    try:
        with model.frozen(), torch.no_grad():
            program = torch.onnx.export(
                nn.Sequential(AsModule(model), nn.Softmax(1)).eval(),
                (images,),
                dynamo=True,  # the older exporter has no adaptive pooling to sizes that do not divide
                dynamic_shapes=({0: torch.export.Dim("batch", min=1)},),
                input_names=["images"],
                output_names=["probabilities"],
                external_data=False,
                verbose=False,
            )
    except torch.onnx.OnnxExporterError as error:
        raise InputError(
            f"model {model.name!r} cannot be written as ONNX: {in_a_line(error.__cause__ or error)}{_instead(model)}"
        ) from error
    assert program is not None
    about = {"outputs": "probabilities", "classes": model.num_classes, "structures": model.structures}
    program.model.metadata_props.update({f"segradius.{name}": str(value) for name, value in about.items()})
    with owned(Path(path), warn=warn), replacing(Path(path)) as new:
        program.save(str(new))


def _instead(model: Segmenter) -> str:
    """What to do about a network that is a program, which cannot be traced again; empty for others."""
    if not any(isinstance(each, torch.jit.ScriptModule) for each in AsModule(model).modules()):
        return ""
    code = "as --model package.module:callable with its --weights"
    return f"; it is a TorchScript program: name the code that it was made from, {code}"
