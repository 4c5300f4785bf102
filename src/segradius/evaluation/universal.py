"""Fitting one perturbation to the images of a data set."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, cast

import torch

from segradius.attacks.base import Attack, Task
from segradius.attacks.inputs import check_batch
from segradius.attacks.patch import read_place, side_of
from segradius.attacks.universal import Perturbation, Universal
from segradius.core.bands import bands_of, check_bands
from segradius.core.contracts import Model
from segradius.core.errors import InputError, must
from segradius.core.ledger import Ledger
from segradius.core.prediction import predicted
from segradius.core.randomness import Randomness
from segradius.data.sample import SegmentationData, collate
from segradius.evaluation.batch import check_classes, judged_classes, make_target
from segradius.models.segmenter import Segmenter
from segradius.objectives.goal import Goal


def fit_universal(
    attack: Attack,
    model: Segmenter,
    data: SegmentationData,
    *,
    batch_size: int = 8,
    seed: int = 0,
    aim: str | None = None,
    patch: float | None = None,
    place: str = "centre",
    stable: bool = False,
    progress: Callable[[int], None] = lambda step: None,
) -> tuple[Perturbation, Ledger]:
    """One δ that fools a model on as many pixels of a data set as possible, by mini-batches of its images.

    Args:
        attack: ``make_attack("universal", …)``, or its ``cr_`` form, whose options say how.
        model: Network.
        data: Images of one size, and labels.
        batch_size: Images of a step.
        seed: Of the order, a random start and noise.
        aim: What pixels should become, as `make_target` takes it, the same for every image; None for anything else.
        patch: Share of an image's pixels in a square, in which values are any, and which does not count; None for a δ
            that is added everywhere.
        place: Where that square lies: "centre", or row and column of its first pixel as "10:20".
        stable: Whether the model's own predictions on the clean images are the labels.
        progress: Called with the number of steps done.

    Returns:
        δ, and the passes over one image of each batch.

    Raises:
        InputError: Images, model or options do not fit one another.

    Example:
        >>> import segradius as sr
        >>> attack = sr.make_attack("universal", norm="linf", eps=8 / 255, steps=2)
        >>> scenes = sr.open_data("scenes:24x32,4", split="train")
        >>> found, passes = fit_universal(attack, sr.load_model("demo"), scenes, batch_size=2)
        >>> tuple(found.delta.shape), passes.forward.item()
        ((3, 24, 32), 2)
    """
    method = attack.method
    if not isinstance(method, Universal):
        raise InputError(f"{attack.name} is fitted to each image; expected universal")
    must(aim != "random", "aim", aim, "one class, or a mask, for all images")
    attack.check_model(model)
    check_classes(model, data.classes)
    threat = method.fitting.threat
    if patch is not None and not (threat.norm.name == "linf" and threat.eps == 1):
        raise InputError(f"patch is {patch:g}, which takes any values; expected norm linf and eps inf")
    square = None if patch is None else _square(patch, place, *data[0].image.shape[-2:])
    tasks = _tasks(model, data, batch_size, seed, aim, stable)
    with torch.enable_grad(), model.frozen():
        return method.fit(tasks, square, progress)


def _square(patch: float, place: str, height: int, width: int) -> tuple[int, int, int]:
    side = side_of(patch, height, width)
    must(place not in ("search", "random"), "place", place, "centre, or a row and a column as 10:20, for all images")
    row, column = read_place(place) or ((height - side) // 2, (width - side) // 2)
    if row > height - side or column > width - side:
        raise InputError(f"place is {place}, where a square of side {side} leaves images of {height} × {width}")
    return row, column, side


def _tasks(
    model: Segmenter, data: SegmentationData, size: int, seed: int, aim: str | None, stable: bool
) -> Iterator[Task[Model]]:
    """Batches without end, of all images in another order in each epoch; the last of an epoch may be smaller."""
    classes, epoch = judged_classes(data.classes, model.num_classes, predicted=stable), 0
    void = classes.ignore_index
    while True:
        generator = torch.Generator().manual_seed(int(Randomness(seed, (str(epoch),)).integers(2**62, "universal")))
        order = torch.randperm(len(data), generator=generator).tolist()
        for first in range(0, len(order), size):
            images, labels, ids = collate([data[place] for place in order[first : first + size]])
            images, labels = images.to(model.device), labels.to(model.device)
            labels = predicted(cast(Any, model), images)[1] if stable else labels
            check_batch(images, labels, model.num_classes, void)
            check_bands(images.shape[1], bands_of(model), model.name)
            keys = Randomness(seed, tuple(f"{epoch}/{image}" for image in ids))
            if aim is None:
                goal = Goal.leave(labels, ignore_index=void)
            else:
                aimed = make_target(aim, labels, classes, model.num_classes, keys)
                goal = Goal.reach(aimed, labels, ignore_index=void)
            yield Task(model, images, goal, keys)
        epoch += 1
