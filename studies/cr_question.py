r"""Where the certified radius makes PGD stronger, and why: CR-PGD beside PGD, and beside halves of CR-PGD.

    python studies/cr_question.py --models a=a/last.yaml,b=b/last.yaml --data camvid:PATH --split test \
        --size 96x128 --stride 6 --limit 24 --eps 0.2,0.5 --steps 20 --sharpness 1,3 --out runs/seen
    python studies/cr_question.py --models c=c.yaml --data camvid:PATH … --out runs/held-out
    python studies/cr_question.py --judge runs

The mechanism that is put to the test. Cross-entropy gives pixel n a gradient of size 1 − p(label), which is largest
where a pixel is *wrong already and sure of it*: there it moves nothing any more. The weight of Eq. 10 is small for a
sure pixel, right or wrong; but a sure right pixel had next to no gradient to begin with, so that all that the weight
does is to take gradient from pixels that have fallen. If so,

- the gain of CR-PGD follows ``moved``: the share of the loss's gradient at wrong pixels less the same share under the
  weights, at the last iterate of *plain PGD*, which needs no CR-PGD to be known;
- CR-PGD with its weights at wrong pixels alone (``cr_wrong``) has the gain, and at right pixels alone (``cr_right``)
  has not;
- a network whose logits are multiplied by a number (``sharpness``), which changes no prediction, gains more the surer
  it is.

Gains are PixAcc under PGD less PixAcc under the other, in points; above 0 the other is stronger. All attacks start at
zero, keep the last iterate and have α = 2.5 ε/T, the paper's.
"""

from __future__ import annotations

import argparse
import csv
import itertools
import math
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from scipy.stats import spearmanr
from torch import Tensor, nn

import segradius as sr
from segradius.attacks import Attack, Iterative, Steepest, StepSize
from segradius.core import text
from segradius.data import Sample, open_data
from segradius.models import Segmenter, load_model
from segradius.objectives import CertifiedRadius, CrossEntropy, Objective, View, Weighting
from segradius.report import Cells
from segradius.threats import make_threat

HALVES: tuple[Literal["wrong", "right"], ...] = ("wrong", "right")
ARMS = ("pgd", "cr_pgd", "cr_wrong", "cr_right", "masked")
DRAWS = 5_000
#: What a run leaves in its folder, and what its name begins with where it has no part in the slope.
LINES, HELD_OUT = "lines.csv", "held-out"


@dataclass(frozen=True)
class Half(Weighting):
    """The weights of Eq. 10 at pixels that are wrong, or right, and 1 elsewhere."""

    where: Literal["wrong", "right"]
    radius: CertifiedRadius = field(default_factory=CertifiedRadius)

    def weigh(self, view: View, state: Any) -> tuple[Tensor, Any]:
        """Those of the radius where they count."""
        weights, state = self.radius.weigh(view, state)
        counts = view.pending() == (self.where == "right")
        return torch.where(counts, weights, torch.ones_like(weights)), state


