"""``segradius models``: the files of a model."""

from __future__ import annotations

from typing import Literal

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
