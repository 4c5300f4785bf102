"""What the numbers mean that a network or a served model returns, and how they become logits of classes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

import torch
from torch import Tensor

from segradius.core.errors import InputError, is_whole, must, shown, unknown_name
from segradius.core.label_sets import MOST, check_structures, set_logits
from segradius.core.prediction import SIMPLEX_TOLERANCE, are_sigmoids, outside_unit
from segradius.core.text import names
from segradius.models.picking import at_least_float32, main_output

#: What ``masked_logits`` makes of −inf: no probability is left beside it, and sums of it stay finite.
MASKED = -1e4

Decode: TypeAlias = "Decoding | Callable[[Any], Tensor]"


def log_probabilities(p: Tensor) -> Tensor:
    """Logarithm of probabilities (N, C, h, w); finite, as 0 counts as 1.2e-38 (float32). Softmax gives them back."""
    p = at_least_float32(p)
    return p.clamp_min(torch.finfo(p.dtype).tiny).log()


def undo_sigmoids(p: Tensor) -> Tensor:
    """The logits z of sigmoids σ(z); NaN where a value is not in [0, 1].

    Finite otherwise, as σ counts as at least 1.2e-7 (float32) away from 0 and 1. Beyond z = 17 a sigmoid has no
    gradient left, which this cannot bring back: without the sigmoid an attack finds more.

    Example:
        >>> undo_sigmoids(torch.tensor([-3.0, 0.0, 3.0]).sigmoid().view(1, 3, 1, 1)).flatten()
        tensor([-3.0000,  0.0000,  3.0000])
    """
    p = at_least_float32(p)
    outside = (p.detach() - 0.5).abs() > 0.5 + SIMPLEX_TOLERANCE
    return torch.logit(p, eps=torch.finfo(p.dtype).eps).masked_fill(outside, torch.nan)


def undo_masks(z: Tensor) -> Tensor:
    """Logits in which classes that cannot be have −inf: `MASKED` there, with gradient zero.

    Example:
        >>> undo_masks(torch.tensor([1.0, -torch.inf]))
        tensor([ 1.0000e+00, -1.0000e+04])
    """
    z = at_least_float32(z)
    return z.masked_fill(z == -torch.inf, MASKED)


#: From the channels of an output to logits, by what the channels are: of classes first, then of yes/no channels.
CLASSES: Mapping[str, Callable[[Tensor], Tensor]] = {
    "logits": lambda z: z,
    "masked_logits": undo_masks,
    "probabilities": log_probabilities,
    "sigmoids": undo_sigmoids,
}
YES_NO: Mapping[str, Callable[[Tensor], Tensor]] = {
    "sigmoid": undo_sigmoids,
    "binary_logit": at_least_float32,
    "multilabel": undo_sigmoids,
    "multilabel_logits": at_least_float32,
}
OUTPUTS = (*CLASSES, *YES_NO)
#: Those that take one channel, those that promise values in [0, 1], and what values of the other sort are.
SINGLE = ("sigmoid", "binary_logit")
IN_UNIT = ("probabilities", "sigmoids", "sigmoid", "multilabel")
OTHER = {
    "probabilities": "logits",
    "sigmoids": "logits",
    "sigmoid": "binary_logit",
    "binary_logit": "sigmoid",
    "multilabel": "multilabel_logits",
    "multilabel_logits": "multilabel",
}


@dataclass(frozen=True)
class Decoding:
    """How what is returned becomes logits of classes, (N, C, h, w).

    One yes/no channel of logit z makes the classes background and foreground with the logits 0 and z; K of them make
    2^K classes, the sets of structures (`segradius.core.label_sets`).

    Args:
        kind: ``"logits"``, ``"masked_logits"`` (−inf at classes that cannot be), ``"probabilities"`` or ``"sigmoids"``
            (one a class, of which one is true); or of yes/no channels ``"sigmoid"`` (one, a probability),
            ``"binary_logit"`` (one, a logit), ``"multilabel"`` (K probabilities) or ``"multilabel_logits"``.
        threshold: A yes/no channel says yes where its probability is above it, in (0, 1).
        channels: Which channels of the output, in that order; all of them where empty.
        output: Which entry of several, as `main_output` takes it.
        expected: Channels that an entry has which is meant where several could be; 0 where that is not known.

    Raises:
        InputError: A value is none of these, or ``threshold`` is given for classes.

    Example:
        >>> Decoding("sigmoid", channels=(1,))
        Decoding(kind='sigmoid', threshold=0.5, channels=(1,), output='')
        >>> Decoding("sigmoid", threshold=0.25)(torch.tensor([0.25, 0.5]).view(1, 1, 1, 2)).flatten(2)
        tensor([[[0.0000, 0.0000],
                 [0.0000, 1.0986]]])
    """

    kind: str = "logits"
    threshold: float = 0.5
    channels: tuple[int, ...] = ()
    output: str = ""
    expected: int = field(default=0, compare=False, repr=False)

    def __post_init__(self) -> None:
        if self.kind not in OUTPUTS:
            raise unknown_name("kind of outputs", str(self.kind), OUTPUTS)
        number = isinstance(self.threshold, int | float) and not isinstance(self.threshold, bool)
        must(number and 0 < self.threshold < 1, "threshold", self.threshold, "a probability in (0, 1)")
        if self.threshold != 0.5 and not self.yes_no:
            raise InputError(
                f"threshold {self.threshold:g} is for yes/no channels ({', '.join(YES_NO)}); outputs are {self.kind}, "
                "of which the largest wins"
            )
        object.__setattr__(self, "channels", as_channels(self.channels))
        object.__setattr__(self, "output", _output(self.output))
        if self.kind in SINGLE and len(self.channels) > 1:
            raise InputError(f"{len(self.channels)} channels for outputs={self.kind}, which takes one")
        if self.yes_no and self.channels:
            check_structures(len(self.channels))

    @property
    def yes_no(self) -> bool:
        """Whether each channel says yes or no by itself."""
        return self.kind in YES_NO

    def structures(self, classes: int) -> int:
        """K of 2^K classes of yes/no channels, 0 of ordinary ones.

        Example:
            >>> Decoding("multilabel").structures(8), Decoding().structures(8)
            (3, 0)
        """
        return classes.bit_length() - 1 if self.yes_no else 0

    def __call__(self, raw: Any) -> Tensor:
        """Logits (N, C, h, w) from what was returned; nothing waits for the device."""
        return self.of(self.pick(raw))

    def pick(self, raw: Any) -> Tensor:
        """The tensor that is meant; raises `InputError` where that is not clear."""
        return main_output(raw, self.output, self.expected)

    def checked(self, raw: Any, who: str) -> Tensor:
        """The same, after `check`."""
        values = self.pick(raw)
        self.check(values, who)
        return self.of(values)

    def for_classes(self, classes: int) -> Decoding:
        """The same, which takes of several entries the only one that has channels for so many classes."""
        return self if self.channels else replace(self, expected=self.structures(classes) or classes)

    def check_classes(self, classes: object, name: str) -> None:
        """Raise `InputError` for a number of classes that outputs of this kind cannot make."""
        if not self.yes_no:
            return
        most = 2 if self.kind in SINGLE else 2 ** (len(self.channels) or MOST)
        least = most if self.kind in SINGLE or self.channels else 2
        if not is_whole(classes, least) or classes > most or classes & (classes - 1):
            told = f"{most}" if least == most else f"a power of two of at most {most}"
            raise InputError(
                f"model {name!r} has num_classes={classes!r}; outputs={self.kind} makes 2^K classes of K channels, "
                f"the sets: {told}, or leave num_classes out"
            )

    def of(self, values: Tensor) -> Tensor:
        """Logits (N, C, h, w) from values (N, K, h, w), of which `channels` count; of one yes/no channel (N, h, w) too.

        Raises:
            InputError: There are too many channels, or not those that are named.
        """
        values = self.chosen(values)
        if not self.yes_no:
            return CLASSES[self.kind](values)
        z = YES_NO[self.kind](values)
        if self.threshold != 0.5:  # by the same function and type as z, so that p = threshold is a no
            z = z - torch.logit(z.new_full((), self.threshold))  # a copy to a GPU would wait for it
        return set_logits(z)

    def chosen(self, values: Tensor) -> Tensor:
        """The channels that count; values that are no channels are given back for `check_form` to refuse."""
        if not values.is_floating_point():
            return values
        if self.kind in SINGLE and values.ndim == 3:
            values = values.unsqueeze(1)
        if values.ndim != 4:
            if self.yes_no:
                raise InputError(f"outputs={self.kind} of shape {tuple(values.shape)}; expected (N, K, h, w)")
            return values
        found = values.shape[1]
        if self.channels:
            if max(self.channels) >= found:
                raise InputError(
                    f"channels={list(self.channels)}: the output {tuple(values.shape)} has {found}, numbered from 0"
                )
            return torch.cat([values[:, channel : channel + 1] for channel in self.channels], 1)
        if self.kind in SINGLE and found != 1:
            several = "multilabel" if self.kind == "sigmoid" else "multilabel_logits"
            raise InputError(
                f"outputs={self.kind} takes one channel, and the output has {found}: channels=[k] for one of them, "
                f"outputs={several} if each says yes or no, or "
                f"outputs={'probabilities' if self.kind == 'sigmoid' else 'logits'} if they are classes"
            )
        return values

    def channel_logits(self, logits: Tensor) -> Tensor:
        """Logits (N, K, h, w) of K yes/no channels before the threshold, from those of the sets (N, 2^K, h, w).

        Example:
            >>> z = torch.randn(1, 3, 2, 2)
            >>> decode = Decoding("multilabel_logits", 0.3)
            >>> torch.allclose(decode.channel_logits(decode.of(z)), z, atol=1e-6)
            True
        """
        z = logits[:, [1 << k for k in range(self.structures(logits.shape[1]))]]
        return z + torch.logit(z.new_full((), self.threshold))

    def saturated(self, logits: Tensor) -> Tensor:
        """Pixels (N, H, W) of logits that were undone from a sigmoid of exactly 0 or 1, where no gradient is left.

        Example:
            >>> decode, p = Decoding("sigmoid"), torch.tensor([0.5, 1.0]).view(1, 1, 1, 2)
            >>> decode.saturated(decode.of(p))
            tensor([[[False,  True]]])
        """
        if self.kind not in IN_UNIT or self.kind == "probabilities":
            return torch.zeros_like(logits[:, 0], dtype=torch.bool)
        z = self.channel_logits(logits) if self.yes_no else logits
        return (z.abs() >= torch.logit(z.new_full((), 1 - 2 * torch.finfo(z.dtype).eps))).any(1)

    def check(self, values: Tensor, who: str) -> None:
        """Raise `InputError`, with the way out, where values are not what they were said to be; waits for the device.

        Args:
            values: What was returned for images that are not of one colour, picked: (N, K, h, w).
            who: Returned it, for the message: "model 'net'".
        """
        values = self.chosen(values.detach())
        if not values.is_floating_point() or values.ndim != 4 or 0 in values.shape:
            return
        if self.kind in IN_UNIT:
            if not bool(values.isnan().any()) and (found := outside_unit(values)):
                raise InputError(
                    f"{who} gives values in {found} where outputs={self.kind} promises [0, 1]: give "
                    f"outputs={OTHER[self.kind]} if they are logits"
                )
        elif self.yes_no and are_sigmoids(values):
            raise InputError(
                f"{who} gives values from end to end of [0, 1] where outputs={self.kind} promises logits, so attacks "
                f"find too little: give outputs={OTHER[self.kind]}, or remove the sigmoid"
            )
        elif self.kind != "masked_logits" and bool((values == -torch.inf).any()):
            way = "clamp them" if self.yes_no else f"give outputs=masked_logits, which takes it for {MASKED:g}"
            raise InputError(f"{who} gives logits of −inf, as at classes that cannot be: {way}")
        elif self.kind == "masked_logits":
            least = values.masked_fill(values == -torch.inf, 0).amin().item()
            if least < MASKED / 10:
                raise InputError(
                    f"{who} gives logits down to {least:g}, too near to the {MASKED:g} that outputs=masked_logits "
                    "makes of −inf: scale them, or pass outputs=FUNCTION"
                )


def as_decode(
    outputs: str | Decode | None = None,
    threshold: float | None = None,
    channels: Sequence[int] | int | str | None = None,
    output: int | str | None = None,
) -> Decode:
    """What turns raw outputs into logits.

    Args:
        outputs: A kind, as `Decoding` takes it; or a function from the raw output to logits (N, C, h, w), which goes
            with nothing else.
        threshold: As `Decoding` has it.
        channels: Likewise; as `as_channels` takes them.
        output: Likewise; an index may be a number.

    Raises:
        InputError: On another name, or a bad value.

    Example:
        >>> as_decode("logits") == Decoding()
        True
    """
    more = {"threshold": threshold, "channels": channels, "output": output}
    given: dict[str, Any] = {name: value for name, value in more.items() if value is not None}
    if outputs is None or isinstance(outputs, str):
        return Decoding("logits" if outputs is None else outputs, **given)
    if not callable(outputs):
        raise unknown_name("kind of outputs", str(outputs), OUTPUTS)
    if given:
        raise InputError(
            f"{next(iter(given))} is for outputs of a named kind; here outputs is a function, which decides that"
        )
    return outputs


def one_channel(values: Tensor) -> str:
    """The way out for one channel (N, 1, h, w) where logits of classes were expected; waits for the device.

    Example:
        >>> one_channel(torch.full((1, 1, 2, 2), 3.0))
        'its one channel is a yes/no logit: give outputs=binary_logit (--outputs binary_logit)'
    """
    low, high = values.aminmax()
    if high - low > 1 and bool((values == values.round()).all()):
        return "its one channel has whole numbers, as labels are: give the logits that they are made of"
    if bool(values.isnan().any()) or outside_unit(values):
        return "its one channel is a yes/no logit: give outputs=binary_logit (--outputs binary_logit)"
    told = f"[{low.item():.4g}, {high.item():.4g}]"
    return (
        f"its one channel, of values in {told}, says yes or no: give outputs=sigmoid (--outputs sigmoid), or "
        "binary_logit if they are logits all the same"
    )


def as_channels(given: Sequence[int] | int | str) -> tuple[int, ...]:
    """Channels of an output from what users write.

    Raises:
        InputError: They are not different whole numbers.

    Example:
        >>> as_channels("0, 2"), as_channels(1), as_channels([2, 1])
        ((0, 2), (1,), (2, 1))
    """
    found: Any = (given,) if is_whole(given) else given
    if isinstance(given, str):
        found = [int(part) if part.isdecimal() else None for part in names(given.strip().strip("[]"))]
    fine = isinstance(found, Sequence) and not isinstance(found, str) and all(is_whole(each) for each in found)
    if not fine or len(set(found)) != len(found):
        raise InputError(f"channels is {shown(given)}; expected different whole numbers from 0, as [0, 2]")
    return tuple(found)


def _output(given: Any) -> str:
    if isinstance(given, bool) or not isinstance(given, int | str):
        raise InputError(f"output is {shown(given)}; expected an index, a key or an attribute of what is returned")
    return str(given).strip()
