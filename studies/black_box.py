r"""Black-box attacks beside one another: accuracy against queries, with intervals, paired tests and query factors.

    python studies/black_box.py run --plan studies/plans/camvid_l2.yaml --model SPEC --weights FILE \
        --data camvid:PATH --attacks pbgd,local_800 --queries 800 --out results
    python studies/black_box.py show --folder results --out docs/figures/black-box-l2.png

An attack that was stopped, or whose budget is raised, goes on where it stood. ``run`` writes a JSON file for each
attack with what every image's curve was; ``show`` makes the table, the paired differences and the picture of them.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
import yaml
from jsonargparse import auto_cli
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

import segradius as sr
from segradius.attacks import BLACK_BOX
from segradius.core.errors import InputError
from segradius.core.storage import replacing, write_atomically
from segradius.core.text import names
from segradius.core.text import size as parse_size
from segradius.metrics.counts import Counts
from segradius.metrics.statistics import Interval, interval, paired_difference, pooled_accuracy
from segradius.report.cells import percent

MARKS = (12, 24, 50, 100, 200, 400, 800, 1500, 2000, 3000, 4000, 6000, 8000, 12000, 16000, 30000)
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#7F7F7F")


@dataclass
class File:
    """A journal in one file, written at most every ``seconds``."""

    path: Path
    seconds: float = 60.0
    last: float = 0.0

    def load(self) -> Mapping[str, Any] | None:
        """The standing in the file."""
        return torch.load(self.path, weights_only=True) if self.path.exists() else None

    def save(self, standing: Callable[[], Mapping[str, Any]]) -> None:
        """Write it, if it is time to."""
        if time.monotonic() - self.last >= self.seconds:
            with replacing(self.path) as new:
                torch.save(standing(), new)
            self.last = time.monotonic()


class OneByOne(torch.nn.Module):
    """A compiled network that is given one image after the other, whose activations then stay in the cache."""

    def __init__(self, network: torch.nn.Module) -> None:
        super().__init__()
        self.network = torch.compile(network, dynamic=False, options={"freezing": True})

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Of each image of a batch."""
        return torch.cat([self.network(image) for image in images.split(1)])


@dataclass(frozen=True)
class Curve:
    """What an attack did to one image.

    Attributes:
        image: Its id.
        pixels: Labelled pixels.
        clean: Of them right before the attack.
        right: By mark, right pixels of the best judged point within so many queries.
        passes: Queries by purpose.
    """

    image: str
    pixels: int
    clean: int
    right: dict[int, int]
    passes: dict[str, int]


