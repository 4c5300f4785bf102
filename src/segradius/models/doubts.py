"""What is probably a mistake of a model, though nothing forbids it: no weights, no normalisation, hooks left."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from segradius.core.bands import told
from segradius.models.bands import RGB
from segradius.models.denoising import DenoisedNetwork
from segradius.models.denoising import told as named
from segradius.models.parameters import hooks_of, mixing, never_trained
from segradius.models.segmenter import Segmenter
from segradius.models.tiling import TiledNetwork


@dataclass(frozen=True)
class Doubt:
    """Something about a model that is probably a mistake.

    Attributes:
        name: Of the kind: ``weights``, ``undeclared``, ``swapped``, ``assumed``, ``hooks`` or ``batch``.
        text: What was seen.
        advice: What to do.
    """

    name: str
    text: str
    advice: str

    def __str__(self) -> str:
        """One line."""
        return f"{self.text}: {self.advice}"


def doubts(model: Segmenter) -> list[Doubt]:
    """What is probably a mistake of a model, to be told before any pass is spent.

    Args:
        model: From `wrap` or `load_model`; of one in sliding windows or behind a denoiser the network inside is looked
            at, and whether the denoiser was trained.

    Example:
        >>> from segradius.models import load_model
        >>> doubts(load_model("demo"))
        []
        >>> print(*doubts(load_model("pspnet_light")))
        pspnet_light has no weights: give --weights FILE, or every figure is that of a random network
    """
    while isinstance(model.network, TiledNetwork):
        model = model.network.model
    seen = model
    while isinstance(model.network, TiledNetwork | DenoisedNetwork):
        model = model.network.model
    return [*_of_denoiser(seen), *_of_weights(model), *_of_colours(model), *_of_hooks(seen), *_of_batches(seen)]


def _of_denoiser(model: Segmenter) -> Iterator[Doubt]:
    if isinstance(model.network, DenoisedNetwork) and model.network.trained is False:
        text = f"the denoiser {named(model.network.denoiser)} before {model.network.model.name} has no weights"
        advice = "train it (segradius train --model denoised:NAME,base=…) and give its card as --denoiser"
        yield Doubt("weights", text, advice)


def _of_weights(model: Segmenter) -> Iterator[Doubt]:
    advice = "give --weights FILE, or every figure is that of a random network"
    if model.weights.whole is False:
        part = f"weights in a part alone ({model.weights.source})" if model.weights.source else "no weights"
        yield Doubt("weights", f"{model.name} has {part}", advice)
    elif model.weights.whole is None and never_trained(model.network):
        yield Doubt(
            "weights", f"{model.name} seems to have no weights: its batch norms have never seen an image", advice
        )


def _of_colours(model: Segmenter) -> Iterator[Doubt]:
    if model.normalisation is None:
        text = f"{model.name} declares no normalisation and is given images in [0, 1] as they are"
        usual = "imagenet, or what"
        if model.bands not in (None, RGB):
            usual = "'{mean: […], std: […]}', a number for each of " + f"{told(model.bands or 0)}, as"
        advice = f"give --normalisation {usual} it was trained with; or none, if that is so"
        yield Doubt("undeclared", text, advice)
    elif model.normalisation.is_impossible:
        mean, std = model.normalisation.mean, model.normalisation.std
        text = f"{model.name} is normalised by mean {mean} and std {std}, which no values in [0, 1] have"
        yield Doubt("swapped", text, "are the two swapped?")
    if model.assumed:
        yield Doubt("assumed", model.assumed, "give --normalisation as it was trained with")


def _of_hooks(model: Segmenter) -> Iterator[Doubt]:
    if hooks := hooks_of(model.network):
        more = f" and {len(hooks) - 1} more" if len(hooks) > 1 else ""
        text = f"{model.name} has a hook that runs in every pass, {hooks[0]}{more}"
        yield Doubt("hooks", text, "remove it, unless the network needs it")


def _of_batches(model: Segmenter) -> Iterator[Doubt]:
    if norms := mixing(model.network):
        more = f" and {len(norms) - 1} more" if len(norms) > 1 else ""
        text = f"{model.name} has a batch norm without running statistics, {norms[0]!r}{more}, so images of a batch mix"
        yield Doubt("batch", text, "give --batch-size 1, or what is found of an image depends on those beside it")
