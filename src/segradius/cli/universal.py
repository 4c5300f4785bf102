"""``segradius universal``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from segradius.cli.options import DataOptions, ModelOptions, RunOptions, open_subject
from segradius.core import text
from segradius.core.declared import Count, Eps, Length, PlaceName, Seed, Share
from segradius.core.errors import InputError, must
from segradius.core.screen import note, say

Pairs = str | float | dict[str, Any] | list[Any]


def universal(
    data: DataOptions,
    model: ModelOptions,
    norm: str = "linf",
    eps: str | Annotated[float, Eps] = "8/255",
    steps: Count = 200,
    alpha: Length | None = None,
    options: Pairs | None = None,
    aim: str | None = None,
    patch: Share | None = None,
    place: PlaceName = "centre",
    guided: bool = False,
    batch_size: Count = 8,
    seed: Seed = 0,
    device: str = "auto",
    out: str = "universal.safetensors",
) -> int:
    """Fit one perturbation to all images of a data set, and write it into a file.

    Judge it on other images, image by image like any attack, by segradius attack --attack universal --options
    delta=FILE with the same norm and eps.

    Args:
        data: See `DataOptions`; give the split to fit to, as train.
        model: See `ModelOptions`.
        norm: l1, l2 or linf.
        eps: Budget for images in [0, 1], as 8/255; inf with patch.
        steps: Steps T, each on one batch of images.
        alpha: Step length. Default: 20 eps/T.
        options: Further options as name=value,name=value: loss, weighting, decay, start.
        aim: Aim at a class (name or number), or at a mask image. Default: untargeted.
        patch: Share of an image's pixels in a square of any values, put over every image at one place.
        place: Where that square lies, centre, or row and column of its first pixel as 10:20.
        guided: Weigh the objective by the certified radius.
        batch_size: Images of a step.
        seed: Of the order of the images and a random start.
        device: auto, cpu, cuda or cuda:N.
        out: The file.
    """
    from segradius.attacks import make_attack
    from segradius.evaluation.universal import fit_universal

    if model.target is not None:
        raise InputError("--target gives scores alone, and a fit follows gradients: give --model")
    must(patch is not None or place == "centre", "place", place, "centre, or --patch beside it")
    name = "cr_universal" if guided else "universal"
    own = text.options(options) | {"steps": steps} | ({} if alpha is None else {"alpha": alpha})
    must("delta" not in own, "delta", own.get("delta"), "it in segradius attack, which judges")
    attack = make_attack(name, norm=norm, eps=eps, **own)
    of = open_subject(data, model, RunOptions(out, seed, device))
    Path(out).parent.mkdir(parents=True, exist_ok=True)  # before the work, of which nothing is kept otherwise
    every = max(1, steps // 10)

    def told(step: int) -> None:
        if step % every == 0:
            note(f"step {step} of {steps}")

    seen: Any = of.seen
    found, passes = fit_universal(
        attack, seen, of.data, batch_size=batch_size, seed=seed, aim=aim, patch=patch, place=place,
        stable=of.choice.predicted, progress=told,
    )  # fmt: skip
    found.made.update({"attack": name, "model": of.model.spec, "data": of.choice.spec, "split": of.choice.split or "",
                       "images": len(of.data), "batch_size": batch_size, "seed": seed, "aim": aim or ""})  # fmt: skip
    found.save(out)
    length = "a patch" if found.square else f"{norm} {eps}"
    say(f"{out}: one perturbation ({length}) fitted to {len(of.data)} images in {passes.backward.item()} steps")
    say(f"Judge it: segradius attack --attack universal --norm {norm} --eps {eps} --options delta={out} …")
    return 0