def run(
    plan: Path,
    model: str,
    data: str,
    attacks: str,
    queries: int,
    out: Path,
    weights: str | None = None,
    split: str = "test",
    size: str = "240x320",
    images: int = 20,
    batch: int = 2,
    precision: str = "bfloat16",
    threads: int = 1,
    seed: int = 0,
    eps: float | None = None,
    compiled: bool = False,
) -> None:
    """Attack images spread over a split.

    Args:
        plan: YAML file with norm, eps and, by label, the attacks and their options.
        model: As ``segradius attack --model``.
        data: As ``segradius attack --data``.
        attacks: Labels in the file, commas between them.
        queries: Budget of each image.
        out: Folder of the JSON files.
        weights: File of the weights.
        split: Part of the data set.
        size: Height x width.
        images: Number of images, evenly spread over the split.
        batch: Images at a time; changes no result.
        precision: ``bfloat16`` or ``float32``: that of the network's weights and activations.
        threads: Of torch.
        seed: Seed.
        eps: Another budget than the file's.
        compiled: Compile the network, for long runs of queries on a CPU; for no attack with gradients.
    """
    torch.set_num_threads(threads)
    listed = yaml.safe_load(plan.read_text())
    opened = sr.open_data(data, split=split, size=parse_size(size))
    places = [int((i + 0.5) * len(opened) / images) for i in range(images)]
    network = _opened(model, weights, getattr(torch, precision), compiled)
    out.mkdir(parents=True, exist_ok=True)
    radius = listed["eps"] if eps is None else eps
    for label in names(attacks):
        chosen = listed["attacks"][label]
        options = {name: value for name, value in chosen.items() if name != "attack"}
        within = tuple(mark for mark in MARKS if mark < queries)
        if chosen["attack"].removeprefix("cr_") in BLACK_BOX:
            options |= {"queries": queries, "marks": within}
        elif compiled:
            raise InputError(f"{label} needs gradients: leave out --compiled, which is for queries")
        attack = sr.make_attack(chosen["attack"], norm=listed["norm"], eps=radius, **options)
        curves: list[Curve] = []
        started, spent = time.perf_counter(), 0.0
        for first in range(0, images, batch):
            samples = [opened[place] for place in places[first : first + batch]]
            journal = out / f".{label}-{first}-{first + len(samples)}.pt"
            curves += _attacked(attack, network, samples, journal, seed, (*within, queries))
            spent = time.perf_counter() - started
            print(f"{label}: {len(curves)} of {images} images, {spent:.0f} s", flush=True)
        facts = {
            "label": label,
            "attack": chosen["attack"],
            "options": options,
            "norm": listed["norm"],
            "eps": radius,
            "queries": queries,
            "model": model,
            "data": data.partition(":")[0],
            "split": split,
            "size": size,
            "precision": precision,
            "seed": seed,
            "seconds": spent,
        }
        write_atomically(out / f"{label}.json", json.dumps({**facts, "curves": [asdict(c) for c in curves]}, indent=1))
        print(
            f"{label}: " + ", ".join(f"{m}: {_accuracy(curves, m).value:.3f}" for m in (0, *within, queries)),
            flush=True,
        )


def _opened(model: str, weights: str | None, precision: torch.dtype, compiled: bool) -> sr.Segmenter:
    found = sr.load_model(model, weights=weights)
    assert isinstance(found.network, torch.nn.Module)
    found.network.to(precision, memory_format=torch.channels_last)
    return replace(found, channels_last=True, network=OneByOne(found.network) if compiled else found.network)


def _attacked(
    attack: sr.Attack, network: sr.Segmenter, samples: list[Any], journal: Path, seed: int, marks: tuple[int, ...]
) -> list[Curve]:
    stack = torch.stack([sample.image for sample in samples])
    labels = torch.stack([sample.label for sample in samples])
    ids = [sample.id for sample in samples]
    result = attack(network, stack, labels, ids=ids, seed=seed, journal=File(journal))
    pixels = (labels != 255).flatten(1).sum(1).tolist()
    with torch.no_grad():
        clean = ((network.logits(stack).argmax(1) == labels) & (labels != 255)).flatten(1).sum(1).tolist()
    curves = []
    for row, image in enumerate(ids):
        right = {mark: _right(result, row, mark, clean[row], pixels[row]) for mark in marks}
        passes = {purpose: int(book[0, row]) for purpose, book in result.ledger.passes.items()}
        curves.append(Curve(image, pixels[row], clean[row], right, passes))
    return curves


def _right(result: sr.Result, row: int, mark: int, clean: int, pixels: int) -> int:
    """Right pixels of an image within ``mark`` queries; after a white-box attack, at any mark, those at its end."""
    if result.trace is None:
        return min(clean, pixels - int(result.fooled[row]))
    best = result.trace.best[result.trace.queries <= mark, row]
    best = best[~best.isnan()]
    return min(clean, round(best[-1].item() * pixels)) if len(best) else clean


