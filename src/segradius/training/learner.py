"""A segmenter as the module that is trained: images in [0, 1] in, every head's logits at their size out."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from segradius.errors import InputError
from segradius.models.segmenter import Segmenter
from segradius.models.tiling import TiledNetwork


class Learner(nn.Module):
    """The network of a segmenter with its normalisation and size rule, in whatever mode it is in.

    The segmenter keeps the same network, so that attacks on it always meet the weights as they are.

    Args:
        model: From `segradius.wrap` or `segradius.load_model`; its network must be an `nn.Module`.
        auxiliary: Whether auxiliary heads are given too. What is in no loss must not be given in several processes,
            each of which would wait for its gradient.

    Raises:
        InputError: If there is nothing to train.

    Example:
        >>> import torch, segradius
        >>> learner = Learner(segradius.wrap(nn.Conv2d(3, 4, 1), normalisation="imagenet"))
        >>> {name: tuple(logits.shape) for name, logits in learner(torch.rand(2, 3, 8, 8)).items()}
        {'out': (2, 4, 8, 8)}
    """

    def __init__(self, model: Segmenter, *, auxiliary: bool = True) -> None:
        super().__init__()
        if not isinstance(model.network, nn.Module) or not any(p.requires_grad for p in model.network.parameters()):
            raise InputError(f"model {model.name!r} cannot be trained: no nn.Module with free parameters")
        if isinstance(model.network, TiledNetwork):
            raise InputError(f"model {model.name!r} looks through windows: train the plain network, without inference:")
        self.model, self.network, self.auxiliary = model, model.network, auxiliary

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Logits (N, C, H, W) of the main head under ``out``, and of others under their own names (``aux``)."""
        raw = self.network(self.model.prepare(images))
        heads = {"out": self.model.decode(raw)}
        if self.auxiliary and isinstance(raw, Mapping):
            heads |= {name: logits for name, logits in raw.items() if name.startswith("aux")}
        height, width = images.shape[-2:]
        return {name: self.model.size.undo(logits, height, width) for name, logits in heads.items()}
