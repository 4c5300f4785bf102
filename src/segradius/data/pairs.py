"""Images and masks that are in memory already, or in a torch data set, as a data set of this library."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import torch  # noqa: F401  # the examples
from torch import Tensor
from torch.utils.data import DataLoader

from segradius.core.border import in_a_line
from segradius.core.errors import InputError
from segradius.core.label_sets import set_names, to_sets
from segradius.data.sample import BadSampleError, Classes, Sample, SegmentationData, is_thread_safe, voc_palette


@dataclass(frozen=True)
class Pairs:
    """Pairs of image and mask.

    Args:
        items: Each (B, H, W) floating point in [0, 1], not normalised, and (H, W) of integers, in a pair or in a
            `Sample`, whose id counts nothing; anything with a length and items, such as a list or a
            `torch.utils.data.Dataset`. Where the classes are the sets of K structures, the mask may be (K, H, W) of 0
            and 1 too, and void where any of the K is ``ignore_index``.
        classes: Names, palette and the label of void.
        name: Of the whole.
        names: Ids, none twice; by default the places, ``"00000"`` on.

    Raises:
        InputError: The ids are not as many as the pairs, or two are alike.
        BadSampleError: On reading, for an item that is no such pair or cannot be had.

    Example:
        >>> image, mask = torch.zeros(3, 4, 4), torch.zeros(4, 4, dtype=torch.uint8)
        >>> data = Pairs([(image, mask)], Classes(("sky", "road"), ((0, 0, 255), (128, 64, 128))))
        >>> len(data), data.ids, data[0].label.dtype
        (1, ('00000',), torch.int64)
    """

    items: Any
    classes: Classes
    name: str = "pairs"
    names: Sequence[str] | None = None

    def __post_init__(self) -> None:
        if len(self.ids) != len(self.items):
            raise InputError(f"{len(self.ids)} names were given for {len(self.items)} pairs of image and mask")
        if len(set(self.ids)) < len(self.ids):
            raise InputError("two of the names of images are alike; expected each once")

    @cached_property
    def ids(self) -> tuple[str, ...]:
        """The id of every pair, in order."""
        places = (f"{place:05d}" for place in range(len(self.items)))
        return tuple(places if self.names is None else self.names)

    @property
    def thread_safe(self) -> bool:
        """As the items say, which are the user's."""
        return is_thread_safe(self.items)

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> Sample:
        place = range(len(self))[index]
        try:
            item = self.items[place]
        except Exception as error:  # whatever the code behind it raises for a file that it cannot read
            raise self._bad(place, in_a_line(error)) from error
        if isinstance(item, Sample):
            item = item.image, item.label
        pair = isinstance(item, tuple | list) and len(item) == 2 and all(isinstance(part, Tensor) for part in item)
        if not pair:
            told = "a pair of tensors, the image (B, H, W) in [0, 1] and the mask (H, W)"
            raise self._bad(place, f"it is a {type(item).__name__}; expected {told}")
        image, label = item
        if self.classes.structures and label.dim() == 3:
            label = self._sets(place, label)
        return Sample(self.ids[place], image, label if label.is_floating_point() else label.long())

    def _sets(self, place: int, masks: Tensor) -> Tensor:
        """Numbers of sets (H, W) from yes/no maps (K, H, W)."""
        structures, void = self.classes.structures, masks == self.classes.ignore_index
        if len(masks) != len(structures):
            told = f"{len(masks)} masks; expected one for each of {', '.join(structures)}"
            raise self._bad(place, told)
        odd = ~void & (masks != 0) & (masks != 1)
        if bool(odd.any()):
            k, row, column = odd.nonzero()[0].tolist()
            told = f"the mask of {structures[k]} is {masks[k, row, column].item():g} at row {row}, column {column}"
            raise self._bad(place, f"{told}; expected 0, 1 or {self.classes.ignore_index} for void")
        return to_sets(masks.masked_fill(void, 0)).masked_fill(void.any(0), self.classes.ignore_index)

    def _bad(self, place: int, reason: str) -> BadSampleError:
        return BadSampleError(self.ids[place], Path(f"item {place} of {self.name}"), reason)


def as_data(
    data: object,
    num_classes: int,
    *,
    names: Sequence[str] | None = None,
    structures: Sequence[str] = (),
    ignore_index: int | None = None,
) -> SegmentationData:
    """A data set from what people have: one of this library, pairs, a torch data set, or a pair of batched tensors.

    Args:
        data: See `Pairs`; or images (N, B, H, W) and masks (N, H, W), or (N, K, H, W) of K structures, in a pair.
        num_classes: Of the model, for a data set that does not name its classes.
        names: Names of the classes, for such a data set.
        structures: Names of K yes/no maps that may overlap, for such a data set, whose classes are the sets of them.
        ignore_index: The label of void, for such a data set; 255, or 65535 where that is a class.

    Raises:
        InputError: It is nothing of the kind, or a data set that says itself what is given beside it.

    Example:
        >>> len(as_data((torch.zeros(5, 3, 4, 4), torch.zeros(5, 4, 4)), num_classes=2))
        5
        >>> masks = torch.tensor([[[[1, 1, 0]], [[0, 1, 255]]]])
        >>> as_data((torch.zeros(1, 3, 1, 3), masks), 4, structures=["organ", "vessel"])[0].label.tolist()
        [[1, 3, 255]]
    """
    if names and structures:
        raise InputError(f"names are {list(names)}; expected none beside structures, whose sets are the classes")
    if hasattr(data, "ids") and isinstance(getattr(data, "classes", None), Classes):
        if names or structures or ignore_index is not None:
            raise InputError(
                f"{getattr(data, 'name', 'the data set')} says itself what its masks mean: names, structures and "
                "ignore_index are for pairs and tensors"
            )
        return cast(SegmentationData, data)
    called = set_names(structures) if structures else tuple(names or (f"class {c}" for c in range(num_classes)))
    void = (255 if len(called) <= 255 else 65535) if ignore_index is None else ignore_index
    known = Classes(called, voc_palette(len(called)), void, tuple(structures))
    if isinstance(data, DataLoader):
        raise InputError("data is a DataLoader; expected its dataset, data.dataset, as images are batched here")
    if isinstance(data, tuple) and len(data) == 2 and all(isinstance(part, Tensor) for part in data):
        images, labels = data
        if len(images) != len(labels):
            raise InputError(f"{len(images)} images and {len(labels)} masks were given; expected as many")
        return Pairs(list(zip(images, labels, strict=True)), known)
    if hasattr(data, "__len__") and hasattr(data, "__getitem__") and not isinstance(data, str):
        return Pairs(data, known)
    raise InputError(f"data is a {type(data).__name__}; expected a data set, pairs of image and mask, or their tensors")
