"""What every answer of a target is checked for, the first and the thousandth: who says it, its form and its values."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from segradius.core.errors import AnswerError
from segradius.core.prediction import SIMPLEX_TOLERANCE
from segradius.models.decoding import IN_UNIT, OTHER, YES_NO

#: Largest difference of two answers to one question in one request that another order of sums explains.
REPEATED = 0.05
#: No network has fewer than one value for so many pixels of a side.
COARSEST = 128


@dataclass(frozen=True)
class Raw:
    """An answer as it arrived.

    Args:
        values: (N, …), on the CPU.
        about: What it says of itself beside the values: its model's name and version, the names of its outputs.
    """

    values: Tensor
    about: Mapping[str, str] = field(default_factory=dict)


class Firsts:
    """What the first answers of a target were beside their values; the later ones must be the same.

    Args:
        dtype: Type of the values where it was declared; that of the first answer otherwise.

    Example:
        >>> firsts = Firsts()
        >>> firsts.check(Raw(torch.zeros(1, 5, 3, 4)), (3, 4), (12, 16))
        >>> firsts.check(Raw(torch.zeros(1, 5, 1, 1)), (1, 1), (12, 16))
        Traceback (most recent call last):
        segradius.core.errors.AnswerError: it has 1x1 values a class; expected 3x4, as images of 12x16 had before
    """

    def __init__(self, dtype: torch.dtype | None = None) -> None:
        self._dtype = dtype
        self._about: dict[str, str] | None = None
        self._sizes: dict[tuple[int, int], tuple[int, int]] = {}
        self._lock = threading.Lock()

    def check(self, raw: Raw, size: tuple[int, int], asked: tuple[int, int]) -> None:
        """Compare an answer with the first ones, or keep what it is; a refused one leaves nothing.

        Args:
            raw: The answer.
            size: Height and width of its maps.
            asked: Of the images.

        Raises:
            AnswerError: It differs.
        """
        with self._lock:
            if self._dtype not in (None, raw.values.dtype):
                raise AnswerError(f"it is in {_name(raw.values.dtype)}; expected {_name(self._dtype)}")
            about = dict(raw.about)
            for name, before in (about if self._about is None else self._about).items():
                if about.get(name, "") != before:
                    said = repr(about[name]) if name in about else "not told"
                    raise AnswerError(f"its {name} is {said}; expected {before!r}, as of the first answer")
            self._check_size(size, asked)
            self._dtype, self._about = raw.values.dtype, about
            self._sizes.setdefault(asked, size)

    def _check_size(self, size: tuple[int, int], asked: tuple[int, int]) -> None:
        found = f"it has {_by(size)} values a class"
        if asked in self._sizes:
            if size != self._sizes[asked]:
                raise AnswerError(f"{found}; expected {_by(self._sizes[asked])}, as images of {_by(asked)} had before")
        elif any(side * COARSEST < pixels for side, pixels in zip(size, asked, strict=True)) or (1, 1) == size != asked:
            raise AnswerError(f"{found} for images of {_by(asked)}; expected a map")
        elif self._sizes and not any(_fits(size, asked, *pair) for pair in self._sizes.items()):
            first, coarse = next(iter(self._sizes.items()))
            told = f"expected the same or in proportion, as images of {_by(first)} had {_by(coarse)} before"
            raise AnswerError(f"{found} for images of {_by(asked)}; {told}")


def check_values(values: Tensor, kind: str, real: int | None = None, *, step: float = 0.0, first: bool = True) -> None:
    """Raise `AnswerError` unless values (N, K, h, w) can be of this kind; the message says which image and what to do.

    Args:
        values: An answer.
        kind: One of `segradius.targets.heads.KINDS`, but labels.
        real: Images that were asked about; the rest fills up a batch. None for all.
        step: By how much values that were whole numbers differ at least.
        first: Whether no answer was accepted before.

    Example:
        >>> check_values(torch.full((1, 2, 1, 1), 3.0), "logits")
        Traceback (most recent call last):
        segradius.core.errors.AnswerError: image 1 of 1: every class has the value 3 at every pixel; expected ...
        >>> check_values(torch.rand(1, 1, 4, 4), "binary_logit")
        Traceback (most recent call last):
        segradius.core.errors.AnswerError: image 1 of 1: its values lie in ... all in [0, 1], ... give outputs=sigmoid
    """
    count = real or len(values)
    values = values[:count]
    low, high = values.flatten(1).amin(1), values.flatten(1).amax(1)
    bad = ~(low.isfinite() & high.isfinite())
    _refuse(bad, lambda row: "its values are NaN or infinite; expected finite ones")
    beyond = (low < -SIMPLEX_TOLERANCE) | (high > 1 + SIMPLEX_TOLERANCE)
    if kind in (*IN_UNIT, "scores"):
        logits = OTHER.get(kind, "logits")
        _refuse(
            beyond,
            lambda row: (
                f"its values lie in {_range(low, high, row)}; expected [0, 1]: give outputs={logits} if the model has "
                f"no {'sigmoid' if kind in YES_NO else 'softmax'}"
            ),
        )
    if kind in YES_NO:
        _check_yes_no(values, kind, low, high, first=first)
    else:
        _check_classes(values, kind, beyond, SIMPLEX_TOLERANCE + values.shape[1] * step / 2)


def _check_classes(values: Tensor, kind: str, beyond: Tensor, rounding: float) -> None:
    """Raise `AnswerError` unless values with one channel a class tell the classes apart as promised."""
    off = values.sum(1).sub_(1).abs_().flatten(1).amax(1)
    if kind == "logits":
        _refuse(
            ~beyond & (off < rounding),
            lambda row: (
                "its values are probabilities (in [0, 1], sum one over the classes) where logits were promised: leave "
                "out outputs=logits"
            ),
        )
    equal = (values.amax(1) == values.amin(1)).flatten(1).all(1)
    _refuse(
        equal,
        lambda row: (
            f"every class has the value {values[row].amax().item():.4g} at every pixel; expected values that differ"
        ),
    )
    if kind == "probabilities":
        _refuse(
            off >= rounding,
            lambda row: (
                f"its values sum to one only within {off[row].item():.4g} over the classes: give outputs=logits if the "
                "model has no softmax, outputs=sigmoids if it was trained with a sigmoid a class, outputs=multilabel "
                "if each channel is a yes/no map of its own, outputs=scores if it gives its best classes only"
            ),
        )


def _check_yes_no(values: Tensor, kind: str, low: Tensor, high: Tensor, *, first: bool) -> None:
    """Raise `AnswerError` unless values of yes/no channels can be what was promised."""
    if kind not in IN_UNIT:
        inside = (low >= 0) & (high <= 1)
        varied = (low < 0.1) & (high > 0.9)
        # At first, none beyond [0, 1] is no chance; later, an attacked image may well have none.
        _refuse(
            inside & (inside.all() if first else varied),
            lambda row: (
                f"its values lie in {_range(low, high, row)}, all in [0, 1], where logits were promised: give "
                f"outputs={OTHER[kind]}"
            ),
        )
        ends = (values == 0) | (values == high.view(-1, 1, 1, 1))
        _refuse(
            ends.flatten(1).all(1) & (low == 0) & (high > 0),
            lambda row: (
                f"its values are 0 and {high[row].item():.4g} only, as of a map of labels, where logits were promised: "
                f"give outputs=labels,values=[0, {high[row].item():g}]"
            ),
        )
        undecided = (low == high) & (low.abs() < 1)
    else:
        one = (values.sum(1) - 1).abs().flatten(1).amax(1) < SIMPLEX_TOLERANCE
        soft = ((values > SIMPLEX_TOLERANCE) & (values < 1 - SIMPLEX_TOLERANCE)).any()
        _refuse(
            one & (one.all() & soft & first & (values.shape[1] > 1)),
            lambda row: "its channels sum to one at every pixel, as those of a softmax: give outputs=probabilities",
        )
        undecided = (low == high) & (low > 0) & (low < 1)  # of an empty image all may well be 0
    _refuse(
        undecided,
        lambda row: f"every channel has the value {high[row].item():.4g} at every pixel; expected values that differ",
    )


def _range(low: Tensor, high: Tensor, row: int) -> str:
    return f"[{low[row].item():.4g}, {high[row].item():.4g}]"


def check_scores(scores: Tensor, images: Tensor, num_classes: int) -> None:
    """Raise `AnswerError` unless scores are floating, (N, C, H, W) for images (N, B, H, W), finite and in [0, 1].

    Example:
        >>> check_scores(torch.full((1, 2, 1, 1), 3.0), torch.zeros(1, 3, 1, 1), 2)
        Traceback (most recent call last):
        segradius.core.errors.AnswerError: image 1 of 1: its scores lie in [3, 3]; expected [0, 1]: are they logits?
    """
    expected = (len(images), num_classes, *images.shape[-2:])
    if tuple(scores.shape) != expected or not scores.is_floating_point():
        raise AnswerError(
            f"scores are {_name(scores.dtype)} of shape {tuple(scores.shape)}; expected floating {expected}"
        )
    low, high = scores.flatten(1).amin(1), scores.flatten(1).amax(1)
    bad = ~(low.isfinite() & high.isfinite())
    _refuse(bad, lambda row: "its scores are NaN or infinite; expected finite ones")
    _refuse(
        (low < -SIMPLEX_TOLERANCE) | (high > 1 + SIMPLEX_TOLERANCE),
        lambda row: (
            f"its scores lie in [{low[row].item():.4g}, {high[row].item():.4g}]; expected [0, 1]: are they logits?"
        ),
    )


def check_repeated(answers: Tensor, real: int) -> None:
    """Raise `AnswerError` where images that fill up a batch, copies of the last real one, got another answer than it.

    Args:
        answers: (N, …), probabilities.
        real: Images that were asked about.
    """
    copies = answers[real:]
    if len(copies) and bool((copies - answers[real - 1 : real]).abs().amax() > REPEATED):
        raise AnswerError(
            f"image {real} was asked {len(copies) + 1} times in the request and has different answers; expected one: "
            "does the server keep the order of images?"
        )


def _refuse(bad: Tensor, told: Callable[[int], str]) -> None:
    """Raise `AnswerError` if any of the images is bad, in words for the first of them; if all are, it is no image's."""
    rows = bad.nonzero().flatten().tolist()
    if rows:
        raise AnswerError(f"image {rows[0] + 1} of {len(bad)}: {told(rows[0])}", by_image=len(rows) < len(bad))


def _fits(size: tuple[int, int], asked: tuple[int, int], before: tuple[int, int], had: tuple[int, int]) -> bool:
    """Whether maps of one size can come of the network that gave maps of another: the same, or as much coarser."""
    scaled = (
        pixels * (h - 1) / p - 1 <= side <= pixels * (h + 1) / p + 1
        for side, pixels, h, p in zip(size, asked, had, before, strict=True)
    )
    return size == had or all(scaled)


def _by(size: tuple[int, int]) -> str:
    return "x".join(map(str, size))


def _name(dtype: torch.dtype | None) -> str:
    return str(dtype).removeprefix("torch.")
