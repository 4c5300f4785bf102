"""What is trained: a network as a module with all its heads, judged on a share of a data set, written as weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from segradius.core.errors import InputError
from segradius.core.prediction import predict
from segradius.core.seal import labelled
from segradius.core.storage import replacing
from segradius.data.sample import SegmentationData
from segradius.metrics.counts import Counts, count
from segradius.models.decoding import Decode, Decoding
from segradius.models.denoising import DENOISED, trained_part
from segradius.models.holding import modes_kept
from segradius.models.segmenter import Segmenter
from segradius.models.tiling import TiledNetwork
from segradius.training.lessons import Share, even


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
            why = getattr(model.network, "untrainable", "") or "no nn.Module with free parameters"
            raise InputError(f"model {model.name!r} cannot be trained: {why}")
        if isinstance(model.network, TiledNetwork):
            raise InputError(f"model {model.name!r} looks through windows: train the plain network, without inference:")
        self.model, self.network, self.auxiliary = model, model.network, auxiliary
        # What is learnt is the probability of a yes; from where on that counts as one is for who asks.
        yes_no = isinstance(model.decode, Decoding) and model.decode.yes_no
        self.decode: Decode = replace(cast(Decoding, model.decode), threshold=0.5) if yes_no else model.decode

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Logits (N, C, H, W) of the main head under ``out``, and of others under their own names (``aux``).

        Of a denoiser in training what it made of the images is beside them, under `DENOISED`.
        """
        raw, decode = self._answer(images), self.decode
        heads = {"out": decode(raw)}
        if torch.is_grad_enabled() and not heads["out"].requires_grad:
            raise InputError(
                f"model {self.model.name!r} cannot be trained: no gradient reaches its parameters, as it computes "
                "under no_grad, detaches, or leaves torch"
            )
        beside = {DENOISED: raw[DENOISED]} if isinstance(raw, Mapping) and DENOISED in raw else {}
        if self.auxiliary and isinstance(raw, Mapping):
            of = decode.of if isinstance(decode, Decoding) else torch.nn.Identity()
            heads |= {name: of(values) for name, values in raw.items() if name.startswith("aux")}
        height, width = images.shape[-2:]
        return {name: self.model.size.undo(logits, height, width) for name, logits in heads.items()} | beside

    def _answer(self, images: Tensor) -> Any:
        try:
            with modes_kept():
                return self.network(self.model.prepare(images))
        except ValueError as error:
            if "Expected more than 1 value per channel" not in str(error):
                raise
            layer = _raised_in(self.network, error)
            raise InputError(
                f"the batch norm{layer} of model {self.model.name!r} sees one value a channel in a step of "
                f"{len(images)} image: give --batch-size at least 2, of which no single image is left over, or larger "
                "images (--crop)"
            ) from error


def _raised_in(network: nn.Module, error: BaseException) -> str:
    """The innermost module that an error came from, in words; nothing where that is not known."""
    names = {id(module): name for name, module in network.named_modules()}
    found, at = "", error.__traceback__
    while at is not None:
        found = names.get(id(at.tb_frame.f_locals.get("self")), found)
        at = at.tb_next
    return f" {found!r}" if found else ""


@torch.no_grad()
def judge(
    model: Segmenter,
    data: SegmentationData,
    device: torch.device,
    batch_size: int = 8,
    share: Share = Share(),  # noqa: B008  (frozen)
) -> Counts:
    """Counts of the clean predictions on this process's share of a data set.

    Args:
        model: On ``device``.
        data: Images of any sizes.
        device: Where it runs.
        batch_size: Images that are read at a time; neighbours of one size go through the model together.
        share: Which part of the data set.
    """
    mine = share.of(range(len(data)))
    found, void, structures = [], data.classes.ignore_index, len(data.classes.structures)
    for at in range(0, len(mine), batch_size):
        for images, labels, _ in even(data[i] for i in mine[at : at + batch_size]):
            prediction = predict(model.logits(images.to(device)))[1]
            found.append(count(prediction.cpu(), labels, model.num_classes, void, structures))
    return Counts.joined(found)


def export(network: nn.Module, path: Path) -> None:
    """Write what of a network is trained as safetensors, whole or not at all."""
    trained = trained_part(network)
    state = {name: value.detach().cpu().contiguous() for name, value in trained.state_dict().items()}
    with replacing(path) as new:
        save_file(state, new, metadata=labelled(state))
