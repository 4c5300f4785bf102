"""How a network is made cheaper, and what was chosen for a model, a size of images and a machine: plain data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, Literal, TypeAlias

import torch

from segradius.core.errors import InputError, one_of
from segradius.core.text import refuse_unknown

#: ``plain``: as it is; ``exact``: by rounding at most; ``fast``: gradients in reduced precision too.
Speed: TypeAlias = Literal["plain", "exact", "fast"]
SPEEDS: tuple[Speed, ...] = ("plain", "exact", "fast")

PRECISIONS = {"bfloat16": torch.bfloat16, "float16": torch.float16}


@dataclass(frozen=True)
class Form:
    """One way in which a network is run.

    Args:
        folded: Batch norm is folded into the convolution before it.
        channels_last: Images and weights have ``channels_last`` memory.
        eased: Backward passes of some layers are computed otherwise, `segradius.speed.easing`.
        precision: ``bfloat16`` or ``float16`` of the passes; None for the network's own.
        compiled: By `torch.compile`.

    Example:
        >>> str(Form(folded=True, precision="bfloat16")), str(Form())
        ('batch norm folded, bfloat16', 'as it is')
    """

    folded: bool = False
    channels_last: bool = False
    eased: bool = False
    precision: Literal["bfloat16", "float16"] | None = None
    compiled: bool = False

    def __post_init__(self) -> None:
        if self.precision is not None:
            one_of(tuple(PRECISIONS), precision=self.precision)

    def __str__(self) -> str:
        """In words."""
        words = {"batch norm folded": self.folded, "channels-last": self.channels_last, "layers eased": self.eased}
        words |= {"compiled": self.compiled}
        said = [word for word, true in words.items() if true] + ([self.precision] if self.precision else [])
        return ", ".join(said) or "as it is"

    @property
    def dtype(self) -> torch.dtype | None:
        """Of the passes."""
        return PRECISIONS[self.precision] if self.precision else None


#: The network as it is.
PLAIN = Form()


@dataclass(frozen=True)
class Choice:
    """What a trial chose.

    Args:
        speed: What was asked for.
        answers: The form whose answers are counted; rounding apart it is the network.
        guidance: The form that loops take gradients from.
        passes: Time of a forward and a backward pass of ``guidance`` over that of the network as it is.
        forward: Time of a forward pass of ``answers`` over that of the network.
        warm_up: Seconds that compiling took; 0 where nothing is compiled.
        left: What was tried and is not used, and why.

    Example:
        >>> Choice.of(Choice("exact", Form(folded=True), Form(folded=True), 0.9, 0.9).as_dict()).guidance.folded
        True
    """

    speed: Speed
    answers: Form = PLAIN
    guidance: Form = PLAIN
    passes: float = 1.0
    forward: float = 1.0
    warm_up: float = 0.0
    left: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        one_of(SPEEDS, speed=self.speed)

    def __str__(self) -> str:
        """In a line."""
        guided = f"{self.guidance}: {self.passes:.2f} of the time of a plain forward and backward pass"
        answered = "" if self.answers == self.guidance else f"; answers {self.answers}, {self.forward:.2f}"
        warm = f"; compiled in {self.warm_up:.0f} s" if self.warm_up else ""
        left = "".join(f". Not used: {form}" for form in self.left)
        return f"speed {self.speed}: {guided}{answered}{warm}{left}"

    def as_dict(self) -> dict[str, Any]:
        """As plain data."""
        return asdict(self)

    @staticmethod
    def of(given: Mapping[str, Any]) -> Choice:
        """From what `as_dict` gives; raises `InputError` for anything else."""
        refuse_unknown("entry of a choice of speed", given, [item.name for item in fields(Choice)])
        try:
            answers, guidance = Form(**given["answers"]), Form(**given["guidance"])
            return Choice(**{**given, "answers": answers, "guidance": guidance, "left": tuple(given["left"])})
        except (TypeError, KeyError) as error:
            raise InputError(f"{dict(given)} is no choice of speed: {error}") from error
