"""From a model and samples to batches with a clean prediction: what can be used, what is seen in it, and why not."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import cast

import torch
from torch import Tensor

from segradius.core.contracts import LOGITS, Model, ScoreModel, Seen
from segradius.core.errors import InputError
from segradius.core.prediction import predict
from segradius.data.sample import BadSampleError, Classes, Sample, SegmentationData
from segradius.evaluation.journal import Checkpoints
from segradius.models.segmenter import Segmenter
from segradius.targets.target import Target, layers


def is_priced(model: Seen) -> bool:
    """Whether every look at the model is a query with its price: it is no network of which we have the logits."""
    return LOGITS not in model.offers


def answering(model: Seen, precision: torch.dtype | None = None) -> Callable[[Tensor], Tensor]:
    """From images to logits (N, C, H, W) where the model has them, in a precision, else to scores."""
    if is_priced(model):
        return cast(ScoreModel, model).scores
    network = cast(Model, model)
    return lambda images: network.logits(images, precision)


@torch.no_grad()
def judge(model: Seen, images: Tensor) -> tuple[Tensor, Tensor]:
    """Predicted class of each pixel (N, H, W), and whether the largest values of an image are all finite (N,)."""
    top, prediction = predict(answering(model)(images))
    return prediction, top.isfinite().flatten(1).all(1)


def check_model(model: Seen, image: Tensor) -> None:
    """One pass over a grey image like ``image``, for a network in this process; a served one checks its first answer.

    Raises:
        InputError: It does not give logits.
    """
    *_, inner = layers(cast(Target, model))
    if not is_priced(inner):
        cast(Segmenter, inner).check(torch.full_like(image[None], 0.5).to(inner.device))


@dataclass(frozen=True)
class Batch:
    """Images of one size, on the model's device, with the model's verdict on them before any attack."""

    ids: tuple[str, ...]
    images: Tensor
    labels: Tensor
    prediction: Tensor
    ignore_index: int
    seconds: float = field(default=0.0, compare=False)

    @property
    def labelled(self) -> Tensor:
        """Pixels that count, (N, H, W) bool."""
        return self.labels != self.ignore_index

    def select(self, rows: Sequence[int]) -> Batch:
        """The batch of some of its images."""
        if len(rows) == len(self.ids):
            return self
        at = torch.tensor(rows, dtype=torch.long, device=self.images.device)
        ids = tuple(self.ids[row] for row in rows)
        return Batch(ids, self.images[at], self.labels[at], self.prediction[at], self.ignore_index, self.seconds)

    def only(self, wanted: Sequence[str]) -> Batch:
        """The batch of those of its images that are wanted."""
        return self.select([row for row, image in enumerate(self.ids) if image in wanted])

    def one_by_one(self) -> Iterator[Batch]:
        """Each image as a batch."""
        return (self.select([row]) for row in range(len(self.ids)))


@dataclass(frozen=True)
class Bench:
    """What a task works with, beside the batch.

    Attributes:
        model: What is evaluated.
        classes: Of the data.
        key: Of the job.
        seed: Of all random numbers.
        checkpoints: Where unfinished work is kept; None for nowhere.
        progress: Told of the steps just done over each image.
        shown: Ids of images whose adversarial images are kept whole.
        region: (h, w) bool, where noise falls; None for the whole image.
        together: Noisy copies in a pass; None for a number that suits the device.
        certificates: Of images that are certified already, packed.
    """

    model: Seen
    classes: Classes
    key: str
    seed: int
    checkpoints: Checkpoints | None = None
    progress: Callable[[int], None] = lambda steps: None
    shown: Sequence[str] = ()
    region: Tensor | None = None
    together: int | None = None
    certificates: Mapping[str, bytes] = field(default_factory=dict)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the model's classes."""
        return class_names(self.classes, self.model.num_classes)


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
