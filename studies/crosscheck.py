"""Certificates put to the test by attacks inside their radius, and two broken certifiers that must be found out.

    python studies/crosscheck.py --model card.yaml --data camvid:PATH --size 240x320 --stride 8 --limit 20 --out out

Certifiers, all of the model smoothed with σ: ``sound`` is SegCertify; ``half the noise`` votes under σ/2 and claims σ;
``twice the radius`` votes under σ and claims the radius of 2σ. Each is tested first on the self-test of the library,
where attacks attain the bound, then on the images. Writes crosscheck.json and crosscheck.md, the former as it goes.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from jsonargparse import auto_cli
from rich.console import Console
from torch import Tensor

import segradius as sr
from segradius.attacks import make_attack
from segradius.certification import (
    Certificate,
    CrossCheck,
    Noise,
    Sampling,
    SegCertify,
    Summary,
    Votes,
    aims,
    crosscheck,
    refuted,
    self_test,
    summarise,
    vote,
)
from segradius.core import text
from segradius.data import SegmentationData, open_data
from segradius.models import load_model
from segradius.report import Cells

NAMES = SOUND, HALF, TWICE = "sound", "half the noise", "twice the radius"
COUNTS = ("images", "pixels", "flipped", "lost", "below", "images_lost", "images_below")
Drawn = Mapping[str, tuple[Votes, Certificate]]


@dataclass(frozen=True)
class Certifiers:
    """A sound certifier and two broken ones, which share its votes where they can.

    Attributes:
        test: From votes to a certificate.
        sigma: σ of the smoothed model.
        n0: Copies that name classes.
        n: Copies that test them.
        names: Which of `NAMES` are asked for.
    """

    test: SegCertify
    sigma: float
    n0: int
    n: int
    names: Sequence[str] = NAMES

    def votes(self, sigma: float, model: sr.Model, image: Tensor, keys: sr.Randomness) -> Votes:
        """Votes under noise of any σ."""
        with model.frozen():
            return vote(model.logits, image, model.num_classes, Sampling(Noise(sigma), self.n0, self.n), keys)

    def all(self, model: sr.Model, image: Tensor, keys: sr.Randomness) -> Drawn:
        """Votes and certificates of an image by the names of the certifiers."""
        claimed = {}
        if set(self.names) - {HALF}:
            honest = self.votes(self.sigma, model, image, keys)
            claimed = {SOUND: honest, TWICE: replace(honest, sigma=2 * self.sigma)}
        if HALF in self.names:
            claimed[HALF] = replace(self.votes(self.sigma / 2, model, image, keys), sigma=self.sigma)
        return {name: (claimed[name], self.test(claimed[name])) for name in self.names}


@dataclass(frozen=True)
class Row:
    """A certifier on a subject: summaries by verdict and what they refute; ``passes`` over all images by purpose."""

    subject: str
    certifier: str
    abstained: float | None
    summaries: Mapping[str, Summary]
    refuted: Sequence[str]
    passes: Mapping[str, Mapping[str, int]]


def on_brightness(certifiers: Certifiers, images: int, copies: int) -> list[Row]:
    """The self-test of each."""
    rows = []
    for name in certifiers.names:
        certify = partial(_one, certifiers, name)
        found = self_test(certify, certifiers.sigma, certifiers.test.alpha, images=images, copies=copies)
        rows.append(Row("self-test", name, None, found, refuted(found), {}))
    return rows


def _one(
    certifiers: Certifiers, name: str, model: sr.Model, image: Tensor, keys: sr.Randomness
) -> tuple[Votes, Certificate]:
    return replace(certifiers, names=(name,)).all(model, image, keys)[name]


def on_images(
    model: Any, data: SegmentationData, certifiers: Certifiers, check: Callable[..., dict[str, CrossCheck]], seed: int
) -> Any:
    """After each image, the rows so far."""
    checks: dict[str, dict[str, list[CrossCheck]]] = {name: {} for name in certifiers.names}
    abstained: dict[str, list[float]] = {name: [] for name in certifiers.names}
    for sample in (data[place] for place in range(len(data))):
        image = sample.image.to(model.device)
        drawn = certifiers.all(model, image, sr.Randomness(seed, (sample.id,)))
        for name, pair in drawn.items():
            abstained[name].append(pair[1].abstained)
            for attack, found in check(model, image, pair, sample.id).items():
                checks[name].setdefault(attack, []).append(found)
        yield [
            _row(f"{data.name}, {attack}", name, abstained[name], found, certifiers.test.alpha)
            for name in certifiers.names
            for attack, found in checks[name].items()
        ]


def _row(subject: str, name: str, abstained: Sequence[float], checks: Sequence[CrossCheck], alpha: float) -> Row:
    found = summarise(checks, alpha)
    passes: dict[str, dict[str, int]] = {}
    for check in checks:
        for purpose, counts in check.ledger.by_purpose().items():
            book = passes.setdefault(purpose, dict.fromkeys(counts, 0))
            for way, count in counts.items():
                book[way] += count
    return Row(subject, name, sum(abstained) / len(abstained), found, refuted(found), passes)


def table(rows: Sequence[Row]) -> Cells:
    """A line for each subject, certifier and kind of verdict."""
    names = (count.replace("_", " ") for count in COUNTS)
    header = ("subject, certifier, verdict", *names, "bound used", "refuted")
    lines = []
    for row in rows:
        for name, each in row.summaries.items():
            counts = [getattr(each, count) for count in COUNTS]
            caught = [fault.partition(",")[0] for fault in row.refuted if fault.endswith(f", {name}")]
            used = "–" if each.used is None else f"{each.used:.2f}"
            cells = (*map(str, counts), used, " and ".join(caught) or "no")
            lines.append((f"{row.subject}: {row.certifier}, {name}", *cells))
    return Cells("Certified pixels under attack inside the radius", header, lines)


def main(
    model: str = "",
    weights: str = "",
    data: str = "",
    split: str | None = None,
    size: str | None = None,
    stride: int = 1,
    limit: int | None = None,
    sigma: float = 0.25,
    tau: float = 0.75,
    alpha: float = 0.001,
    n0: int = 50,
    n: int = 500,
    certifiers: str = ",".join(NAMES),
    attacks: str = "cr_pgd",
    steps: int = 10,
    samples: int = 4,
    weakest: tuple[int, ...] = (1, 10),
    copies: int = 300,
    tests: int = 20,
    bfloat16: bool = False,
    device: str = "cpu",
    seed: int = 0,
    out: str = "crosscheck",
) -> None:
    """Cross-check, print and write.

    Args:
        model: A network, as `segradius attack` takes it; empty for the self-test alone.
        weights: Its checkpoint.
        data: Images, as `segradius attack` takes them.
        split: Part of the data set.
        size: Height x width.
        stride: Take every stride-th image.
        limit: How many images.
        sigma: Noise of the smoothed model.
        tau: Threshold of SegCertify.
        alpha: Error rate of an image's certificate.
        n0: Noisy copies that name the classes.
        n: Noisy copies that test them.
        certifiers: Which of the three, commas between them.
        attacks: Names of white-box attacks.
        steps: Of each attack.
        samples: Noisy copies behind a gradient.
        weakest: Sizes of groups of weakest pixels that are attacked, beside all pixels.
        copies: Noisy copies that judge.
        tests: Certificates in each self-test.
        bfloat16: Whether the network itself is turned to bfloat16, for certificates and attacks alike.
        device: Where the network runs.
        seed: Of all random numbers.
        out: Folder of crosscheck.json and crosscheck.md.
    """
    about = {name: value for name, value in locals().items() if name != "out"}
    about |= {"data": data.partition(":")[0], "weights": Path(weights or "").name}  # no path of a machine
    asked = text.names(certifiers)
    text.refuse_unknown("certifier", asked, NAMES)
    tested = Certifiers(SegCertify(tau, alpha), sigma, n0, n, asked)

    def check(network: sr.Model, image: Tensor, drawn: tuple[Votes, Certificate], name: str) -> dict[str, CrossCheck]:
        votes, certificate = drawn
        within = aims(certificate, votes, weakest=weakest)
        settings = {"samples": samples, "copies": copies, "image_id": name, "seed": seed}
        return {
            each: crosscheck(network, Noise(sigma), image, certificate, within, attack=_maker(each, steps), **settings)
            for each in text.names(attacks)
        }

    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    first = rows = on_brightness(tested, tests, max(copies, 1000))
    _write(folder, about, rows)
    if model:
        network = load_model(model, weights=weights or None, device=device, dtype="bfloat16" if bfloat16 else None)
        source = open_data(data, split=split, size=text.size(size), stride=stride, limit=limit)
        for found in on_images(network, source, tested, check, seed):
            rows = [*first, *found]
            _write(folder, about, rows)
    Console(width=160).print(table(rows).rich())


def _maker(name: str, steps: int) -> Callable[..., Any]:
    weights = {"samples": 0} if name.startswith("cr_") else {}
    return partial(make_attack, name, norm="l2", steps=steps, keep="last", **weights)


def _write(folder: Path, about: Mapping[str, Any], rows: Sequence[Row]) -> None:
    found = {**about, "rows": [asdict(row) for row in rows]}
    (folder / "crosscheck.json").write_text(json.dumps(found, indent=2, ensure_ascii=False, allow_nan=False) + "\n")
    (folder / "crosscheck.md").write_text(table(rows).markdown() + "\n")


if __name__ == "__main__":
    auto_cli(main, as_positional=False)
