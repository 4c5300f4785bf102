"""Nothing is learnt without labels: a set that has none is refused before a step, an epoch or a class is told."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from segradius.core.errors import InputError
from segradius.data.sample import BadSampleError, SegmentationData


def refuse_unlabelled(what: str, data: SegmentationData) -> None:
    """Raise `InputError` where no pixel of a data set is labelled.

    Reads samples until one with a label is found, which is the first as a rule; those that cannot be read are left to
    whoever needs them.

    Args:
        what: The set, in the message: ``"training"``.
        data: It.
    """
    void = data.classes.ignore_index
    for place in range(len(data)):
        try:
            label = data[place].label
        except BadSampleError:
            return
        if bool((label != void).any()):
            return
    raise InputError(
        f"no pixel of the {what} set is labelled: all {len(data)} masks of {data.name} hold nothing but void ({void}). "
        "Do the mask values and the classes belong together?"
    )


@dataclass
class Tally:
    """Labelled pixels of the batches of an epoch, on the CPU, where the labels come from.

    Args:
        names: Of the classes, of which those without a pixel are to be told; empty for none.
    """

    names: Sequence[str] = ()
    void: int = 255
    pixels: int = 0
    classes: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.int64))

    def add(self, labels: Tensor) -> int:
        """Count a batch (N, H, W); its labelled pixels.

        Example:
            >>> tally = Tally(("sky", "road"))
            >>> tally.add(torch.tensor([[[0, 255]]])), tally.lacking()
            (1, ['road'])
        """
        labelled = labels != self.void
        found = int(labelled.sum())
        self.pixels += found
        if self.names:
            here = torch.bincount(labels[labelled], minlength=len(self.names))
            self.classes = here if not len(self.classes) else self.classes + here
        return found

    def lacking(self) -> list[str]:
        """Classes that no pixel is labelled as."""
        return [name for name, pixels in zip(self.names, self.classes.tolist(), strict=False) if not pixels]
