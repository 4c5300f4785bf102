"""``segradius models`` and ``segradius export``: the files of a model."""

from __future__ import annotations

from typing import Literal

from segradius.cli.options import NetworkOptions
from segradius.core import text
from segradius.core.screen import say


def models(
    action: Literal["convert"], source: str, target: str, /, allow_unsafe_pickle: bool = False, overwrite: bool = False
) -> int:
    """Turn a PyTorch checkpoint into a safetensors file, which holds tensors and no code.

    Args:
        action: What to do, convert.
        source: Checkpoint, .pth, .pt, .bin, .ckpt or .tar.
        target: File to write, .safetensors.
        allow_unsafe_pickle: Read a checkpoint that holds Python objects too. Only for a file whose origin you trust, as
            it runs the code that the file names, now, with your rights.
        overwrite: Replace a target that exists.

    Returns:
        The exit status.
    """
    from segradius.models.checkpoints import convert

    done = convert(source, target, allow_unsafe=allow_unsafe_pickle, overwrite=overwrite)
    lines = [f"{done.target}: {done.tensors} tensors, SHA-256 {done.sha256}"]
    if done.dropped:
        lines.append(f"Left out, not tensors of the network: {', '.join(done.dropped)}")
    lines += [
        "A card to use it with, as --model FILE.yaml (see docs/models.md):",
        "  model: NETWORK  # as pspnet50,num_classes=21; see segradius list models",
        f"  weights: {done.target.name}",
    ]
    for line in lines:
        say(line)
    return 0


def export(model: str, size: str, out: str, network: NetworkOptions) -> int:
    """Write a model as an ONNX file that takes images in [0, 1] and gives class probabilities.

    Normalisation, padding and softmax are inside; the batch is free, height and width are not. Attack the file with
    segradius attack --target onnx:FILE. Needs the extra export.

    Args:
        model: Network or card, as segradius attack takes it; package.module:callable runs that code.
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
    sets = f", the sets of {found.structures} yes/no channels" if found.structures else ""
    say(f"{out}: {found.num_classes} classes{sets}, {size}, {Path(out).stat().st_size:,} bytes")
    return 0