def show(
    folder: Path,
    labels: str = "",
    marks: str = "50,100,200,400,800,2000,4000",
    against: str = "pbgd",
    out: Path | None = None,
    title: str = "",
) -> None:
    """Table of accuracy at query counts, paired differences, factors in queries, and a picture.

    Args:
        folder: Of ``run``.
        labels: Which attacks, in this order; all by default.
        marks: Query counts of the table.
        against: Label that the others are compared with.
        out: Picture to write.
        title: Its title.
    """
    found = {path.stem: json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))}
    found = {label: found[label] for label in (names(labels) or found)}
    curves = {label: [_curve(c) for c in each["curves"]] for label, each in found.items()}
    asked = [int(mark) for mark in names(marks)]
    first = next(iter(curves.values()))
    print(f"n = {len(first)}, clean {_percent(first, 0)}\n")
    print("| attack | " + " | ".join(map(str, asked)) + " |\n|---|" + "---|" * len(asked))
    for label, each in curves.items():
        cells = [_percent(each, mark) if mark in each[0].right else "" for mark in asked]
        print(f"| {label} | " + " | ".join(cells) + " |")
    if against in curves:
        print()
        for label, each in curves.items():
            if label != against:
                _compare(label, each, against, curves[against], asked)
    if out is not None:
        _draw(curves, title, out)


def _compare(label: str, mine: list[Curve], against: str, theirs: list[Curve], marks: list[int]) -> None:
    """Paired differences at common marks, and how many queries reach what ``against`` has at its end."""
    for mark in [mark for mark in marks if mark in mine[0].right and mark in theirs[0].right]:
        gap = paired_difference([_share(c, mark) for c in mine], [_share(c, mark) for c in theirs])
        print(
            f"{label} − {against} at {mark}: {100 * gap.mean:+.1f} [{100 * gap.low:+.1f}, {100 * gap.high:+.1f}], "
            f"p = {gap.p_value:.4f}, n = {len(mine)}"
        )
    end = max(mark for mark in theirs[0].right)
    goal = _accuracy(theirs, end).value
    reached = [mark for mark in sorted(mine[0].right) if _accuracy(mine, mark).value <= goal]
    if reached:
        print(
            f"{label} has {against}'s {100 * goal:.1f} of {end} queries at {reached[0]}: factor {end / reached[0]:.0f}"
        )


def _draw(curves: Mapping[str, list[Curve]], title: str, out: Path) -> None:
    figure = Figure(figsize=(8.0, 4.6), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    for place, (label, each) in enumerate(curves.items()):
        colour, style = COLOURS[place % len(COLOURS)], ("o-", "s--")[place // len(COLOURS) % 2]
        marks = sorted(each[0].right)
        values = [_accuracy(each, mark) for mark in marks]
        axes.plot(marks, [100 * v.value for v in values], style, ms=3, color=colour, label=label)
        axes.fill_between(marks, [100 * v.low for v in values], [100 * v.high for v in values], color=colour, alpha=0.1)
    axes.axhline(100 * _accuracy(next(iter(curves.values())), 0).value, color="#999999", lw=0.8, ls=":")
    axes.set(xscale="log", xlabel="queries an image", ylabel="pixel accuracy (%)", title=title, ylim=(0, 100))
    ticks = [m for m in (12, 24, 50, 100, 200, 400, 800, 2000, 4000, 8000, 16000) if m <= axes.get_xlim()[1]]
    axes.set_xticks(ticks, [f"{tick:,}" for tick in ticks])
    axes.minorticks_off()
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, loc="center left", bbox_to_anchor=(1.0, 0.5))
    with replacing(out) as new:
        figure.savefig(new, dpi=130)


def _accuracy(curves: list[Curve], mark: int) -> Interval:
    right = torch.tensor([[c.clean if mark == 0 else c.right[mark]] for c in curves])
    pixels = torch.tensor([[c.pixels] for c in curves])
    return interval(pooled_accuracy, Counts(right, pixels, pixels))


def _percent(curves: list[Curve], mark: int) -> str:
    found = _accuracy(curves, mark)
    return percent(found.value, found)


def _share(curve: Curve, mark: int) -> float:
    return curve.right[mark] / curve.pixels


def _curve(plain: Mapping[str, Any]) -> Curve:
    return replace(Curve(**plain), right={int(mark): count for mark, count in plain["right"].items()})


if __name__ == "__main__":
    auto_cli([run, show], as_positional=False)
