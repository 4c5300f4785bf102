"""SegCertify as a defence against CR-PGD, as in Section 5.4 of the paper: pixel accuracy at an l2 budget of 10.

    python studies/segcertify_defence.py --model card.yaml --data camvid:PATH --size 240x320 --limit 20 --out out

Attacks: ``base`` climbs the network itself and is carried over to the smoothed model; ``smoothed`` climbs the smoothed
model (mean over noisy copies). Predictions: of the network; of the smoothed model (majority of all votes, which never
abstains); of SegCertify, where an abstained pixel is wrong. A budget of 10 is far beyond the certified radius, so here
a certificate speaks of the attacked image only. Writes defence.json, as it goes, and defence.md.

The paper has 21.9, 26.3 and 17.5 % for SegCertify on Pascal VOC, Cityscapes and ADE20K; 41.4, 45.6 and 29.2 % for
FastADT.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from jsonargparse import auto_cli
from rich.console import Console

import segradius as sr
from segradius.certification import Noise, Sampling, SegCertify
from segradius.core import text
from segradius.data import Classes, SegmentationData, open_data
from segradius.metrics import Counts, Interval, interval, pooled_accuracy
from segradius.models import Segmenter, load_model
from segradius.paper.computed import ANSWERS, ATTACKS, Defence, attacked, judged
from segradius.report import Cells, percent


@dataclass(frozen=True)
class Row:
    """One attack: PixAcc of each prediction over all labelled pixels, abstention, and passes of the attack an image."""

    attack: str
    pixacc: Mapping[str, Interval]
    abstained: float
    images: int
    forward: int
    backward: int


def measure(model: Segmenter, data: SegmentationData, setting: Defence) -> Iterator[list[Row]]:
    """After each image, the rows so far."""
    classes: Classes = data.classes
    counts: dict[str, dict[str, list[Counts]]] = {how: {name: [] for name in ANSWERS} for how in ATTACKS}
    abstained: dict[str, list[float]] = {how: [] for how in ATTACKS}
    passes: dict[str, sr.Ledger] = {}
    for sample in (data[place] for place in range(len(data))):
        if not (sample.label != classes.ignore_index).any():
            continue
        for how in ATTACKS:
            image, passes[how] = attacked(model, sample, classes.ignore_index, how, setting)
            found, share = judged(model, image, sample, classes.ignore_index, setting)
            abstained[how].append(share)
            for name, each in found.items():
                counts[how][name].append(each)
        yield [_row(how, counts[how], abstained[how], passes[how]) for how in ATTACKS]


def _row(how: str, counts: Mapping[str, Sequence[Counts]], abstained: Sequence[float], passes: sr.Ledger) -> Row:
    pixacc = {name: interval(pooled_accuracy, Counts.joined(each)) for name, each in counts.items()}
    share, forward, backward = sum(abstained) / len(abstained), int(passes.forward[0]), int(passes.backward[0])
    return Row(how, pixacc, share, len(abstained), forward, backward)


def table(rows: Sequence[Row], setting: Defence) -> Cells:
    """A line for each attack."""
    header = ("attack", *(f"PixAcc %, {name}" for name in ANSWERS), "abstained %", "images", "passes f+b")
    lines = []
    for row in rows:
        found = [percent(row.pixacc[name].value, row.pixacc[name]) for name in ANSWERS]
        cells = (*found, f"{100 * row.abstained:.1f}", str(row.images), f"{row.forward}+{row.backward}")
        lines.append((row.attack, *cells))
    title = f"{setting.attack}, l2, ε = {setting.eps:g}, T = {setting.steps}, σ = {setting.sampling.noise.sigma:g}"
    return Cells(f"{title} [95 % interval over images]", header, lines)


def main(
    model: str,
    data: str,
    weights: str = "",
    split: str | None = None,
    size: str | None = None,
    stride: int = 1,
    limit: int | None = None,
    attack: str = "cr_pgd",
    eps: float = 10.0,
    steps: int = 50,
    samples: int = 8,
    sigma: float = 0.25,
    tau: float = 0.75,
    alpha: float = 0.001,
    n0: int = 10,
    n: int = 100,
    bfloat16: bool = False,
    device: str = "cpu",
    seed: int = 0,
    out: str = "defence",
) -> None:
    """Measure, print and write.

    Args:
        model: A network, as `segradius attack` takes it.
        data: Images and labels, as `segradius attack` takes them.
        weights: Its checkpoint.
        split: Part of the data set.
        size: Height x width.
        stride: Take every stride-th image.
        limit: How many images.
        attack: A white-box attack.
        eps: Its l2 budget.
        steps: Its steps, T.
        samples: Noisy copies behind a gradient of the smoothed model.
        sigma: Noise of the smoothed model.
        tau: Threshold of SegCertify.
        alpha: Error rate of an image's certificate.
        n0: Noisy copies that name the classes.
        n: Noisy copies that test them.
        bfloat16: Whether the network is turned to bfloat16.
        device: Where the network runs.
        seed: Of all random numbers.
        out: Folder of defence.json and defence.md.
    """
    about = {name: value for name, value in locals().items() if name != "out"}
    about |= {"data": data.partition(":")[0], "weights": Path(weights or "").name}  # no path of a machine
    network = load_model(model, weights=weights or None, device=device, dtype="bfloat16" if bfloat16 else None)
    source = open_data(data, split=split, size=text.size(size), stride=stride, limit=limit)
    sampling = Sampling(Noise(sigma), n0, n)
    setting = Defence(attack, eps, steps, samples, sampling, SegCertify(tau, alpha), seed)
    folder, rows = Path(out), []
    folder.mkdir(parents=True, exist_ok=True)
    for rows in measure(network, source, setting):
        lines = json.dumps({**about, "rows": [asdict(row) for row in rows]}, indent=2, ensure_ascii=False)
        (folder / "defence.json").write_text(lines + "\n")
        (folder / "defence.md").write_text(table(rows, setting).markdown() + "\n")
    Console(width=150).print(table(rows, setting).rich())


if __name__ == "__main__":
    auto_cli(main, as_positional=False)
