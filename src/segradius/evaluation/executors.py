"""Where units are worked on: in this process. Others need no more than `perform` and what a unit says of itself."""

from __future__ import annotations

import ast
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from segradius.core.contracts import Seen
from segradius.data.opening import open_data
from segradius.data.sample import SegmentationData
from segradius.evaluation.batch import check_model
from segradius.evaluation.job import DataChoice, ModelChoice
from segradius.evaluation.journal import Checkpoints
from segradius.evaluation.run import Progress, Unit, perform
from segradius.evaluation.store import Rows
from segradius.models.loading import load_model


def open_choice(
    choice: ModelChoice, *, device: str | torch.device = "cpu", seed: int = 0, budget: int | None = None
) -> Seen:
    """The model that a choice describes.

    Args:
        choice: Its description.
        device: Where it runs.
        seed: Of the weights of a network that is given none.
        budget: Images that a target may answer.

    Raises:
        InputError: See `segradius.models.load_model` and `segradius.targets.open_target`.

    Example:
        >>> open_choice(ModelChoice("demo")).name
        'demo'
    """
    torch.manual_seed(seed)  # a network without weights is at least the same one each time
    named = choice.normalisation
    colours = ast.literal_eval(named) if named is not None and named.startswith("{") else named
    options: dict[str, Any] = {name: getattr(choice, name) for name in ("weights", "num_classes", "outputs")}
    options |= {"normalisation": colours, "device": device}
    if not choice.scores_only:
        return load_model(choice.spec, **options, dtype=choice.dtype)
    from segradius.targets.opening import open_target  # brings every protocol, which a network can do without

    return open_target(choice.spec, **options, answers=choice.answers, input=choice.input, budget=budget)


def open_images(choice: DataChoice) -> SegmentationData:
    """The images that a choice describes.

    Example:
        >>> len(open_images(DataChoice("scenes:24x32", limit=3)))
        3
    """
    options = {name: value for name, value in vars(choice).items() if name != "spec"}
    return open_data(choice.spec, **options)


@dataclass
class InProcess:
    """Works on one unit after the other, here.

    Args:
        model: What the units name, if it is open already; opened otherwise, once.
        data: The same.
        checkpoints: Where unfinished work is kept; None for nowhere.
        device: Where a model is opened.
    """

    model: Seen | None = None
    data: SegmentationData | None = None
    checkpoints: Checkpoints | None = None
    device: str = "cpu"

    def run(self, units: Iterable[Unit], progress: Progress = lambda job, steps: None) -> Iterator[Rows]:
        """The rows of all units, in order."""
        checked = False

        def look(model: Seen, image: Tensor) -> None:
            nonlocal checked
            if not checked:
                check_model(model, image)
            checked = True

        for unit in units:
            model, data = self._opened(unit)
            with model.frozen():
                yield from perform(unit, model, data, self.checkpoints, progress, look)

    def _opened(self, unit: Unit) -> tuple[Seen, SegmentationData]:
        clean = unit.clean
        if self.model is None:
            self.model = open_choice(clean.model, device=self.device, seed=clean.seed)
        if self.data is None:
            self.data = open_images(clean.data)
        return self.model, self.data
