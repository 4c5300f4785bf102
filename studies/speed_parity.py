"""What the cheaper forms of the fast path change in what is measured, on images attacked with and without them.

    python studies/speed_parity.py --model card.yaml --data camvid:PATH --size 240x320 --stride 6 --out parity

Nothing is left to a trial of what pays: ``exact`` is the network with everything that differs by rounding, ``fast`` has
its gradients in bfloat16 too, whatever they cost here. Every result is judged by the network itself. Beside that, the
clean images and those that were attacked without the forms are shown to the exact form, and the pixels are counted that
it gives another class than the network does: ``answers``, from which answers come that count, and ``guidance``, from
which gradients do. Writes parity.json.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from jsonargparse import auto_cli
from torch import Tensor

import segradius as sr
from segradius.core import text
from segradius.metrics import Difference, paired_difference
from segradius.report import Cells
from segradius.speed import Choice, Form

#: Everything that differs by rounding, and what is left of it for networks that have no norms to fold.
EXACT = (Form(folded=True, channels_last=True, eased=True), Form(channels_last=True, eased=True))
MODES = ("plain", "exact", "fast")
#: How far the modes may be from plain, in points of pixel accuracy.
WITHIN = {"exact": 0.05, "fast": 0.3}


@dataclass
class Found:
    """What was seen of one attack, or of the clean images.

    Attributes:
        accuracy: By mode, the pixel accuracy of each image.
        differing: Pixels of another class, by form.
        pixels: Of how many.
    """

    accuracy: dict[str, list[float]] = field(default_factory=lambda: {mode: [] for mode in MODES})
    differing: dict[str, int] = field(default_factory=lambda: {"answers": 0, "guidance": 0})
    pixels: int = 0

    def difference(self, mode: str) -> Difference:
        """Of a mode from plain, over images, in points."""
        return paired_difference(*([100 * share for share in self.accuracy[each]] for each in (mode, "plain")))

    def within(self, mode: str, most: float) -> bool:
        """Whether a mode is as near to plain as it must: the mean of ``exact``, and the whole interval of ``fast``."""
        gap = self.difference(mode)
        return abs(gap.mean) <= most if mode == "exact" else -most <= gap.low <= gap.high <= most


def choices(model: sr.Segmenter, images: Tensor) -> dict[str, Choice]:
    """The forms of each mode but plain.

    Raises:
        InputError: The model has no exact form at all.
    """
    refused = sr.InputError(f"{model.name} has no exact form")
    for exact in EXACT:
        choice = Choice("exact", exact, exact)
        try:
            sr.sped_up(model, images, "exact", choice=choice)
            return {"exact": choice, "fast": Choice("fast", exact, replace(exact, precision="bfloat16"))}
        except sr.InputError as error:
            refused = error
    raise refused


def another_class(found: Found, exact: sr.Segmenter, images: Tensor, plain: Tensor) -> None:
    """Count the pixels to which the exact form gives another class than ``plain``, (N, H, W)."""
    for name in found.differing:
        form: sr.Segmenter = getattr(exact.twins, name)
        with form.frozen(), torch.no_grad():
            found.differing[name] += int((form.logits(images).argmax(1) != plain).sum())
    found.pixels += plain.numel()


def accuracies(prediction: Tensor, labels: Tensor, void: int) -> list[float]:
    """Of each image, over its labelled pixels; NaN where there is none."""
    known = labels != void
    right = ((prediction == labels) & known).flatten(1).sum(1)
    return (right / known.flatten(1).sum(1)).tolist()


def attacks(steps: int, queries: int) -> dict[str, Any]:
    """Those that are compared; SEA has its steps thrice."""
    return {
        "pgd, l2": sr.make_attack("pgd", norm="l2", eps=1.5, steps=steps),
        "flip_pgd, l2": sr.make_attack("flip_pgd", norm="l2", eps=1.5, steps=steps),
        "sea, linf": sr.make_attack("sea", norm="linf", eps=0.004, steps=steps // 2),
        "local_pbgd, linf": sr.make_attack("local_pbgd", norm="linf", eps=0.05, queries=queries),
    }


def tables(path: Path) -> list[Cells]:
    """What parity.json says, in one table."""
    report = json.loads(path.read_text(encoding="utf-8"))
    lines = []
    for name, each in report["found"].items():
        found = Found(**each)
        known = [share for share in found.accuracy["plain"] if share == share]
        other = [f"{found.differing[form]} of {found.pixels}" for form in ("answers", "guidance")]
        cells = [_points(found.difference(mode)) for mode in WITHIN] if name != "clean" else ["", ""]
        lines.append((name, f"{100 * sum(known) / len(known):.2f}", *cells, *other))
    apart = (f"{mode} − plain, points [95 %]" for mode in WITHIN)
    pixels = ("pixels of another class, exact answers", "exact guidance")
    title = f"Pixel accuracy after the attack, {report['images']} images; exact: {report['forms']['exact']}"
    return [Cells(title, ("attack", "plain %", *apart, *pixels), lines)]


def _points(found: Difference) -> str:
    return f"{found.mean:+.3f} [{found.low:+.3f}, {found.high:+.3f}]"


def main(
    model: str,
    data: str,
    out: Path,
    weights: str | None = None,
    split: str = "test",
    size: str | None = None,
    stride: int = 6,
    limit: int | None = 24,
    batch: int = 4,
    steps: int = 12,
    queries: int = 61,
    threads: int = 1,
    seed: int = 0,
) -> None:
    """Attack the same images in each mode.

    Args:
        model: As ``segradius attack --model``.
        data: As ``segradius attack --data``.
        out: Folder for parity.json.
        weights: File of the weights.
        split: Part of the data set.
        size: Height x width.
        stride: Only every stride-th image.
        limit: Only so many.
        batch: Images at a time.
        steps: T; half of them for each loss of SEA.
        queries: Of local_pbgd.
        threads: Of torch.
        seed: Of the attacks.
    """
    torch.set_num_threads(threads)
    opened = sr.open_data(data, split=split, size=text.size(size), stride=stride, limit=limit)
    network, void = sr.load_model(model, weights=weights), opened.classes.ignore_index
    models, chosen = dict[str, sr.Segmenter](), dict[str, Choice]()
    found = {name: Found() for name in ("clean", *attacks(steps, queries))}
    for first in range(0, len(opened), batch):
        samples = [opened[place] for place in range(first, min(first + batch, len(opened)))]
        images, labels = (torch.stack(part) for part in zip(*((s.image, s.label) for s in samples), strict=True))
        if not models:
            chosen = choices(network, images)
            modes = {mode: sr.sped_up(network, images, each.speed, choice=each) for mode, each in chosen.items()}
            models = {"plain": network, **modes}
        with network.frozen(), torch.no_grad():
            clean = network.logits(images).argmax(1)
        for mode in MODES:
            found["clean"].accuracy[mode] += accuracies(clean, labels, void)
        another_class(found["clean"], models["exact"], images, clean)
        for name, attack in attacks(steps, queries).items():
            for mode in MODES:
                ids = [sample.id for sample in samples]
                result = attack(models[mode], images, labels, ignore_index=void, seed=seed, ids=ids)
                found[name].accuracy[mode] += accuracies(result.prediction, labels, void)
                if mode == "plain":
                    another_class(found[name], models["exact"], result.adversarial, result.prediction)
        print(f"{first + len(samples)} of {len(opened)}", flush=True)
    facts: dict[str, Any] = {
        "model": model,
        "data": data.partition(":")[0],
        "split": split,
        "size": size,
        "images": len(opened),
    }
    options = {"stride": stride, "steps": steps, "queries": queries, "seed": seed}
    facts["forms"] = {mode: str(each.guidance) for mode, each in chosen.items()}
    out.mkdir(parents=True, exist_ok=True)
    file = out / "parity.json"
    file.write_text(json.dumps(facts | options | {"found": {n: asdict(f) for n, f in found.items()}}, indent=1) + "\n")
    for cells in tables(file):
        print(cells.markdown())
    for mode, most in WITHIN.items():
        outside = [name for name, each in found.items() if name != "clean" and not each.within(mode, most)]
        print(f"{mode}: {'outside ' if outside else 'all inside '}± {most} points", *outside)


if __name__ == "__main__":
    auto_cli(main, as_positional=False)
