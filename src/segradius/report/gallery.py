"""The gallery: of each attack the images most and least hurt, each as arrays that a page makes pictures of."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from segradius.core.names import safe_names
from segradius.core.storage import null
from segradius.evaluation.gallery import extremes, remaining, share_left
from segradius.evaluation.job import Experiment, Job
from segradius.evaluation.rounded import levels
from segradius.evaluation.rows import CLEAN
from segradius.evaluation.run import Run
from segradius.report.panels import full_palette, visible_bands
from segradius.report.shown import Looks, attacking

FOLDER = "gallery"
#: What a gallery has of pixels without a label.
VOID = -1


def gallery_files(run: Run[Experiment], looks: Looks) -> Iterator[tuple[str, bytes | str]]:
    """Path and content of the files of each image in the gallery, then of ``classes.json`` and ``index.json``.

    The index is a list of ``image``, ``attack``, ``norm``, ``eps``, ``before`` and ``left`` (what is left of the image
    before and after the attack, as `segradius.evaluation.share_left` has it), ``rank`` (``most`` or ``least`` hurt) and
    ``file``. A file holds ``clean`` and ``adversarial``, uint8 (H, W, 3), of which 8 bits and the first three bands are
    left (of two the first, as grey); ``delta``, float16 (B, H, W), all of what was changed; ``label``, ``before`` and
    ``after``, int16 (H, W) classes, −1 where there is no label; and ``radius``, float16 (H, W), unless there is none.
    ``classes.json`` has the ``names`` of the classes in order, their colours (``palette``) and what stands for
    ``void``.

    Which images these are depends on the results alone: the least or most of it is left, ids decide between equals.

    Args:
        run: What was run.
        looks: What is seen in its images.
    """
    chosen = list(_chosen(run, looks))
    places = {image: place for place, image in enumerate(run.data.ids)}
    titles = [f"{it.plan.label} {it.plan.norm} {it.plan.eps:.6g} {image}" for it, image in _attacks(chosen)]
    names, index = safe_names(titles), []
    with run.model.frozen():
        for (job, image, told), title in zip(chosen, titles, strict=True):
            arrays = _arrays(run, looks, job, image, places[image])
            if arrays is not None:
                file = f"{FOLDER}/{names[title]}.npz"
                yield file, _npz(arrays)
                index.append(told | {"file": file})
    yield f"{FOLDER}/classes.json", _json(_classes(run))
    yield f"{FOLDER}/index.json", _json(index)


def _json(found: object) -> str:
    whole = json.dumps(null(found), indent=2, ensure_ascii=False, allow_nan=False)
    return whole.encode("utf-8", "backslashreplace").decode() + "\n"


def _classes(run: Run[Experiment]) -> dict[str, Any]:
    colours = full_palette(run.classes, [torch.tensor([run.model.num_classes - 1])])
    return {"names": list(run.names), "palette": colours.tolist(), "void": VOID}


def _attacks(chosen: list[tuple[Job, str, dict[str, Any]]]) -> Iterator[tuple[Any, str]]:
    return ((attacking(job), image) for job, image, _ in chosen)


def _chosen(run: Run[Experiment], looks: Looks) -> Iterator[tuple[Job, str, dict[str, Any]]]:
    """Jobs, images and what the index says of them."""
    targeted, aside = run.experiment.aim is not None, looks.store.all_set_aside()
    clean, wanted = looks.store.results(CLEAN), {image for image in run.data.ids if image not in aside}
    for job in run.experiment.jobs:
        plan, results = attacking(job).plan, looks.store.results(job.key)
        left = remaining((found for image, found in results.items() if image in wanted), targeted=targeted)
        kept = looks.store.kept(job.key)
        for rank, images in zip(("most", "least"), extremes(left, run.gallery), strict=True):
            for image in images:
                if image in kept and image in clean:
                    before = share_left(clean[image], targeted=targeted)
                    about = {"image": image, "attack": plan.label, "norm": plan.norm, "eps": plan.eps}
                    yield job, image, about | {"before": before, "left": left[image], "rank": rank}


def _arrays(
    run: Run[Experiment], looks: Looks, job: Job, image: str, place: int
) -> Mapping[str, NDArray[np.generic]] | None:
    """What a file holds; None where the adversarial image was not kept."""
    attacked = looks.after(job, image)
    if attacked is None:
        return None
    sample = run.data[place]
    before = looks.before(sample, [job.key])
    label, radius = looks.label(sample, before), looks.radius(sample)
    found: dict[str, NDArray[np.generic]] = {
        "clean": _levels(sample.image),
        "adversarial": _levels(attacked.adversarial),
        "delta": (attacked.adversarial - sample.image).numpy().astype(np.float16),
        "label": _small(label.where(label != run.classes.ignore_index, VOID)),
        "before": _small(before),
        "after": _small(attacked.prediction),
    }
    return found if radius is None else found | {"radius": radius.numpy().astype(np.float16)}


def _levels(image: Tensor) -> NDArray[np.uint8]:
    """An image (B, H, W) in [0, 1] as (H, W, 3) of 8 bits."""
    return levels(visible_bands(image).expand(3, -1, -1)).permute(1, 2, 0).numpy().astype(np.uint8)


def _small(classes: Tensor) -> NDArray[np.int16]:
    return classes.cpu().numpy().astype(np.int16)


def _npz(arrays: Mapping[str, NDArray[np.generic]]) -> bytes:
    file = io.BytesIO()
    np.savez_compressed(file, **arrays)  # type: ignore[arg-type]
    return file.getvalue()
