"""What trials chose, kept by model, size of images and machine, so that the next run need not try again."""

from __future__ import annotations

import hashlib
import json
import os
import platform
from pathlib import Path

import torch
from torch import Tensor

import segradius
from segradius.core.errors import SegradiusError
from segradius.core.storage import write_atomically
from segradius.models.segmenter import Segmenter
from segradius.models.tiling import fingerprint
from segradius.speed.forms import Choice, Speed


def folder() -> Path:
    """Where they are kept: ``SEGRADIUS_CACHE``, or ``segradius`` in the user's folder of caches.

    Example:
        >>> folder().name
        'speed'
    """
    usual = os.environ.get("XDG_CACHE_HOME") or os.environ.get("LOCALAPPDATA") or Path.home() / ".cache"
    return Path(os.environ.get("SEGRADIUS_CACHE") or Path(usual) / "segradius") / "speed"


def recalled(model: Segmenter, images: Tensor, speed: Speed, *, compiled: bool) -> Choice | None:
    """What was chosen for this before; None where nothing is known, or cannot be read."""
    place = _place(model, images, speed, compiled)
    try:
        return None if place is None else Choice.of(json.loads(place.read_text("utf-8")))
    except (OSError, ValueError, SegradiusError):
        return None


def remember(model: Segmenter, images: Tensor, choice: Choice, *, compiled: bool) -> None:
    """Keep a choice; where it cannot be written, the next run tries again."""
    place = _place(model, images, choice.speed, compiled)
    if place is None:
        return
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(place, json.dumps(choice.as_dict(), indent=1) + "\n")
    except (OSError, SegradiusError):
        return


def _place(model: Segmenter, images: Tensor, speed: Speed, compiled: bool) -> Path | None:
    """The file, named by all that decides what pays; None for a function, which has no weights to know it by."""
    network = fingerprint(model)
    if not network:
        return None
    device = images.device
    chip = torch.cuda.get_device_name(device) if device.type == "cuda" else f"{platform.processor()} {_chip()}"
    what = [network, [*images.shape], str(images.dtype), speed, compiled, chip, torch.get_num_threads()]
    what += [repr(model.network), torch.__version__, segradius.__version__, platform.node(), model.channels_last]
    return folder() / f"{hashlib.sha256(json.dumps(what).encode()).hexdigest()[:24]}.json"


def _chip() -> str:
    """The processor's name where the system tells it."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text("utf-8", errors="replace").splitlines() if info.exists() else []
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())
