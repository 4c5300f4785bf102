"""Options of attacks whose adversarial images are made on another network than the attacked one."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from segradius.core import text
from segradius.core.errors import InputError

if TYPE_CHECKING:
    from segradius.cli.options import Subject
    from segradius.core.contracts import Seen
    from segradius.evaluation import ModelChoice


@dataclass(frozen=True)
class SurrogateOptions:
    """Another network to attack from.

    Args:
        from_: Make the adversarial images on this network, as --model takes it, and ask the model or the target for a
            verdict on them alone: a transfer attack. Several with commas between them are attacked by their mean.
            Default: the model itself.
        from_weights: File of its weights, as --weights takes it; of several one for each, commas between them, nothing
            for one that brings its own, as a card does.
        from_mean: Of several, what their mean is taken of. Default: logits.
    """

    from_: str | list[str] | None = None
    from_weights: str | list[str | None] | None = None
    from_mean: Literal["logits", "probabilities"] | None = None

    @property
    def specs(self) -> tuple[str, ...]:
        """The networks, each as ``--model`` takes it."""
        given = [self.from_] if isinstance(self.from_, str) else self.from_ or []
        return tuple(spec for each in given for spec in text.specs(each))

    @property
    def files(self) -> tuple[str | None, ...] | None:
        """The weights of each; None where none needs any."""
        given = self.from_weights
        if given is None:
            return None
        return tuple(each or None for each in (given.split(",") if isinstance(given, str) else given))

    def check(self) -> None:
        """Raise `InputError` where weights are not one for each network, or the mean of less than two is asked for."""
        if self.files is not None and len(self.files) != len(self.specs):
            raise InputError(
                f"from_weights has {len(self.files)} and from has {len(self.specs)}; expected one for each network"
            )
        if self.from_mean is not None and len(self.specs) < 2:
            raise InputError(
                f"from_mean is {self.from_mean}; expected it beside several networks in from, A,B, of which a mean is "
                "taken"
            )

    def applied(self, seen: Seen, chosen: ModelChoice, *, allow_download: bool = False) -> tuple[Seen, ModelChoice]:
        """A model or target with the networks on which its adversarial images are made, and how that is described.

        Args:
            seen: What is asked.
            chosen: Its description.
            allow_download: Whether libraries may download what is not here.

        Raises:
            InputError: One cannot be opened, or is not of the model's classes or bands.
        """
        self.check()
        if not self.specs:
            return seen, chosen
        from segradius.evaluation.run import surrogate_marks, with_surrogates

        mean = (self.from_mean or "logits") if self.specs[1:] else None
        chosen = replace(chosen, surrogates=self.specs, surrogate_weights=self.files, surrogate_mean=mean)
        seen = with_surrogates(seen, chosen, device=seen.device, allow_download=allow_download)
        return seen, replace(chosen, surrogate_fingerprints=surrogate_marks(seen))

    def applied_to(self, of: Subject, *, allow_download: bool = False) -> Subject:
        """`applied`, to a model that is open with its images."""
        seen, chosen = self.applied(of.seen, of.model, allow_download=allow_download)
        return replace(of, seen=seen, model=chosen)


#: Adversarial images are made on the model itself.
ITSELF = SurrogateOptions()
