"""What a network's output and its normalisation probably are, by what it gives for some images with masks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from segradius.core.errors import InputError, SegradiusError
from segradius.core.prediction import SIMPLEX_TOLERANCE, predict
from segradius.data.sample import Classes, Sample
from segradius.evaluation.preparations import preparations
from segradius.metrics.counts import Counts, count
from segradius.metrics.statistics import miou
from segradius.models.cards import is_card
from segradius.models.loading import load_model
from segradius.models.picking import main_output
from segradius.models.segmenter import Segmenter
from segradius.models.wrapping import wrap
from segradius.targets.opening import open_target

#: By how much another normalisation must be better, in MIoU, to be taken.
CLEARLY = 0.02
#: IoU below which no normalisation explains the masks.
GOOD = 0.5


@dataclass(frozen=True)
class Guess:
    """What a network probably wants and gives.

    Attributes:
        outputs: What it returns, as `segradius.wrap` takes it.
        why: By what that is guessed, in words.
        bands: Its input channels; None where any number may be.
        normalisation: What it wants done to the colours, as a card has it; None where its library says it.
        tried: IoU over the images under each normalisation that was tried, as text.
        channels: Of its output.
    """

    outputs: str
    why: str
    bands: int | None
    normalisation: Any = None
    tried: str = ""
    channels: int = 0


def guess_model(spec: str, samples: Sequence[Sample], classes: Classes, weights: str | None = None) -> Guess:
    """What a network probably returns and wants.

    Args:
        spec: As `segradius.load_model` takes it.
        samples: Images of one data set, with labels.
        classes: Of the data set.
        weights: A checkpoint for it.

    Raises:
        InputError: It cannot be loaded, or does not take the images.
    """
    raw: list[Tensor] = []

    def note(answer: Any) -> Tensor:
        raw.append(main_output(answer))
        return _twice(raw[-1])

    told: dict[str, Any] = {} if weights is None else {"weights": weights}
    model = load_model(spec, outputs=note, **told)
    raw.clear()
    with torch.no_grad(), model.frozen():
        for sample in samples:
            model.raw_logits(sample.image[None])
    channels = raw[0].shape[1]
    outputs, why = _outputs(raw, classes)
    found = Guess(outputs, why, model.bands, channels=channels)
    if model.normalisation is not None:
        return found
    known = wrap(model, outputs=outputs, num_classes=_classes(outputs, channels))
    return _with_normalisation(found, known, samples, classes)


def bands_of(spec: str, weights: str | None = None) -> int | None:
    """Input channels of a network, whatever its output is; None where any number may be.

    Raises:
        InputError: It cannot be loaded.
    """
    told: dict[str, Any] = {} if weights is None else {"weights": weights}
    return load_model(spec, outputs=None if is_card(spec) else _twice, **told).bands


def _twice(answer: Any) -> Tensor:
    return main_output(answer)[:, :1].expand(-1, 2, -1, -1)


def _outputs(raw: Sequence[Tensor], classes: Classes) -> tuple[str, str]:
    """What the channels are, and by what that is told."""
    channels = raw[0].shape[1]
    low, high = min(float(each.min()) for each in raw), max(float(each.max()) for each in raw)
    unit = low >= 0 and high <= 1
    ran = f"{channels} channel{'s' * (channels > 1)}, values from {low:.4g} to {high:.4g}"
    if channels == 1:
        return ("sigmoid" if unit else "binary_logit"), ran
    if len(classes.structures) == channels:
        return ("multilabel" if unit else "multilabel_logits"), f"{ran}; as many as structures"
    sums = [float((each.sum(1) - 1).abs().max()) for each in raw]
    if unit and max(sums) < SIMPLEX_TOLERANCE:
        return "probabilities", f"{ran}, which sum to 1"
    return ("sigmoids" if unit else "logits"), ran


def _classes(outputs: str, channels: int) -> int:
    if outputs in ("sigmoid", "binary_logit"):
        return 2
    return 2**channels if outputs.startswith("multilabel") else channels


def _with_normalisation(found: Guess, model: Segmenter, samples: Sequence[Sample], classes: Classes) -> Guess:
    """With the normalisation under which predictions agree best with the labels; none where that is not clear."""
    if model.num_classes != len(classes) or not len(classes):
        return replace(found, normalisation="none", tried="not tried: its classes are not the data's")
    scores: dict[str, float] = {}
    known = preparations(len(samples[0].image))
    for name, given in known.items():
        try:
            scores[name] = _miou(replace(model, normalisation=given), samples, classes)
        except SegradiusError:
            continue
    best = max(scores.values(), key=lambda value: -1 if math.isnan(value) else value)
    # Of those that are as good the commonest, as a few images do not tell them apart.
    better = [name for name, value in scores.items() if value > scores["none"] + CLEARLY and value >= best - CLEARLY]
    chosen = known[better[0] if better else "none"]
    tried = ", ".join(f"{value:.3f} {name}" for name, value in scores.items())
    what = f"{_figure(classes)} over {len(samples)} image{'s' * (len(samples) != 1)}"
    doubt = "" if best >= GOOD else "; none is good: look at the range, the classes and their values first"
    return replace(found, normalisation=chosen.entry, tried=f"{what}: {tried}{doubt}")


def _figure(classes: Classes) -> str:
    """What `_miou` is the mean of.

    Example:
        >>> pair = ((0, 0, 0), (255, 255, 255))
        >>> _figure(Classes(("background", "cell"), pair)), _figure(Classes(("a", "b", "c"), (*pair, (1, 1, 1))))
        ('IoU of cell', 'MIoU')
    """
    asked = classes.foreground
    return f"{'mean ' * (len(asked) > 1)}IoU of {', '.join(asked)}" if asked else "MIoU"


@torch.no_grad()
def _miou(model: Segmenter, samples: Sequence[Sample], classes: Classes) -> float:
    """Of what is asked with yes or no where anything is, else of the classes."""
    tables = []
    for sample in samples:
        prediction = predict(model.logits(sample.image[None]))[1]
        void, structures = classes.ignore_index, len(classes.structures)
        tables.append(count(prediction, sample.label[None], model.num_classes, void, structures))
    found = Counts.joined(tables)
    return miou(found.foreground or found)


def guess_target(text: str, samples: Sequence[Sample], classes: Classes) -> tuple[str, str]:
    """A served model as ``--target`` takes it, with what its answers probably are.

    Args:
        text: Without that, as ``onnx:FILE``.
        samples: Images, which it is asked about, one query each.
        classes: Of their data set.

    Returns:
        The text, and in words by what it is told.

    Raises:
        InputError: It takes none of the images, whatever its answers are said to be.
    """
    kinds = ("multilabel", "multilabel_logits") if classes.structures else ("", "sigmoid", "binary_logit", "logits")
    refusals = []
    for kind in kinds:
        told = f"{text},outputs={kind}" if kind else text
        try:
            target = open_target(told)
            for sample in samples:
                target.scores(sample.image[None])
        except SegradiusError as error:
            refusals.append(str(error))
            continue
        return told, f"its answers are taken as {kind}" if kind else "its answers are taken as they are"
    raise InputError(f"{text}: {refusals[0]}")
