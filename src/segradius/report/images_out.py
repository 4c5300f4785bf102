"""Adversarial images taken out of finished runs: exact and in 8 bits, each with what it is of, for any program."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from segradius.core.errors import InputError, SegradiusError
from segradius.core.names import safe_names
from segradius.core.screen import warn
from segradius.core.storage import as_csv, null
from segradius.data.marks import parts_of
from segradius.data.sample import BadSampleError, SegmentationData
from segradius.evaluation.attack import AttackPlan
from segradius.evaluation.job import Experiment
from segradius.evaluation.loaded import SavedResults, SavedRun
from segradius.evaluation.reread import experiment_of, reading
from segradius.evaluation.rounded import levels
from segradius.evaluation.rows import ImageResult, Rounded
from segradius.evaluation.run import open_images
from segradius.report.adversarial import npz, png
from segradius.report.outbox import Outbox, outbox
from segradius.report.panels import partly

#: One JSON object for each image, by whose name and ``file_name`` Hugging Face's imagefolder finds all the others.
METADATA, MANIFEST = "metadata.jsonl", "manifest.csv"
COLUMNS = (
    "file_name", "npz", "measurement", "model", "data", "seed", "attack", "norm", "eps", "eps_levels", "id",
    "image_file", "label_file", "bands", "height", "width", "valid", "pixels", "right", "pixacc", "length",
    "length_png", "right_png", "sha256", "sha256_npz",
)  # fmt: skip


@dataclass(frozen=True)
class Taken:
    """What was taken out of a run.

    Attributes:
        run: The run.
        images: How many adversarial images.
        attacked: How many there were, of all attacks.
    """

    run: SavedRun
    images: int
    attacked: int

    @property
    def told(self) -> str:
        """For people: how many, and how to have all."""
        found = f"{self.run.name}: {self.images} of {self.attacked} adversarial images"
        if self.images == self.attacked:
            return found
        command = self.run.command
        if command.startswith("segradius attack "):
            way = f"{command} --save-images"
        elif command.startswith("segradius run "):
            way = f"save_images: true under options in the file of {command}"
        else:
            way = "the same run with save_images=True"
        return f"{found}, as the others were not kept; to keep all: {way}"


def export_images(found: SavedResults, folder: Path) -> list[Taken]:
    """Write the adversarial images that runs kept into a folder: NPZ, PNG, ``manifest.csv`` and ``metadata.jsonl``.

    The NPZ holds ``adversarial``, float32 (B, H, W) in [0, 1], which is what was judged; the PNG is that in 8 bits, of
    more than three bands the first three.

    Args:
        found: The runs, of which those of attacks count.
        folder: New, empty, or of an earlier export, whose files go.

    Raises:
        InputError: None of the runs is of attacks, or has its results.sqlite, or kept any image; or the folder holds
            other files.
    """
    attacks = [run for run in found.runs if run.kind == "attack"]
    if not attacks:
        named = ", ".join(f"{run.name} ({run.kind})" for run in found.runs)
        raise InputError(f"there is no attack among the runs, and so no adversarial image: {named}")
    for run in attacks:
        if not (run.path / "results.sqlite").is_file():
            raise InputError(
                f"{run.path} has no results.sqlite, where adversarial images are kept; expected the whole folder"
            )
    with outbox(folder, METADATA) as out:
        several, places = len(attacks) > 1, safe_names([run.name for run in attacks])
        lines: list[dict[str, Any]] = []
        taken = []
        for run in attacks:
            before = len(lines)
            lines += _of_run(out, run, f"{places[run.name]}/" if several else "")
            taken.append(Taken(run, len(lines) - before, _attacked(run)))
        if not lines:
            raise InputError(f"no adversarial image was kept; {taken[0].told}")
        out.write(MANIFEST, as_csv(COLUMNS, ([line[name] for name in COLUMNS] for line in lines)))
        told = [json.dumps(null(line), ensure_ascii=False, allow_nan=False) + "\n" for line in lines]
        out.write(METADATA, "".join(told).encode("utf-8", "backslashreplace"))
    return taken


def _attacked(run: SavedRun) -> int:
    return sum(1 for line in run.table("images") if line["attack"] != "clean")


def _of_run(out: Outbox, run: SavedRun, prefix: str) -> Iterator[dict[str, Any]]:
    experiment, data = experiment_of(run.experiment), _opened(run)
    places = {image: place for place, image in enumerate(data.ids)} if data else {}
    titles = safe_names(f"{plan.label} {plan.norm} {plan.eps:.6g}" for plan in experiment.attacks)
    with reading(run.path / "results.sqlite") as store:
        for plan in experiment.attacks:
            key = experiment.key(plan)
            kept = sorted(store.kept(key), key=lambda image: (places.get(image, 0), image))
            names, results, rounded = safe_names([*places, *kept]), store.results(key), store.rounded(key)
            folder = f"{prefix}{titles[f'{plan.label} {plan.norm} {plan.eps:.6g}']}"
            for image in kept:
                found = store.example(key, image)
                if found is not None:
                    about = _about(run, experiment, plan) | {"id": image} | _files(data, places.get(image))
                    told = _counted(plan, results[image]) | _rounded(
                        plan, found, rounded.get(image), _clean(data, places, image)
                    )
                    yield _written(out, f"{folder}/{names[image]}", found) | about | told


def _opened(run: SavedRun) -> SegmentationData | None:
    """The images that were attacked, to tell their files; None where they are not here, or it takes code to say so."""
    choice = experiment_of(run.experiment).data
    without = f"{run.name}: image_file and label_file are not told"
    if choice.spec.startswith("python:"):
        warn(f"{without}, as {choice.spec} would run code")
        return None
    try:
        return open_images(choice)
    except (SegradiusError, OSError) as error:
        warn(f"{without}, as the images are not where they were: {error}")
        return None


def _files(data: SegmentationData | None, place: int | None) -> dict[str, str | None]:
    """Where the image that was attacked, and its mask, come from."""
    parts = {} if data is None or place is None or not hasattr(data, "parts") else parts_of(data, place)
    files = {role: str(part) for role, part in parts.items() if isinstance(part, Path)}
    mask = next((file for role, file in files.items() if role != "image"), None)
    return {"image_file": files.get("image"), "label_file": mask}


def _about(run: SavedRun, experiment: Experiment, plan: AttackPlan) -> dict[str, Any]:
    told: dict[str, Any] = {"measurement": run.name, "model": experiment.model.spec, "data": experiment.data.spec}
    told |= {"seed": experiment.seed, "attack": plan.label, "norm": plan.norm, "eps": plan.eps}
    return told | {"eps_levels": 255 * plan.eps if plan.norm == "linf" else None}


def _counted(plan: AttackPlan, result: ImageResult) -> dict[str, Any]:
    pixels, right = sum(result.pixels.labelled), sum(result.pixels.intersection)
    length: float = getattr(result, plan.norm)
    told: dict[str, Any] = {"valid": int(result.valid), "pixels": pixels, "right": right, "pixacc": right / pixels}
    return told | {"length": length if math.isfinite(length) else None}


def _clean(data: SegmentationData | None, places: Mapping[str, int], image: str) -> Callable[[], Tensor | None]:
    """Reads the image that was attacked, where it is here."""

    def read() -> Tensor | None:
        try:
            return data[places[image]].image if data is not None and image in places else None
        except BadSampleError:
            return None

    return read


def _rounded(
    plan: AttackPlan, image: Tensor, found: Rounded | None, clean: Callable[[], Tensor | None]
) -> dict[str, Any]:
    """What the PNG is, where it shows all bands, and what was seen in it, where that was looked at."""
    if partly(image):
        return {"length_png": None, "right_png": None}
    if found is not None:
        length, right = float(getattr(found, plan.norm)), sum(found.pixels.intersection)
    elif (before := clean()) is not None and before.shape == image.shape:
        change = levels(image).double() / 255 - before.double()
        length, right = float(plan.lengths(change[None])[plan.norm]), None
    else:
        return {"length_png": None, "right_png": None}
    return {"length_png": length if math.isfinite(length) else None, "right_png": right}


def _written(out: Outbox, path: str, image: Tensor) -> dict[str, Any]:
    bands, high, wide = image.shape
    sums = out.write(f"{path}.png", png(levels(image))), out.write(f"{path}.npz", npz(image))
    size = {"bands": bands, "height": high, "width": wide}
    return {"file_name": f"{path}.png", "npz": f"{path}.npz", "sha256": sums[0], "sha256_npz": sums[1]} | size
