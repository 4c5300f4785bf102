"""From a model and samples to batches with a clean prediction, and the task `Clean`, which says what that is worth."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar, cast

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from segradius.attacks.base import Result
from segradius.core.contracts import LOGITS, Model, ScoreModel, Seen, surrogate_of
from segradius.core.errors import InputError, unknown_name
from segradius.core.prediction import predict, predicted
from segradius.core.randomness import Randomness
from segradius.data.masks import read_numbers
from segradius.data.sample import Classes
from segradius.data.usable import fault as fault
from segradius.data.usable import usable as usable
from segradius.evaluation.journal import Checkpoints
from segradius.evaluation.rows import ImageResult, Kept, Rows
from segradius.metrics.confusion import confusions
from segradius.metrics.counts import Counts, count
from segradius.models.segmenter import Segmenter
from segradius.objectives.goal import one_class, random_classes
from segradius.targets.target import Target, layers


def is_priced(model: Seen) -> bool:
    """Whether every look at the model is a query with its price: it is no network of which we have the logits."""
    return LOGITS not in model.offers


def answering(model: Seen, precision: torch.dtype | None = None) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
    """From images to the largest logit, in a precision, or score of a target, of each pixel and its class (N, H, W)."""
    if is_priced(model):
        target = cast(ScoreModel, model)
        return lambda images: predict(target.scores(images))
    network = cast(Model, model)
    return lambda images: predicted(network, images, precision)


def confiding(model: Seen, precision: torch.dtype | None = None) -> Callable[[Tensor], tuple[Tensor, Tensor, Tensor]]:
    """As `answering`, with the probabilities (N, C, H, W) besides."""
    if is_priced(model):
        target = cast(ScoreModel, model)

        def scored(images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            scores = target.scores(images)
            return (*predict(scores), scores)

        return scored
    network = cast(Model, model)

    def told(images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        logits = network.logits(images, precision)
        return (*predict(logits), logits.softmax(1))

    return told


@torch.no_grad()
def answer(model: Seen, images: Tensor) -> tuple[Tensor, Tensor]:
    """Largest logit, or score of a target, of each pixel (N, H, W), and its class."""
    return answering(model)(images)


def judge(model: Seen, images: Tensor) -> tuple[Tensor, Tensor]:
    """Predicted class of each pixel (N, H, W), and whether the largest values of an image are all finite (N,)."""
    top, prediction = answer(model, images)
    return prediction, top.isfinite().flatten(1).all(1)


def check_model(model: Seen, image: Tensor) -> None:
    """One pass over a grey image like ``image``, for a network in this process; a served one checks its first answer.

    The same of the network on which adversarial images are made, if that is another.

    Raises:
        InputError: It does not give logits.
    """
    *_, inner = layers(cast(Target, model)) if is_priced(model) else (model,)
    if not is_priced(inner):
        cast(Segmenter, inner).check(torch.full_like(image[None], 0.5).to(inner.device))
    if (made_on := surrogate_of(model)) is not None:
        made_on.check(torch.full_like(image[None], 0.5).to(made_on.device))


@dataclass(frozen=True)
class Batch:
    """Images of one size, on the model's device, with the model's verdict on them before any attack.

    Where the classes are the sets of structures, ``structures`` is how many.
    """

    ids: tuple[str, ...]
    images: Tensor
    labels: Tensor
    prediction: Tensor
    ignore_index: int
    seconds: float = field(default=0.0, compare=False)
    structures: int = 0

    @property
    def labelled(self) -> Tensor:
        """Pixels that count, (N, H, W) bool."""
        return self.labels != self.ignore_index

    def counts(self, prediction: Tensor, num_classes: int) -> Counts:
        """What a prediction (N, H, W) is worth, by image and class."""
        return count(prediction, self.labels, num_classes, self.ignore_index, self.structures)

    def confusions(self, prediction: Tensor, bench: Bench) -> dict[str, Tensor]:
        """Labels and what they were taken for in a prediction (N, H, W), by image."""
        found = confusions(prediction, self.labels, bench.model.num_classes, self.ignore_index)
        return dict(zip(self.ids, found, strict=True))

    def select(self, rows: Sequence[int]) -> Batch:
        """The batch of some of its images."""
        if len(rows) == len(self.ids):
            return self
        at = torch.tensor(rows, dtype=torch.long, device=self.images.device)
        ids = tuple(self.ids[row] for row in rows)
        return replace(self, ids=ids, images=self.images[at], labels=self.labels[at], prediction=self.prediction[at])

    def outside(self, covered: Tensor | None, prediction: Tensor) -> Tensor:
        """A prediction (N, H, W) with what was there before the attack on pixels (N, H, W) bool, those under a patch.

        An attack gains and loses nothing by them, and all attacks are judged on the same pixels.
        """
        return prediction if covered is None else torch.where(covered, self.prediction, prediction)

    def only(self, wanted: Sequence[str]) -> Batch:
        """The batch of those of its images that are wanted."""
        return self.select([row for row, image in enumerate(self.ids) if image in wanted])

    def one_by_one(self) -> Iterator[Batch]:
        """Each image as a batch."""
        return (self.select([row]) for row in range(len(self.ids)))


def outside(result: Result, batch: Batch) -> Result:
    """What an attack found as it is judged: it gains nothing by the pixels under its patch."""
    if result.covered is None:
        return result
    members = {name: outside(member, batch) for name, member in result.members.items()}
    return replace(result, prediction=batch.outside(result.covered, result.prediction), members=members)


@dataclass(frozen=True)
class Bench:
    """What a task works with, beside the batch.

    Attributes:
        model: What is evaluated.
        classes: From `judged_classes`.
        key: Of the job.
        seed: Of all random numbers.
        checkpoints: Where unfinished work is kept; None for nowhere.
        progress: Told of the steps just done over each image.
        shown: Ids of images whose adversarial images are kept whole.
        gallery: How many more are, of those hurt most and of those hurt least.
        region: (h, w) bool, where noise falls; None for the whole image.
        together: Noisy copies in a pass; None for a number that suits the device.
        seconds: That an image may take, where there is a budget of minutes.
        certificates: Of images that are certified already, packed.
    """

    model: Seen
    classes: Classes
    key: str
    seed: int
    checkpoints: Checkpoints | None = None
    progress: Callable[[int], None] = lambda steps: None
    shown: Sequence[str] = ()
    gallery: int = 0
    region: Tensor | None = None
    together: int | None = None
    seconds: float | None = None
    certificates: Mapping[str, bytes] = field(default_factory=dict)

    @property
    def structures(self) -> int:
        """How many structures the classes are the sets of: those of the data, or of the model where they have none."""
        return len(structure_names(self.classes, self.model))

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the model's classes."""
        return class_names(self.classes, self.model.num_classes)

    def target(self, aim: str | None, batch: Batch) -> Tensor | None:
        """Target labels (N, H, W) for a batch, from an aim as `make_target` takes it; None for none."""
        if aim is None:
            return None
        randomness = Randomness(self.seed, batch.ids)
        return make_target(aim, batch.labels, self.classes, self.model.num_classes, randomness)


