"""Adversarial images as files: exact as NPZ, as 8-bit PNG for people and other programs, and a list of them."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from segradius.core.names import safe_names
from segradius.core.storage import as_csv
from segradius.evaluation.attack import Attacking
from segradius.evaluation.job import Experiment, Job
from segradius.evaluation.rounded import levels
from segradius.evaluation.run import Run
from segradius.evaluation.store import Store
from segradius.report.panels import partly, visible_bands

FOLDER = "adversarial"
COLUMNS = ("attack", "norm", "eps", "image", "npz", "png", "length", "length_png")


def adversarial_files(run: Run[Experiment], jobs: Sequence[Job], store: Store) -> Iterator[tuple[str, bytes | str]]:
    """Path and content of every adversarial image that was kept, and at the end of ``manifest.csv``.

    The NPZ holds ``adversarial``, float32 (B, H, W) in [0, 1], which is what was judged. The PNG is that rounded to 8
    bits, and may be longer than ε: the manifest has both lengths, in the norm of the attack. Of two bands, or more than
    three, the PNG shows the first or the three first, and has no length.

    Args:
        run: What was run.
        jobs: Whose images.
        store: Where they are.
    """
    names, rows = safe_names(run.data.ids), []
    plans = [job.task.plan for job in jobs if isinstance(job.task, Attacking)]
    titles = [f"{plan.label} {plan.norm} {plan.eps:.6g}" for plan in plans]
    places = safe_names(titles)
    for job, plan, title in zip(jobs, plans, titles, strict=True):
        kept, place = store.kept(job.key), f"{FOLDER}/{places[title]}"
        for at, image in enumerate(run.data.ids):
            if image not in kept:
                continue
            found = store.example(job.key, image)
            assert found is not None
            rounded = levels(found)
            files = f"{place}/{names[image]}.npz", f"{place}/{names[image]}.png"
            yield files[0], npz(found)
            yield files[1], png(rounded)
            clean = run.data[at].image.double()
            changes = [(each.double() - clean)[None] for each in (found, rounded / 255)]
            lengths = [f"{float(plan.lengths(change)[plan.norm][0]):.9g}" for change in changes]
            if partly(found):
                lengths[1] = ""
            rows.append((plan.label, plan.norm, plan.eps, image, *files, *lengths))
    yield f"{FOLDER}/manifest.csv", as_csv(COLUMNS, rows)


def npz(image: Tensor) -> bytes:
    """An image (B, H, W) as it is, under the name ``adversarial``."""
    file = io.BytesIO()
    np.savez_compressed(file, adversarial=image.numpy())
    return file.getvalue()


def png(rounded: Tensor) -> bytes:
    """What can be shown of an image (B, H, W) in `levels`."""
    file = io.BytesIO()
    pixels = visible_bands(rounded).to(torch.uint8).permute(1, 2, 0).contiguous().numpy()
    Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels).save(file, format="PNG")
    return file.getvalue()