class Sharper(nn.Module):
    """A network whose logits are multiplied by a number: every prediction is as it was, more or less sure."""

    model: Segmenter
    times: float

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, C, H, W)."""
        return self.times * self.model.logits(images)


@dataclass(frozen=True)
class Line:
    """One image under all attacks of one setting; pixel counts, and shares in [0, 1].

    Attributes:
        network: Its label.
        eps: l2 norm.
        steps: T.
        sharpness: By what the logits are multiplied.
        image: Its id.
        labelled: Pixels that count.
        clean: Those right without an attack.
        sure: Mean largest probability of the clean image.
        wrong: Share of the gradient's size at wrong pixels, at PGD's last iterate.
        moved: That, less the same share under the weights of Eq. 10.
        pgd: Pixels right under PGD.
        cr_pgd: Under CR-PGD.
        cr_wrong: Under CR-PGD with its weights at wrong pixels alone; None where that was not run, as below.
        cr_right: At right pixels alone.
        masked: Under PGD on still-correct pixels alone.
    """

    network: str
    eps: float
    steps: int
    sharpness: float
    image: str
    labelled: int
    clean: int
    sure: float
    wrong: float
    moved: float
    pgd: int
    cr_pgd: int
    cr_wrong: int | None = None
    cr_right: int | None = None
    masked: int | None = None

    @property
    def setting(self) -> tuple[str, float, int, float]:
        """All but the image."""
        return self.network, self.eps, self.steps, self.sharpness


def sharper(model: Segmenter, times: float) -> Segmenter:
    """A model with ``times`` its logits."""
    network = Sharper()
    network.model, network.times, network.network = model, times, model.network  # the last to be frozen with it
    return sr.wrap(network, num_classes=model.num_classes)


def attacks(eps: float, steps: int) -> dict[str, Attack]:
    """By name, with what the paper sets."""
    made = {name: sr.make_attack(name, norm="l2", eps=eps, steps=steps, keep="last") for name in ("pgd", "cr_pgd")}
    for half in HALVES:
        objective, threat = Objective(CrossEntropy(), Half(half)), make_threat("l2", eps)
        method = Iterative(objective, threat, Steepest(StepSize(None, 2.5)), steps=steps, keep="last")
        made[f"cr_{half}"] = Attack(f"cr_{half}", method)
    made["masked"] = sr.make_attack("pgd", norm="l2", eps=eps, steps=steps, keep="last", weighting="still_correct")
    return made


def shares(logits: Tensor, labels: Tensor, known: Tensor) -> tuple[Tensor, Tensor]:
    """Of each image: share of the cross-entropy's gradient at wrong pixels, and what of it the weights move away.

    Args:
        logits: (N, C, H, W).
        labels: (N, H, W), any class where not known.
        known: (N, H, W) bool.
    """
    found = logits.softmax(1)
    own = found.gather(1, labels[:, None])[:, 0]
    size, wrong = (1 - own) * known, logits.argmax(1) != labels
    weighed = size * CertifiedRadius().of_probability(found.amax(1))
    plain, guided = ((each * wrong).sum((1, 2)) / each.sum((1, 2)).clamp_min(1e-30) for each in (size, weighed))
    return plain, plain - guided


def measure(
    model: Segmenter,
    label: str,
    samples: Sequence[Sample],
    void: int,
    settings: Iterable[tuple[float, int, float]],
    arms: Sequence[str] = ARMS,
    batch: int = 8,
) -> list[Line]:
    """A line for each setting (ε, T, sharpness) and image.

    Args:
        model: That is attacked.
        label: Its name in the lines.
        samples: Images and labels.
        void: Label that does not count.
        settings: Each is measured.
        arms: Some of `ARMS`, ``pgd`` and ``cr_pgd`` among them.
        batch: Images at a time.
    """
    found = []
    for eps, steps, sharpness in settings:
        made = attacks(eps, steps)
        seen = sharper(model, sharpness)
        for part in (samples[first : first + batch] for first in range(0, len(samples), batch)):
            images, labels = torch.stack([s.image for s in part]), torch.stack([s.label for s in part])
            ids, known = [s.id for s in part], labels != void
            results = {name: made[name](seen, images, labels, ids=ids, seed=0, ignore_index=void) for name in arms}
            with torch.no_grad():
                clean, last = seen.logits(images), seen.logits(results["pgd"].adversarial)
            wrong, moved = shares(last, labels.masked_fill(~known, 0), known)
            right = {name: ((each.prediction == labels) & known).sum((1, 2)) for name, each in results.items()}
            right["clean"] = ((clean.argmax(1) == labels) & known).sum((1, 2))
            sure = (clean.softmax(1).amax(1) * known).sum((1, 2)) / known.sum((1, 2))
            for i, name in enumerate(ids):
                numbers: dict[str, Any] = {key: int(value[i]) for key, value in right.items()}
                numbers |= {"sure": float(sure[i]), "wrong": float(wrong[i]), "moved": float(moved[i])}
                found.append(Line(label, eps, steps, sharpness, name, int(known[i].sum()), **numbers))
        print(f"{label}: eps {eps:g}, T {steps}, sharpness {sharpness:g}", file=sys.stderr)
    return found


def read(path: Path) -> list[Line]:
    """Lines of a file that was written."""
    kinds: dict[str, Any] = {f.name: {"str": str, "float": float}.get(str(f.type), int) for f in fields(Line)}
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    return [Line(**{name: kinds[name](value) for name, value in row.items() if value}) for row in rows]


def write(lines: Sequence[Line], path: Path) -> None:
    """A CSV file with a line each."""
    rows = [",".join(f.name for f in fields(Line))]
    rows += [",".join(map(_cell, asdict(line).values())) for line in lines]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(rows) + "\n", encoding="utf-8")


def _cell(value: Any) -> str:
    return "" if value is None else f"{value:.6g}" if isinstance(value, float) else str(value)


@dataclass(frozen=True)
class Setting:
    """Means of a setting over its images, pooled, in points; ``low`` and ``high`` by bootstrap over images.

    What was not run of it is NaN.
    """

    network: str
    eps: float
    steps: int
    sharpness: float
    images: int
    clean: float
    sure: float
    pgd: float
    moved: float
    gain: float
    low: float
    high: float
    wrong_half: float
    right_half: float
    masked: float


def settings_of(lines: Sequence[Line]) -> list[Setting]:
    """A setting each, in the order they come."""
    groups: dict[tuple[Any, ...], list[Line]] = {}
    for line in lines:
        groups.setdefault(line.setting, []).append(line)
    return [_setting(key, each) for key, each in groups.items()]


def _setting(key: tuple[str, float, int, float], lines: Sequence[Line]) -> Setting:
    names = ("labelled", "clean", *ARMS)
    counts = np.array([[getattr(line, name) for name in names] for line in lines], float)  # None is NaN
    total = counts[:, 0].sum()
    clean, pgd, *others = (100 * counts[:, i].sum() / total for i in range(1, len(names)))
    drawn = np.random.default_rng(0).integers(len(lines), size=(DRAWS, len(lines)))
    gains = 100 * (counts[:, 2] - counts[:, 3])[drawn].sum(1) / counts[:, 0][drawn].sum(1)
    low, high = map(float, np.quantile(gains, (0.025, 0.975)))
    sure, moved = (float(np.mean([100 * getattr(line, name) for line in lines])) for name in ("sure", "moved"))
    gain, *halves = (pgd - other for other in others)
    return Setting(*key, len(lines), clean, sure, pgd, moved, gain, low, high, *halves)


def slope(found: Sequence[Setting]) -> float:
    """Points of gain for each point moved: least squares through 0, as nothing moved is no gain.

    Example:
        >>> line = Setting("a", 1.0, 30, 1.0, 24, 80.0, 90.0, 50.0, 4.0, 2.0, 1.0, 3.0, 2.0, 0.0, 5.0)
        >>> slope([line, replace(line, moved=8.0, gain=4.0)])
        0.5
    """
    moved, gain = (np.array([getattr(each, name) for each in found]) for name in ("moved", "gain"))
    return float(moved @ gain / (moved @ moved))


def judged(found: Sequence[Setting], held_out: Sequence[Setting]) -> Cells:
    """Gains of a network that had no part in the slope, beside those that the slope says."""
    per_point = slope(found)
    rows = []
    for each in held_out:
        told = per_point * each.moved
        inside = "yes" if each.low <= told <= each.high else "no"
        gain = f"{each.gain:+.1f} [{each.low:+.1f}, {each.high:+.1f}]"
        rows.append((*_about(each), f"{each.moved:.1f}", f"{told:+.1f}", gain, inside))
    moved, gains = ([getattr(each, name) for each in held_out] for name in ("moved", "gain"))
    order = spearmanr(moved, gains).statistic if len(held_out) > 2 else float("nan")
    title = (
        f"{per_point:.3f} points of gain for a point moved, by {len(found)} settings; "
        f"rank correlation held out {order:.2f}"
    )
    return Cells(title, ("network", "ε", "T", "sharpness", "moved", "gain foretold", "gain", "inside"), rows)


def _about(each: Setting) -> tuple[str, ...]:
    return each.network, f"{each.eps:g}", str(each.steps), f"{each.sharpness:g}"


def table(found: Sequence[Setting], title: str) -> Cells:
    """A row for each setting."""
    header = ("network", "ε", "T", "sharpness", "images", "clean", "sure", "PGD", "moved", "gain of CR-PGD")
    rows = []
    for each in found:
        numbers = (f"{value:.1f}" for value in (each.clean, each.sure, each.pgd, each.moved))
        halves = (_signed(value) for value in (each.wrong_half, each.right_half, each.masked))
        gain = f"{each.gain:+.1f} [{each.low:+.1f}, {each.high:+.1f}]"
        rows.append((*_about(each), str(each.images), *numbers, gain, *halves))
    return Cells(title, (*header, "at wrong pixels alone", "at right alone", "mask"), rows)


def _signed(value: float) -> str:
    return "" if math.isnan(value) else f"{value:+.1f}"


def _runs(path: Path) -> tuple[list[Setting], list[Setting]]:
    """Settings of the runs of a folder: those that give the slope, and those whose name says that they do not."""
    found: tuple[list[Setting], list[Setting]] = [], []
    for each in sorted(path.glob(f"*/{LINES}")):
        found[each.parent.name.startswith(HELD_OUT)].extend(settings_of(read(each)))
    return found


def tables(path: Path) -> list[Cells]:
    """Tables of a folder of runs: what was found, what was held out (by name), and one judged by the other."""
    found, held_out = _runs(path)
    title = "Gain of CR-PGD over PGD, points of PixAcc"
    return [table(found, title), table(held_out, f"{title}, held out"), judged(found, held_out)]


def picture(path: Path, out: Path) -> None:
    """Gain against what is moved: settings that gave the slope, and those that had no part in it, with its line."""
    from matplotlib.figure import Figure

    figure = Figure((5.2, 3.6), layout="constrained")
    axes = figure.subplots()
    found, held_out = _runs(path)
    for each, colour, mark, label in (
        (found, "#0072B2", "o", "light networks, CamVid: the slope is theirs"),
        (held_out, "#D55E00", "s", "networks that had no part in it"),
    ):
        moved, gain, low, high = (
            np.array([getattr(s, name) for s in each]) for name in ("moved", "gain", "low", "high")
        )
        bars = np.stack([gain - low, high - gain])
        axes.errorbar(moved, gain, bars, fmt=mark, color=colour, ms=4, lw=0.8, label=label)
    ends = np.array([0, max(each.moved for each in (*found, *held_out)) * 1.05])
    axes.plot(ends, slope(found) * ends, color="#555555", lw=1, ls="--", label=f"{slope(found):.2f} points a point")
    axes.set_xlabel("gradient that the weights take from fallen pixels, points")
    axes.set_ylabel("gain of CR-PGD over PGD,\npoints of PixAcc")
    axes.axhline(0, color="#999999", lw=0.6)
    axes.legend(fontsize=8, frameon=False)
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, dpi=130, metadata={"Software": None})


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, or judge; the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--judge", type=Path, help="print the tables of this folder of runs, and measure nothing")
    parser.add_argument("--figure", type=Path, help="with --judge, draw this picture too")
    parser.add_argument("--models", help="label=model, commas between them")
    parser.add_argument("--data", help="images and labels, as for segradius attack")
    parser.add_argument("--eps", default="0.5", help="l2 norms, commas between them")
    texts = {"split": None, "size": None, "steps": "20", "sharpness": "1", "arms": ",".join(ARMS), "out": "found"}
    for name, default in texts.items():
        parser.add_argument(f"--{name}", default=default)
    for name, number in {"stride": 1, "limit": None, "batch-size": 8}.items():
        parser.add_argument(f"--{name}", type=int, default=number)
    given = parser.parse_args(arguments)
    if given.judge:
        for each in tables(given.judge):
            print(each.markdown() + "\n")
        if given.figure:
            picture(given.judge, given.figure)
        return 0
    if not (given.models and given.data):
        parser.error("expected --models and --data, or --judge")
    grid = [[float(v) for v in getattr(given, name).split(",")] for name in ("eps", "steps", "sharpness")]
    settings = [(eps, int(steps), sharp) for eps, steps, sharp in itertools.product(*grid)]
    data = open_data(given.data, split=given.split, size=text.size(given.size), stride=given.stride, limit=given.limit)
    samples, void = [data[place] for place in range(len(data))], data.classes.ignore_index
    path = Path(given.out) / LINES
    lines = read(path) if path.exists() else []
    there = {line.setting for line in lines}
    for label, spec in (each.split("=", 1) for each in given.models.split(",")):
        missing = [each for each in settings if (label, *each) not in there]
        lines += measure(load_model(spec), label, samples, void, missing, given.arms.split(","), given.batch_size)
        write(lines, path)
    print(table(settings_of(lines), data.name).markdown())
    return 0


if __name__ == "__main__":
    sys.exit(main())
