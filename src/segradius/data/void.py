"""What pixels without a class count as: nothing, or the background."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from torch import Tensor

from segradius.core.errors import InputError
from segradius.data.sample import Classes

VoidAs = Literal["ignore", "background"]
BACKGROUND = "background"
BLACK = (0, 0, 0)


@dataclass(frozen=True)
class Filled:
    """Classes among which void is one: the background that they have, or a new first class of that name.

    The field is not of one mind here. Most figures leave void out; those of SEA (nmndeep/Robust-Segmentation) count it
    as background: in VOC as class 0, in ADE20K as class 0 of 151.

    Args:
        classes: With the background.
        void: The label that stands for void in the data.
        place: Of the background.
        shift: By how much all labels grow: 1 where the background is new.

    Example:
        >>> import torch
        >>> found = filled(Classes(("sky", "tree"), ((0, 0, 255), (0, 255, 0))))
        >>> found.classes.names, found.labels(torch.tensor([[0, 1, 255]])).tolist()
        (('background', 'sky', 'tree'), [[1, 2, 0]])
    """

    classes: Classes
    void: int
    place: int
    shift: int

    def labels(self, label: Tensor) -> Tensor:
        """A label map (H, W) of the data by these classes."""
        return (label + self.shift).masked_fill(label == self.void, self.place)


def filled(classes: Classes) -> Filled:
    """Classes of a data set, with void among them.

    Args:
        classes: Of the data set.

    Raises:
        InputError: There are no masks, so that no pixel is void; the classes are sets of structures; or one more class
            would have the number that stands for void.
    """
    if not len(classes):
        raise InputError("void background is for data with masks, of which these have none; expected void ignore")
    if classes.structures:
        raise InputError(
            f"void background is for classes of which each pixel has one; these are sets of the structures "
            f"{', '.join(classes.structures)}; expected void ignore"
        )
    void = classes.ignore_index
    known = [place for place, name in enumerate(classes.names) if name.casefold() == BACKGROUND]
    if known:
        return Filled(classes, void, known[0], 0)
    more = replace(classes, names=(BACKGROUND, *classes.names), palette=(BLACK, *classes.palette))
    return Filled(more, void, 0, 1)
