"""What pictures show of an image: its label, what the model sees in it, its radius map, and what attacks did to it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import cast

from torch import Tensor

from segradius.core.border import is_out_of_memory, release
from segradius.core.contracts import LogitModel
from segradius.core.ledger import Ledger
from segradius.core.randomness import Randomness
from segradius.data.sample import Sample
from segradius.evaluation.attack import Attacking
from segradius.evaluation.batch import is_priced, judge
from segradius.evaluation.job import Experiment, Job
from segradius.evaluation.rows import CLEAN
from segradius.evaluation.run import Run
from segradius.evaluation.store import Store
from segradius.radius.smoothing import at_most, pixel_radius


@dataclass(frozen=True)
class Attacked:
    """One attack's work on an image: its title, the adversarial image (B, H, W) and the prediction (H, W) for it."""

    title: str
    adversarial: Tensor
    prediction: Tensor


@dataclass(frozen=True)
class Shown:
    """One image (B, H, W) with label, prediction and radius map or None, each (H, W), and what attacks did to it."""

    name: str
    image: Tensor
    label: Tensor
    prediction: Tensor
    radius: Tensor | None
    attacks: tuple[Attacked, ...]


@dataclass
class Looks:
    """What is seen in images for pictures: what was kept, or else what the model sees now, once.

    Args:
        run: What was run.
        store: Its results.
        book: Of one image: passes made for pictures are entered there, as ``picture``.
    """

    run: Run[Experiment]
    store: Store
    book: Ledger = field(default_factory=lambda: Ledger(1))
    _radii: dict[str, Tensor | None] = field(default_factory=dict)
    _before: dict[str, Tensor] = field(default_factory=dict)

    def before(self, sample: Sample, keys: Sequence[str] = ()) -> Tensor:
        """What the model sees in an unattacked image, (H, W), kept with one of some jobs maybe."""
        if sample.id not in self._before:
            kept = [found for key in keys if (found := self.store.before(key, sample.id)) is not None]
            self._before[sample.id] = kept[0] if kept else self._seen(CLEAN, sample.id, sample.image)
        return self._before[sample.id]

    def after(self, job: Job, image: str) -> Attacked | None:
        """What a job made of an image; None where that was not kept."""
        adversarial = self.store.example(job.key, image)
        if adversarial is None:
            return None
        return Attacked(attacking(job).plan.label, adversarial, self._seen(job.key, image, adversarial))

    def label(self, sample: Sample, before: Tensor) -> Tensor:
        """The label of an image, (H, W), for which the model's own prediction may stand."""
        return before if self.run.experiment.data.predicted else sample.label

    def radius(self, sample: Sample) -> Tensor | None:
        """The normalised radius score Φ⁻¹(p) at the paper's σ = 0.001 and M = 8, (H, W); no target is asked for one."""
        if sample.id not in self._radii:
            self._radii[sample.id] = None if is_priced(self.run.model) else self._radius(sample)
        return self._radii[sample.id]

    def _seen(self, key: str, image: str, pixels: Tensor) -> Tensor:
        kept = self.store.prediction(key, image)
        if kept is None:
            self.book.enter("picture", forward=1)
            return judge(self.run.model, pixels[None].to(self.run.model.device))[0][0].cpu()
        return kept

    def _radius(self, sample: Sample) -> Tensor:
        image, samples = sample.image[None].to(self.run.model.device), 8
        keys = Randomness(self.run.experiment.seed, (sample.id,))
        self.book.enter("picture", forward=samples)
        look = partial(pixel_radius, cast(LogitModel, self.run.model), image, keys, samples=samples)
        try:
            return look().normalised[0].cpu()
        except Exception as error:
            if not is_out_of_memory(error):
                raise
        release()
        with at_most(1):
            return look().normalised[0].cpu()


def shown_images(run: Run[Experiment], jobs: Sequence[Job], looks: Looks) -> list[Shown]:
    """The images of ``run.shown`` for which every one of ``jobs`` kept its adversarial image.

    Args:
        run: What was run.
        jobs: Of its jobs, those that are shown beside one another.
        looks: What is seen in them.
    """
    places = {image: place for place, image in enumerate(run.data.ids)}
    kept = [looks.store.kept(job.key) for job in jobs]
    found = []
    with run.model.frozen():
        for image in run.shown:
            if all(image in each for each in kept):
                sample = run.data[places[image]]
                attacks = tuple(done for job in jobs if (done := looks.after(job, image)) is not None)
                before = looks.before(sample)
                label = looks.label(sample, before)
                found.append(Shown(image, sample.image, label, before, looks.radius(sample), attacks))
    return found


def attacking(job: Job) -> Attacking:
    """The task of a job, which is an attack."""
    assert isinstance(job.task, Attacking)
    return job.task
