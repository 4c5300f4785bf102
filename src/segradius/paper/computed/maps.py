"""Figure 1 of the paper: one image, its radius map, and what attacks add to it, pixel by pixel."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from segradius.attacks.base import Result
from segradius.core.declared import Count, Eps, Plain, Seed, Sigma, Whole
from segradius.core.errors import InputError
from segradius.core.names import safe_name
from segradius.core.randomness import Randomness
from segradius.core.storage import replacing
from segradius.objectives.weightings import CertifiedRadius
from segradius.paper.computed.attacking import Budget, Plans, Shot, passes, shots
from segradius.paper.computed.subject import COMPUTED, Subject, remembered
from segradius.radius.smoothing import pixel_radius

#: The two of the paper, and one of today that is guided by no radius map of its own.
THREE: Plans = {"PGD": {"attack": "pgd"}, "CR-PGD": {"attack": "cr_pgd"}, "flip-PGD": {"attack": "flip_pgd"}}


def perturbation(array: NDArray[np.int8], scale: float) -> NDArray[np.float32]:
    """δ, (B, H, W), from what is in the file.

    Example:
        >>> perturbation(np.array([[[-127, 0, 127]]], np.int8), 0.5).tolist()
        [[[-0.5, 0.0, 0.5]]]
    """
    return (array.astype(np.float32) * np.float32(scale) / 127).astype(np.float32)


def _passes(
    subjects: Sequence[Subject] = (), *, attacks: Plans = THREE, norm: str = "l2", eps: float = 1.5, steps: int = 50,
    preset: str = "", samples: int = 8, **others: Any,
) -> int:  # fmt: skip
    return passes(subjects, Budget(norm, eps, steps, preset), attacks, 1, samples + 1)


@COMPUTED.register("maps", passes=_passes)
def maps(
    subjects: Sequence[Subject],
    folder: Path,
    *,
    attacks: Mapping[str, Any] = THREE,
    norm: Literal["l1", "l2", "linf"] = "l2",
    eps: Eps = 1.5,
    steps: Count = 50,
    preset: str = "",
    image: Whole = 0,
    samples: Count = 8,
    sigma: Sigma = 0.001,
    a: Plain = 2.0,
    b: Plain = -4.0,
    seed: Seed = 0,
) -> dict[str, Any]:
    """Figure 1: the radius map of one image, and where attacks put their perturbation.

    Args:
        subjects: Networks, each with its images.
        folder: For the arrays.
        attacks: By label.
        norm: Of the perturbation.
        eps: Its budget.
        steps: T.
        preset: As of a study.
        image: Place of the image among those of a subject.
        samples: M behind the radius map and its weights.
        sigma: σ of it.
        a: Of the weights.
        b: Of the weights.
        seed: Of noise and attacks.

    Returns:
        ``a``, ``b``, ``sigma``, ``samples``, ``norm``, ``eps``, ``steps``, ``seed``, and ``networks``: of each
        `Subject.about`, ``image`` (its id), ``classes`` (their names), ``palette``, ``file`` of the arrays, ``pixels``
        (labelled ones), ``right`` of them on the clean image, and ``attacks``: by label ``right``, ``scale`` (the
        largest |δ| of a value) and ``length`` (‖δ‖ in the norm).

        The file is an .npz: ``image`` (H, W, B) uint8, ``label`` and ``prediction`` (H, W) of the smallest unsigned
        type, ``void`` its void label, ``radius`` (H, W) float16, cr/σ = Φ⁻¹(p), ``weight`` (H, W) float16; and for
        attack number k ``delta_k`` (B, H, W) int8, which `perturbation` reads with its scale, and ``prediction_k``.

    Raises:
        InputError: There is no such image, or an attack or option is unknown.
    """
    budget = Budget(norm, eps, steps, preset)
    budget.attacks(attacks)
    weighting = CertifiedRadius(a=a, b=b, sigma=sigma, samples=samples)
    found = []
    for on in subjects:
        if not image < len(on.images):
            raise InputError(f"maps.image is {image}; expected a place below {len(on.images)}, the images of {on.data}")
        asked = {"attacks": attacks, "budget": [norm, eps, steps, preset], "image": image, "seed": seed}
        given = {"network": on.known, "weighting": repr(weighting), **asked}
        make = partial(_of_subject, on, folder, budget, attacks, weighting, image, seed)
        found.append(remembered(folder, on.label, given, make, [_file(on)]))
    shared = {"norm": norm, "eps": eps, "steps": steps, "seed": seed}
    return {"a": a, "b": b, "sigma": sigma, "samples": samples, **shared, "networks": found}


def _file(on: Subject) -> str:
    return f"maps-{safe_name(on.label)}.npz"


def _of_subject(
    on: Subject, folder: Path, budget: Budget, plans: Plans, weighting: CertifiedRadius, image: int, seed: int
) -> dict[str, Any]:
    model, classes = on.load(), on.images.classes
    shot = list(shots(on, model, image + 1))[-1]
    with torch.no_grad():
        radii = pixel_radius(
            model, shot.images, Randomness(seed, (shot.id,)), sigma=weighting.sigma, samples=weighting.samples
        )
    clean, void = shot.clean(model), _void(len(classes))
    arrays: dict[str, NDArray[Any]] = {
        "image": (shot.images[0].permute(1, 2, 0) * 255).round().byte().cpu().numpy(),
        "label": _small(shot.labels.masked_fill(~shot.known, void), void),
        "prediction": _small(clean, void),
        "void": np.array(void),
        "radius": radii.normalised[0].half().cpu().numpy(),
        "weight": weighting.of_probability(radii.probability)[0].half().cpu().numpy(),
    }
    told = {}
    for place, (label, attack) in enumerate(budget.attacks(plans).items()):
        result = shot.attacked(attack, model, seed)
        told[label], arrays[f"delta_{place}"] = _told(shot, result, budget.norm)
        arrays[f"prediction_{place}"] = _small(result.prediction, void)
    with replacing(folder / _file(on)) as new, new.open("wb") as file:
        np.savez_compressed(file, allow_pickle=False, **arrays)
    about = {"image": shot.id, "classes": list(classes.names[: len(classes)]), "palette": list(classes.palette)}
    known = {"pixels": int(shot.known.sum()), "right": shot.right(clean)}
    return {**on.about, **about, "file": _file(on), **known, "attacks": told}


def _told(shot: Shot, result: Result, norm: str) -> tuple[dict[str, Any], NDArray[np.int8]]:
    delta = result.delta[0].cpu()
    scale = float(delta.abs().max()) or 1.0
    power = {"l1": 1.0, "l2": 2.0, "linf": float("inf")}[norm]
    length = float(torch.linalg.vector_norm(delta.double(), power))
    kept = (delta / scale * 127).round().to(torch.int8).numpy()
    return {"right": shot.right(result.prediction), "scale": scale, "length": length}, kept


def _void(classes: int) -> int:
    return 255 if classes < 255 else 65535


def _small(classes: Tensor, void: int) -> NDArray[Any]:
    return classes[0].cpu().numpy().astype(np.uint8 if void == 255 else np.uint16)