def judged_classes(classes: Classes, num_classes: int, *, predicted: bool) -> Classes:
    """Classes of the data; a model's own predictions as labels are never void, whatever number stands for that.

    Example:
        >>> [judged_classes(Classes((), ()), number, predicted=True).ignore_index for number in (255, 256)]
        [255, 256]
    """
    clash = predicted and 0 <= classes.ignore_index < num_classes
    return replace(classes, ignore_index=num_classes) if clash else classes


def check_classes(model: Seen, classes: Classes) -> None:
    """Raise `InputError` where a model has too few classes for the data, or one of the two has sets of structures."""
    said, asked = getattr(model, "structures", 0), classes.structures
    if len(asked) > 1 and said != len(asked):
        has = f"says yes or no to {said}" if said > 1 else f"gives one of {model.num_classes} classes to each pixel"
        raise InputError(
            f"the data set has {len(asked)} structures that may overlap ({', '.join(asked)}), and the model {has}; "
            f"expected a model of {len(asked)} yes/no channels: outputs=multilabel, or channels=[…] to pick them"
        )
    if said > 1 and not asked and len(classes):
        raise InputError(
            f"the model says yes or no to {said} structures that may overlap, and the data set has {len(classes)} "
            "classes of which each pixel has one; expected masks of structures, or a model of one class a pixel"
        )
    if model.num_classes < len(classes):
        raise InputError(f"the model predicts {model.num_classes} classes and the data set has {len(classes)}")


def structure_names(classes: Classes, model: Seen) -> tuple[str, ...]:
    """Names of the structures whose sets the classes are; of images without masks those of the model, by numbers."""
    said = getattr(model, "structures", 0)
    if len(classes) or said < 2:
        return classes.structures
    return tuple(f"structure {k}" for k in range(said))


def class_names(classes: Classes, num_classes: int) -> tuple[str, ...]:
    """Names of a model's classes, also where it has more than the data.

    Example:
        >>> class_names(Classes(("sky", "road"), ((0, 0, 255), (128, 64, 128))), 3)
        ('sky', 'road', 'class 2')
    """
    return (*classes.names, *(f"class {i}" for i in range(len(classes.names), num_classes)))


