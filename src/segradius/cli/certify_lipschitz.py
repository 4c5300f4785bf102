"""Options of ``segradius certify`` for certificates by a Lipschitz constant."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from segradius.cli.options import Subject
from segradius.core import text
from segradius.core.errors import InputError
from segradius.core.screen import note

if TYPE_CHECKING:
    from segradius.evaluation import Lipschitz
    from segradius.models import Bound


#: What may stand for a number.
WORDS = ("verified", "card")


@dataclass(frozen=True)
class LipschitzOptions:
    """Instead of noise, a Lipschitz constant of the network.

    Args:
        lipschitz: Certify from one pass an image by a Lipschitz constant L of the logits, in l2, of images in [0, 1]:
            verified to bound it layer by layer, card for what the model's card states, or a number. No noise is drawn,
            and the promise is certain if L holds.
        certified_eps: l2 lengths at which tables tell what is left of whole images, commas between them. Default:
            0.05,0.1,0.25,0.5,1.
    """

    lipschitz: str | float | None = None
    certified_eps: str | float | list[float] | None = None

    def check(self) -> dict[str, Any]:
        """What can be read before a model is open: the lengths of tables, where they are given.

        Raises:
            InputError: For a constant that is neither a number nor a known word, lengths out of range, or without it.
        """
        if self.lipschitz is None and self.certified_eps is not None:
            raise InputError("certified-eps is for --lipschitz, which was not given")
        if self.lipschitz not in (None, *WORDS):
            try:
                text.number("lipschitz", self.lipschitz)
            except InputError as error:
                raise InputError(f"{error}; or {' or '.join(WORDS)}") from error
        if self.certified_eps is None:
            return {}
        lengths = {text.number("certified-eps", each) for each in _several(self.certified_eps)}
        if min(lengths, default=0) <= 0:
            raise InputError(f"certified-eps is {self.certified_eps}; expected l2 lengths above 0")
        return {"eps": tuple(sorted(lengths))}

    def way(self, of: Subject) -> Lipschitz | None:
        """How images are certified by it; None where it was not asked for.

        Args:
            of: Model and images; the first usable one has the size that a constant is verified for.

        Raises:
            InputError: As by `check`; for a card that states none, or a network with a layer that has no bound.
        """
        from segradius.evaluation import Lipschitz

        given = self.check()
        if self.lipschitz is None:
            return None
        if self.lipschitz == "verified":
            bound = _verified(of)
            found = f"at most {bound.bound:.6g} and at least {bound.lower:.6g}"
            note(f"Lipschitz constant, bounded over {len(bound.layers)} layers: {found}")
            return Lipschitz(bound.bound, "verified", size=bound.size, **given)
        if self.lipschitz == "card":
            stated = getattr(of.seen, "lipschitz", None)
            if stated is None:
                raise InputError(
                    f"model {of.seen.name!r} states no Lipschitz constant in its card that holds with these options "
                    "(its own weights, normalisation and sizes, no denoiser); expected verified, or a number"
                )
            return Lipschitz(stated, "card", **given)
        return Lipschitz(text.number("lipschitz", self.lipschitz), **given)


def _verified(of: Subject) -> Bound:
    """Of a network, the bound for images of the size of the first usable one."""
    from segradius.core.bands import bands_of
    from segradius.data.usable import usable_samples
    from segradius.models import Segmenter, lipschitz_bound

    if not isinstance(of.seen, Segmenter):
        raise InputError("lipschitz is verified, and a target's layers are not seen; expected --model")
    known = usable_samples(of.data, of.seen.num_classes, labels=not of.choice.predicted, bands=bands_of(of.seen))
    sample = next(known, None)
    if sample is None:
        raise InputError("no image could be used, so that there is no size to verify the Lipschitz constant for")
    height, width = sample.image.shape[-2:]
    return lipschitz_bound(of.seen, (height, width))


def _several(given: str | float | Sequence[float]) -> Sequence[str | float]:
    return given.split(",") if isinstance(given, str) else [given] if isinstance(given, float | int) else given


#: No Lipschitz constant.
NO_CONSTANT = LipschitzOptions()
