"""The border: which samples a model can be judged on, and why not."""

from __future__ import annotations

from segradius.core.errors import InputError
from segradius.data import BadSampleError, Classes, Sample, SegmentationData


def fault(sample: Sample, num_classes: int, ignore_index: int) -> str | None:
    """Why ``sample`` cannot be used with a model of ``num_classes``; None where it can.

    The image must be floating point, (3, H, W), finite and in [0, 1]; the label int64 (H, W) with classes below
    ``num_classes`` or ``ignore_index``, and at least one labelled pixel.

    Example:
        >>> import torch
        >>> fault(Sample("a", torch.full((3, 1, 2), 1.5), torch.zeros(1, 2, dtype=torch.long)), 5, 255)
        'pixel values run from 1.5 to 1.5; they must lie in [0, 1]'
    """
    image, label = sample.image, sample.label
    if image.ndim != 3 or image.shape[0] != 3:
        return f"the image has shape {tuple(image.shape)}; it must be (3, H, W)"
    if tuple(label.shape) != tuple(image.shape[1:]):
        return f"the label is {_size(label.shape)} and the image {_size(image.shape[1:])} (height × width)"
    return _image_fault(sample) or _label_fault(sample, num_classes, ignore_index)


def usable(data: SegmentationData, place: int, num_classes: int) -> Sample | str:
    """The sample at ``place``, or why it cannot be used with a model of ``num_classes``."""
    try:
        sample = data[place]
    except BadSampleError as error:
        return str(error)
    return fault(sample, num_classes, data.classes.ignore_index) or sample


def check_classes(model_classes: int, data_classes: int) -> None:
    """Raise `InputError` where a model has too few classes for the data."""
    if model_classes < data_classes:
        raise InputError(f"the model predicts {model_classes} classes and the data set has {data_classes}")


def class_names(classes: Classes, num_classes: int) -> tuple[str, ...]:
    """Names of a model's classes, also where it has more than the data.

    Example:
        >>> class_names(Classes(("sky", "road"), ((0, 0, 255), (128, 64, 128))), 3)
        ('sky', 'road', 'class 2')
    """
    return (*classes.names, *(f"class {i}" for i in range(len(classes.names), num_classes)))


def _image_fault(sample: Sample) -> str | None:
    image = sample.image
    if not image.is_floating_point():
        return f"the image holds {image.dtype}; it must be floating point in [0, 1]"
    if not bool(image.isfinite().all()):
        return f"the image has {int((~image.isfinite()).sum())} values that are NaN or infinite"
    low, high = image.min().item(), image.max().item()
    return f"pixel values run from {low:g} to {high:g}; they must lie in [0, 1]" if low < 0 or high > 1 else None


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
    return None if bool(labelled.any()) else "no pixel is labelled"


def _size(shape: tuple[int, ...]) -> str:
    return "×".join(map(str, shape))