@dataclass(frozen=True)
class Clean:
    """Judging the images before anything is done to them; comes before every other task.

    Args:
        aim: What a targeted attack aims at, as `make_target` takes it; None for none.
    """

    aim: str | None = None

    title: ClassVar[str] = "clean"
    unit: ClassVar[str] = ""
    total_steps: ClassVar[int] = 0
    one_by_one: ClassVar[bool] = False
    differentiates: ClassVar[bool] = False
    precision: ClassVar[torch.dtype | None] = None
    described: ClassVar[Mapping[str, Any]] = {}

    def check(self, model: Seen) -> None:
        """Any model will do."""

    def run(self, batch: Batch, bench: Bench) -> Rows:
        """The verdicts, and of a model with a price what was seen."""
        found = clean_results(batch, bench.model.num_classes, bench.target(self.aim, batch))
        seen = dict(zip(batch.ids, batch.prediction, strict=True)) if is_priced(bench.model) else {}
        return Rows(bench.key, found, Kept(predictions=seen, confusions=batch.confusions(batch.prediction, bench)))


def clean_results(batch: Batch, num_classes: int, target: Tensor | None = None) -> list[ImageResult]:
    """The verdict on each unattacked image; with a target, also how much of it is reached without any attack."""
    counts = batch.counts(batch.prediction, num_classes).images
    hit, eligible = goal_counts(batch, batch.prediction, target)
    reached = hit.tolist(), eligible.tolist() if target is not None else [0] * len(batch.ids)
    return [
        ImageResult(image, pixels, hit=h, eligible=e, passes={"judging": (1, 0)}, seconds=batch.seconds)
        for image, pixels, h, e in zip(batch.ids, counts, *reached, strict=True)
    ]


def goal_counts(batch: Batch, prediction: Tensor, target: Tensor | None) -> tuple[Tensor, Tensor]:
    """Pixels that reached the goal, and those that could; each (N,) int64.

    Without a target: of the labelled pixels that were right before the attack, those that are wrong now. With one: of
    the labelled pixels that have a target, those that are predicted as it.

    Example:
        >>> labels, before, after = (torch.tensor([[row]]) for row in ([0, 0, 1, 255], [0, 1, 1, 0], [1, 1, 1, 1]))
        >>> batch = Batch(("a",), torch.zeros(1, 3, 1, 4), labels, before, 255)
        >>> [part.item() for part in goal_counts(batch, after, None)]
        [1, 2]
    """
    if target is None:
        eligible = batch.labelled & (batch.prediction == batch.labels)
        hit = eligible & (prediction != batch.labels)
    else:
        eligible = batch.labelled & (target != batch.ignore_index)
        hit = eligible & (prediction == target)
    return hit.flatten(1).sum(1), eligible.flatten(1).sum(1)


def make_target(spec: str, labels: Tensor, classes: Classes, num_classes: int, randomness: Randomness) -> Tensor:
    """Target labels for a batch; void stays void.

    Args:
        spec: ``"random"`` (one class drawn for each image), a class name, a class index, or the path of a mask image
            whose grey values or palette indices are classes, resized to the images by nearest neighbour.
        labels: (N, H, W) int64.
        classes: Names and ignore index.
        num_classes: Classes of the model.
        randomness: Keys of the N images.

    Returns:
        (N, H, W) int64.

    Raises:
        InputError: For an unknown word, an index that is no class, or a mask that cannot be read.

    Example:
        >>> classes = Classes(("sky", "road"), ((0, 0, 255), (128, 64, 128)))
        >>> make_target("road", torch.tensor([[[0, 255]]]), classes, 2, Randomness(0, ("a",))).tolist()
        [[[1, 255]]]
    """
    void = classes.ignore_index
    if spec == "random":
        return random_classes(labels, num_classes, randomness, ignore_index=void)
    names = [name.casefold() for name in classes.names]
    if spec.casefold() in names:
        return one_class(labels, names.index(spec.casefold()), num_classes, ignore_index=void)
    if spec.lstrip("-").isdigit():
        return one_class(labels, int(spec), num_classes, ignore_index=void)
    if not Path(spec).is_file():
        raise unknown_name("target", spec, ["random", *classes.names])
    mask = _target_mask(Path(spec), labels, num_classes, void)
    return torch.where(labels == void, labels, mask)


def _target_mask(path: Path, labels: Tensor, num_classes: int, void: int) -> Tensor:
    """The classes in an image file, at the size of ``labels`` and on their device."""
    try:
        numbers = read_numbers(path)
    except InputError as error:
        raise InputError(f"the target mask {path}: {error}") from error
    picture = Image.fromarray(numbers.astype(np.int32))
    resized = picture.resize((labels.shape[2], labels.shape[1]), Image.Resampling.NEAREST)
    mask = torch.from_numpy(np.array(resized).astype(np.int64)).to(labels.device)
    wrong = mask[(mask != void) & ((mask < 0) | (mask >= num_classes))]
    if len(wrong):
        raise InputError(f"the target mask {path} holds {int(wrong[0])}; classes are 0 to {num_classes - 1}")
    return mask
