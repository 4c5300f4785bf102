"""Collects what a picture shows from a finished run."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from segradius.core.randomness import Randomness
from segradius.data import Sample
from segradius.evaluation import CLEAN, ImageResult, Job, Run, Store, judge
from segradius.models import Segmenter
from segradius.radius.smoothing import pixel_radius
from segradius.report.curve import Curve
from segradius.report.figure import Attacked, Shown


def shown_images(run: Run, jobs: Sequence[Job], store: Store) -> list[Shown]:
    """The images of ``run.shown`` for which every one of ``jobs`` kept its adversarial image.

    The radius map is the normalised radius score Φ⁻¹(p) at the paper's σ = 0.001 and M = 8. A target, which counts
    every query, is not asked for one.
    """
    kept = [store.kept(job.key) for job in jobs]
    places = {image: place for place, image in enumerate(run.data.ids)}
    wanted = [image for image in run.shown if all(image in each for each in kept)]
    with run.model.frozen():
        return [_shown(run, jobs, store, places[image]) for image in wanted]


def curves(run: Run, jobs: Sequence[Job], store: Store) -> list[Curve]:
    """How those of ``jobs`` went that are black-box attacks and have a trace, over all images with a valid result."""
    return [curve for job in jobs if (curve := _curve(run, job, store)) is not None]


def _curve(run: Run, job: Job, store: Store) -> Curve | None:
    traces, results, clean = store.traces(job.key), store.results(job.key), store.results(CLEAN)
    ids = [image for image in run.data.ids if image in traces and image in clean and results[image].valid]
    if not ids:
        return None
    targeted = run.experiment.target is not None
    before = tuple(_share_left(clean[image], targeted) for image in ids)
    return Curve(job.plan.name, job.attack.total_steps, before, tuple(traces[image] for image in ids))


def _share_left(clean: ImageResult, targeted: bool) -> float:
    """Share of the pixels that an attack does not have where it wants them before it begins."""
    if targeted:
        return 1 - clean.hit / max(1, clean.eligible)
    return sum(clean.pixels.intersection) / max(1, sum(clean.pixels.labelled))


def _shown(run: Run, jobs: Sequence[Job], store: Store, place: int) -> Shown:
    sample = run.data[place]
    attacks = tuple(_attacked(run, job, store, sample.id) for job in jobs)
    prediction = _seen(run, CLEAN, sample.id, sample.image, store)
    return Shown(sample.id, sample.image, sample.label, prediction, _radius(run, sample), attacks)


def _radius(run: Run, sample: Sample) -> Tensor | None:
    if not isinstance(run.model, Segmenter):
        return None
    image = sample.image[None].to(run.model.device)
    return pixel_radius(run.model, image, Randomness(run.experiment.seed, (sample.id,))).normalised[0].cpu()


def _attacked(run: Run, job: Job, store: Store, image: str) -> Attacked:
    adversarial = store.example(job.key, image)
    assert adversarial is not None
    return Attacked(job.plan.name, adversarial, _seen(run, job.key, image, adversarial, store))


def _seen(run: Run, key: str, image: str, pixels: Tensor, store: Store) -> Tensor:
    """What the model sees in an image (3, H, W): what was kept of that, or else by looking."""
    kept = store.prediction(key, image)
    return judge(run.model, pixels[None].to(run.model.device))[0][0].cpu() if kept is None else kept
