"""Collects what a picture shows from a finished run."""

from __future__ import annotations

from collections.abc import Sequence

from segradius.evaluation import Job, Run, Store, judge
from segradius.radius import pixel_radius
from segradius.randomness import Randomness
from segradius.report.figure import Attacked, Shown


def shown_images(run: Run, jobs: Sequence[Job], store: Store) -> list[Shown]:
    """The images of ``run.shown`` for which every one of ``jobs`` kept its adversarial image.

    The radius map is the normalised radius score Φ⁻¹(p) at the paper's σ = 0.001 and M = 8.
    """
    kept = [store.kept(job.key) for job in jobs]
    places = {image: place for place, image in enumerate(run.data.ids)}
    wanted = [image for image in run.shown if all(image in each for each in kept)]
    with run.model.frozen():
        return [_shown(run, jobs, store, places[image]) for image in wanted]


def _shown(run: Run, jobs: Sequence[Job], store: Store, place: int) -> Shown:
    sample = run.data[place]
    image = sample.image[None].to(run.model.device)
    radius = pixel_radius(run.model, image, Randomness(run.experiment.seed, (sample.id,))).normalised
    attacks = tuple(_attacked(run, job, store, sample.id) for job in jobs)
    return Shown(sample.id, sample.image, sample.label, judge(run.model, image)[0][0].cpu(), radius[0].cpu(), attacks)


def _attacked(run: Run, job: Job, store: Store, image: str) -> Attacked:
    adversarial = store.example(job.key, image)
    assert adversarial is not None
    prediction, _ = judge(run.model, adversarial[None].to(run.model.device))
    return Attacked(job.plan.name, adversarial, prediction[0].cpu())
