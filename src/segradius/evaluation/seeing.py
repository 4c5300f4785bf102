"""What is evaluated: a network here, or a target that answers with scores and nothing else."""

from __future__ import annotations

from typing import TypeAlias

import torch
from torch import Tensor

from segradius.core.prediction import predict
from segradius.models import Segmenter
from segradius.targets import Local, Target, layers

Seen: TypeAlias = Segmenter | Target


def see(model: Seen, images: Tensor) -> Tensor:
    """Logits (N, C, H, W) where the model has them, else its scores, which a target counts; no gradient."""
    with torch.no_grad():
        return model.logits(images) if isinstance(model, Segmenter) else model.scores(images)


def judge(model: Seen, images: Tensor) -> tuple[Tensor, Tensor]:
    """Predicted class of each pixel (N, H, W), and whether the largest values of an image are all finite (N,)."""
    top, prediction = predict(see(model, images))
    return prediction, top.isfinite().flatten(1).all(1)


def is_counted(model: Seen) -> bool:
    """Whether every look at the model is a query with its price."""
    return not isinstance(model, Segmenter)


def check_model(model: Seen, image: Tensor) -> None:
    """One pass over a grey image like ``image``, for a network in this process; a served one checks its first answer.

    Raises:
        InputError: It does not give logits.
    """
    *_, inner = [model] if isinstance(model, Segmenter) else layers(model)
    network = inner.model if isinstance(inner, Local) else inner
    if isinstance(network, Segmenter):
        network.check(torch.full_like(image[None], 0.5).to(network.device))
