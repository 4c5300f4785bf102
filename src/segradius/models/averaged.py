"""Several networks as one, by the mean of what they say: what fools them all more often fools another one too."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from segradius.core.errors import InputError, one_of
from segradius.models.segmenter import Segmenter, Weights

Mean = Literal["logits", "probabilities"]


class Averaged(nn.Module):
    """The mean of several networks of the same classes, each with its own normalisation and sizes.

    Args:
        models: The networks, at least two.
        mean: Of what, see `averaged`.
    """

    def __init__(self, models: Sequence[Segmenter], mean: Mean = "logits") -> None:
        super().__init__()
        self.models, self.mean = tuple(models), mean
        self.networks = nn.ModuleList(each.network for each in models if isinstance(each.network, nn.Module))

    @property
    def passes(self) -> int:
        """Passes of a network in one of this."""
        return len(self.models)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, C, H, W) of images (N, B, H, W) in [0, 1]."""
        said = (each.logits(images) for each in self.models)
        if self.mean == "logits":
            return sum(said, torch.zeros((), device=images.device)) / len(self.models)
        return torch.stack([logits.log_softmax(1) for logits in said]).logsumexp(0) - math.log(len(self.models))


def averaged(models: Sequence[Segmenter], mean: Mean = "logits") -> Segmenter:
    """Several networks as one, for adversarial images that fool them all, and so more easily one that was not asked.

    Args:
        models: From `segradius.wrap` or `load_model`, all of the same classes and bands; one alone is given back.
        mean: ``"logits"``: their mean, which transferred best where the three were compared (Dong et al. 2018,
            MI-FGSM); its cross-entropy is the mean of the networks' own, less a term that is zero where they agree.
            ``"probabilities"``: the logarithm of their mean (Liu et al. 2017). The third, the mean of losses, is no
            output of one network, which losses, weights and verdicts here look at.

    Returns:
        A network whose pass is one pass of each.

    Raises:
        InputError: There is none, or they are not of the same classes and bands.

    Example:
        >>> from segradius.models.wrapping import wrap
        >>> one, other = wrap(nn.Conv2d(3, 4, 1)), wrap(nn.Conv2d(3, 4, 1), normalisation="imagenet")
        >>> images = torch.rand(2, 3, 5, 6)
        >>> both = averaged([one, other])
        >>> torch.allclose(both.logits(images), (one.logits(images) + other.logits(images)) / 2)
        True
    """
    one_of(("logits", "probabilities"), mean=mean)
    if not models:
        raise InputError("models is empty; expected one network or several")
    first = models[0]
    for other in models[1:]:
        check_alike(first, other, "the mean of networks")
    if len(models) == 1:
        return first
    device = {each.device for each in models}
    if len(device) > 1:
        raise InputError(f"the networks are on {', '.join(sorted(map(str, device)))}; expected all on one device")
    whole = all(each.weights.whole for each in models) or None
    return Segmenter(
        Averaged(models, mean),
        first.num_classes,
        f"mean of {' and '.join(each.name for each in models)}",
        weights=Weights("that of each", whole=whole),
        bands=next((each.bands for each in models if each.bands is not None), None),
        structures=first.structures,
    )


def check_alike(one: object, other: object, what: str) -> None:
    """Raise `InputError` where two models do not tell the same number of classes or bands apart.

    Args:
        one: A network or target.
        other: Another.
        what: Needs that they do, for the message.
    """
    for name, told in (("num_classes", "classes"), ("structures", "structures that may overlap"), ("bands", "bands")):
        mine, theirs = (getattr(each, name, None) for each in (one, other))
        if mine != theirs and not (name == "bands" and None in (mine, theirs)):
            first, second = (getattr(each, "name", type(each).__name__) for each in (one, other))
            raise InputError(
                f"model {first!r} has {mine or 0} {told} and {second!r} has {theirs or 0}; expected as many, as {what} "
                "compares them pixel by pixel and class by class"
            )
