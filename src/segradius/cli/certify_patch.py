"""The options of ``segradius certify`` for certificates against a patch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

from segradius.core import text
from segradius.core.declared import See, Share
from segradius.core.errors import InputError, shown

if TYPE_CHECKING:
    from segradius.evaluation import Masks

MasksText = Annotated[str, See("docs/patches.md")]


@dataclass(frozen=True)
class PatchOptions:
    """Instead of noise, masks against a patch.

    Args:
        patch: Certify against any change inside one square, wherever it lies, of this share of an image's pixels, as
            0.01 for 1 %. No noise is drawn: the model looks at the image under masks, and the promise is certain.
        masks: Masks from top to bottom and from left to right, as in 6x6. More hide less of the image at once; the
            looks grow with the square of their number. Default: 6x6.
        fill: What is seen in the place of hidden pixels: pyramid, mean or grey. Default: pyramid.
        detection_only: Certify that a change is told of, and not that the answer is recovered from it: a pass for
            each mask instead of one for every two.
    """

    patch: Share | None = None
    masks: MasksText | int | None = None
    fill: str | None = None
    detection_only: bool = False

    def way(self) -> Masks | None:
        """How images are certified by masks; None where it was not asked for.

        Raises:
            InputError: For a value out of range, or options without a patch.
        """
        from segradius.evaluation import Masks

        given: dict[str, Any] = {name: value for name, value in vars(self).items() if value not in (None, False)}
        if self.patch is None:
            for name in given:
                raise InputError(f"{name.replace('_', '-')} is for --patch, which was not given")
            return None
        if self.masks is not None:
            given["masks"] = read_masks(self.masks)
        if given.pop("detection_only", False):
            given["recovery"] = False
        return Masks(**given)


#: Where no patch is certified against.
NO_PATCH = PatchOptions()


def read_masks(given: str | int) -> tuple[int, int]:
    """Rows and columns of masks, from ``"4x6"``, or a number for both.

    Example:
        >>> read_masks("4x6"), read_masks(5)
        ((4, 6), (5, 5))
    """
    words = str(given)
    try:
        found = text.size(f"{words}x{words}" if words.strip().isdigit() else words)
    except InputError:
        found = None
    if found is None:
        raise InputError(f"masks {shown(given)}; expected rows x columns, as in 4x6, or one number for both")
    return found
