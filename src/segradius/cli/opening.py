"""From ``--model`` or ``--target`` and the options around them to what is attacked, and its description."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from segradius import models, targets
from segradius.core.errors import InputError
from segradius.evaluation import ModelChoice, Seen

MASKS = (".png", ".bmp", ".gif", ".tif", ".tiff", ".jpg", ".jpeg")


@dataclass(frozen=True)
class Asked:
    """The options that say what is attacked, as given; see ``segradius attack --help``."""

    model: str | None
    target: str | None
    weights: str | None = None
    num_classes: int | None = None
    normalisation: Any = None
    outputs: str | None = None
    answers: str | None = None
    input: str | None = None
    budget: int | None = None

    @property
    def text(self) -> str:
        """The model or the target."""
        return self.model or self.target or ""

    def check(self, classes: Collection[str]) -> None:
        """Raise `InputError` unless it is a model or a target, with options that are for it.

        Args:
            classes: Names of the data's classes; a target of such a name is something to aim at.
        """
        if self.target is not None and _is_aim(self.target, classes):
            raise InputError(
                f"--target {self.target!r}: a target is what is attacked, as onnx:FILE or oip:URL; to aim at a class, "
                f"use --aim {self.target}"
            )
        if (self.model is None) == (self.target is None):
            given = "both were given" if self.model else "neither was given"
            raise InputError(
                f"give --model (a network, with its gradients) or --target (asked for scores only): {given}"
            )
        for name in ("answers", "input", "budget"):
            if self.model is not None and getattr(self, name) is not None:
                raise InputError(f"{name} is for --target, which is asked for scores only; --model was given")


def open_seen(asked: Asked, device: str) -> tuple[Seen, ModelChoice]:
    """What is attacked, and how an experiment describes it."""
    options: dict[str, Any] = {
        "weights": asked.weights,
        "device": device_name(device),
        "num_classes": asked.num_classes,
        "normalisation": asked.normalisation,
        "outputs": asked.outputs,
    }
    colours = None if asked.normalisation is None else str(asked.normalisation)
    described = (asked.weights, asked.num_classes, colours, asked.outputs)
    if asked.target is None:
        network = models.load_model(asked.text, **options)
        return network, ModelChoice(asked.text, *described, models.fingerprint(network))
    target = targets.open_target(asked.text, **options, answers=asked.answers, input=asked.input, budget=asked.budget)
    mark = targets.fingerprint(target)
    return target, ModelChoice(targets.lasting(asked.text), *described, mark, True, asked.answers, asked.input)


def device_name(asked: str) -> str:
    """``asked``, save that ``"auto"`` is a GPU where there is one."""
    return ("cuda" if torch.cuda.is_available() else "cpu") if asked == "auto" else asked


def _is_aim(text: str, classes: Collection[str]) -> bool:
    """Whether a text was probably meant for ``--aim``: random, a class by name or number, or a mask image."""
    named = text.casefold() in {"random", *(name.casefold() for name in classes)}
    return named or text.lstrip("-").isdigit() or Path(text).suffix.lower() in MASKS
