"""Which samples a model of so many classes can be used with, and why not the others."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import cast

from torch.utils.data import DataLoader, Dataset

from segradius.core.bands import check_bands, told
from segradius.data.prepared import Prepared
from segradius.data.sample import BadSampleError, Sample, SegmentationData

NO_LABEL = "no pixel is labelled"


def fault(
    sample: Sample, num_classes: int, ignore_index: int, *, labels: bool = True, bands: int | None = None
) -> str | None:
    """Why ``sample`` cannot be used with a model of ``num_classes``; None where it can.

    The image must be floating point, (B, H, W) with B = ``bands`` if these are known, finite and in [0, 1]; the label
    int64 (H, W) with classes below ``num_classes`` or ``ignore_index``, and at least one labelled pixel.

    Example:
        >>> import torch
        >>> fault(Sample("a", torch.full((3, 1, 2), 1.5), torch.zeros(1, 2, dtype=torch.long)), 5, 255)
        'pixel values run from 1.5 to 1.5; they must lie in [0, 1]'
    """
    image, label = sample.image, sample.label
    if image.ndim != 3 or 0 in image.shape:
        return f"the image has shape {tuple(image.shape)}; it must be (B, H, W), none of them 0"
    if bands not in (None, image.shape[0]):
        return f"the image has {told(image.shape[0])} and the model takes {bands}"
    if tuple(label.shape) != tuple(image.shape[1:]):
        return f"the label is {_size(label.shape)} and the image {_size(image.shape[1:])} (height × width)"
    return _image_fault(sample) or (_label_fault(sample, num_classes, ignore_index) if labels else None)


def usable(
    data: SegmentationData, place: int, num_classes: int, *, labels: bool = True, bands: int | None = None
) -> Sample | str:
    """The sample at ``place``, or why it cannot be used, as `fault` has it; without labels, its image."""
    try:
        sample = data[place]
    except BadSampleError as error:
        return str(error)
    return fault(sample, num_classes, data.classes.ignore_index, labels=labels, bands=bands) or sample


def usable_samples(
    data: SegmentationData,
    num_classes: int,
    places: Iterable[int] | None = None,
    *,
    labels: bool = True,
    bands: int | None = None,
) -> Iterator[Sample]:
    """The samples at ``places``, all by default, that can be used, as `fault` has it; each read when it is asked for.

    Example:
        >>> from segradius.data import open_data
        >>> next(usable_samples(open_data("scenes:24x32", limit=3), 8)).id
        'val-00000'
    """
    found = (
        usable(data, place, num_classes, labels=labels, bands=bands)
        for place in (range(len(data)) if places is None else places)
    )
    return (each for each in found if isinstance(each, Sample))


def refuse_other_bands(data: SegmentationData, bands: int | None, name: str) -> None:
    """Raise `InputError`, with the ways out, where the first image has not the bands of the model of this name.

    A single image among others that is not like them is set aside later; one that cannot be read is passed over.
    """
    for place in range(len(data) if bands is not None else 0):
        try:
            image = data[place].image
        except BadSampleError:
            continue
        if image.ndim == 3:
            coloured = len(image) == 3 and not bool((image == image[:1]).all())
            check_bands(len(image), bands, name, coloured=coloured)
        return


def usable_part(
    data: SegmentationData,
    num_classes: int,
    *,
    workers: int = 0,
    done: Callable[[int], None] = lambda images: None,
    bands: int | None = None,
) -> tuple[SegmentationData, dict[str, str]]:
    """The samples that can be learnt from, and by id why the others cannot; every sample is read once.

    A sample without a labelled pixel teaches nothing, and is kept.

    Args:
        data: The data set, which is given back itself where nothing is wrong with it.
        num_classes: Of the model.
        workers: Processes that read; 0 for this one.
        done: Told of every image that was read.
        bands: Of the model, if they are known.

    Example:
        >>> from segradius.data import Scenes
        >>> usable_part(Scenes((16, 16), length=2), 8)[1]
        {}
    """
    loader = DataLoader(cast("Dataset[str]", _Faults(data, num_classes, bands)), batch_size=None, num_workers=workers)
    bad: dict[int, str] = {}
    for place, reason in enumerate(loader):
        done(1)
        if reason:
            bad[place] = reason
    if not bad:
        return data, {}
    good = tuple(place for place in range(len(data)) if place not in bad)
    return Prepared(data, good), {data.ids[place]: reason for place, reason in bad.items()}


class _Faults:
    """Of each sample, why it cannot be learnt from; nothing where it can."""

    def __init__(self, data: SegmentationData, num_classes: int, bands: int | None = None) -> None:
        self.data, self.num_classes, self.bands = data, num_classes, bands

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, place: int) -> str:
        found = usable(self.data, place, self.num_classes, bands=self.bands)
        return found if isinstance(found, str) and found != NO_LABEL else ""


def _image_fault(sample: Sample) -> str | None:
    image = sample.image
    if not image.is_floating_point():
        return f"the image holds {image.dtype}; it must be floating point in [0, 1]"
    if not bool(image.isfinite().all()):
        return f"the image has {int((~image.isfinite()).sum())} values that are NaN or infinite"
    low, high = image.min().item(), image.max().item()
    if low >= 0 and high <= 1:
        return None
    advice = ": divide those of 8 bits by 255" if 2 < high <= 255 else ""
    return f"pixel values run from {low:g} to {high:g}; they must lie in [0, 1]{advice}"


def _label_fault(sample: Sample, num_classes: int, ignore_index: int) -> str | None:
    label = sample.label
    if label.is_floating_point():
        return f"the label holds {label.dtype}; it must be integer"
    labelled = label != ignore_index
    wrong = labelled & ((label < 0) | (label >= num_classes))
    if bool(wrong.any()):
        row, column = wrong.nonzero()[0].tolist()
        value = int(label[row, column])
        return (
            f"label {value} at row {row}, column {column}; classes are 0 to {num_classes - 1}, void is {ignore_index}"
        )
    return None if bool(labelled.any()) else NO_LABEL


def _size(shape: tuple[int, ...]) -> str:
    return "×".join(map(str, shape))
