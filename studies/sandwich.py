"""Both sides of one curve: what certificates leave of an answer's accuracy by radius, and what an attack leaves of it.

    python studies/sandwich.py --smoothed gaussian@0.25=gaussian.yaml,pspnet@0.1=pspnet.yaml \
        --lipschitz ortho=ortho.yaml --data camvid:PATH --split test --size 96x128 --stride 29 --limit 8 --out sandwich

Of each network smoothed at a σ, two answers: the class of most votes, and that of the largest mean confidence. Votes
are certified by SegCertify at several τ, by its test against k errors (less the k − 1 pixels that may then be wrong),
and by radii of each pixel; mean confidences by betting. The attack climbs the smoothed model (the mean of a few copies)
from the label, and fresh copies judge: both answers, of the same changed image. A network whose Lipschitz constant is
known is certified in one pass, all pixels of an image together and each for itself, and attacked as it is. All on the
same images, each certificate at its own error rate.

Writes sandwich.csv and sandwich.json (options, seconds) as it goes, then sandwich.svg and sandwich.png. Runs on the
same images are put together by `tables` and `picture`.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import torch
from jsonargparse import auto_cli
from scipy import special
from torch import Tensor

import segradius as sr
from segradius.certification import (
    Certificate,
    Noise,
    PixelRadii,
    Sampling,
    SegCertify,
    Smoothed,
    SoftRadii,
    Votes,
    distances,
    turnable,
    vote_softly,
)
from segradius.core import text
from segradius.data import Sample, open_data
from segradius.evaluation import confiding
from segradius.models import Segmenter, lipschitz_bound, load_model
from segradius.report import (
    SIDES,
    Cells,
    Line,
    Sandwich,
    Side,
    as_file,
    draw_sandwich,
    read_sandwich,
    sandwich_csv,
    share,
    together,
)

VOTES, MEANS, ITSELF = "majority of votes", "largest mean confidence", "the network"


@dataclass
class Counted:
    """Pixels of each image so far, by line."""

    images: list[str] = field(default_factory=list)
    labelled: list[int] = field(default_factory=list)
    pixels: dict[tuple[Side, str, str, str, float], list[int]] = field(default_factory=dict)

    def add(self, side: Side, network: str, answer: str, how: str, radius: float, where: Tensor, less: int = 0) -> None:
        """Count the pixels ``where`` of the next image, so many of them less."""
        self.pixels.setdefault((side, network, answer, how, radius), []).append(max(int(where.sum()) - less, 0))

    def sandwich(self) -> Sandwich:
        """Of the images that every line has."""
        found = sorted(self.pixels.items(), key=lambda each: SIDES.index(each[0][0]))
        lines = tuple(Line(*key, tuple(pixels)) for key, pixels in found)
        return Sandwich(tuple(self.images), tuple(self.labelled), lines)


@dataclass(frozen=True)
class How:
    """What is asked of every answer.

    Args:
        radii: Of the attacks.
        grid: Radii at which certificates are counted.
        n0: Copies that name classes.
        n: Copies that test them.
        alpha: Error rate of each certificate of an image.
        taus: Of SegCertify.
        k: Errors that its test against k errors keeps an image below.
        attack: Name.
        steps: Of it.
        samples: Noisy copies behind its gradients.
        copies: Fresh ones that judge.
        seed: Of all random numbers.
    """

    radii: tuple[float, ...]
    grid: tuple[float, ...]
    n0: int
    n: int
    alpha: float
    taus: tuple[float, ...]
    k: int
    attack: str
    steps: int
    samples: int
    copies: int
    seed: int


def by_noise(name: str, model: Segmenter, sigma: float, sample: Sample, how: How, void: int, counted: Counted) -> None:
    """Both sides of the two answers of a smoothed network on one image."""
    known, label, noise = sample.label != void, sample.label, Noise(sigma)
    votes, soft = vote_softly(
        confiding(model), sample.image, model.num_classes, Sampling(noise, how.n0, how.n),
        sr.Randomness(how.seed, (sample.id,)), SoftRadii(how.alpha),
    )  # fmt: skip
    by_votes, by_means = f"{VOTES}, σ = {sigma:g}", f"{MEANS}, σ = {sigma:g}"
    own = PixelRadii(how.alpha)(votes)
    two = PixelRadii(how.alpha, "two")(votes)
    curves = (
        (by_votes, "own radii, one", own),
        (by_votes, "own radii, two", two),
        (by_means, "own radii, betting", soft),
    )
    for answer, certificate, found in curves:
        for radius in how.grid:
            right = found.at(radius) & (found.guess == label) & known
            counted.add("certified", name, answer, certificate, radius, right)
    for told, radius, found, wrong in _common(votes, how):
        right = found.certified & (found.guess == label) & known
        counted.add("certified", name, by_votes, told, radius, right, wrong)
    for radius in (0.0, *how.radii):
        point = _attacked(Smoothed(model, noise, how.samples, how.seed), sample, radius, how, void)
        fresh = sr.Randomness(how.seed, (sample.id,)).spawn("judging")
        majority, mean, hits, rival = _judged(model, noise, point, how.copies, fresh, own.guess)
        counted.add("attacked", name, by_votes, how.attack, radius, (majority == label) & known)
        counted.add("attacked", name, by_means, how.attack, radius, (mean == label) & known)
        counted.add("lost", name, by_votes, how.attack, radius, _lost(own, hits, rival, radius, model, how) & known)


def by_constant(name: str, model: Segmenter, constant: float, sample: Sample, how: How, void: int, it: Counted) -> None:
    """Both sides of a network whose Lipschitz constant is known, on one image."""
    known, label, answer = sample.label != void, sample.label, f"{ITSELF}, L = {constant:.4g}"
    with torch.no_grad():
        found = distances(model.logits(sample.image[None])[0])
    right = (found.guess == label) & known
    budget = (constant * torch.tensor(how.grid, dtype=torch.float64)).square()
    falls = turnable(found.turn[right].square(), budget)
    for radius, fallen in zip(how.grid, falls.tolist(), strict=True):
        left = torch.arange(int(right.sum())) >= fallen
        it.add("certified", name, answer, "all pixels together, by L", radius, left)
        it.add("certified", name, answer, "own radii, by L", radius, right & (found.turn > constant * radius))
    for radius in (0.0, *how.radii):
        point = _attacked(model, sample, radius, how, void)
        with torch.no_grad():
            after = model.logits(point[None])[0].argmax(0)
        it.add("attacked", name, answer, how.attack, radius, (after == label) & known)
        lost = right & (found.turn > constant * radius) & (after != label)
        it.add("lost", name, answer, how.attack, radius, lost)


def _common(votes: Votes, how: How) -> Iterator[tuple[str, float, Certificate, int]]:
    """Certificates that give all pixels one radius: name, radius, certificate, and how many may be wrong of it."""
    for tau in how.taus:
        one, several = SegCertify(tau, how.alpha), SegCertify(tau, how.alpha, "kfwer", how.k)
        yield f"SegCertify, τ = {tau:g}", one.radius(votes.sigma), one(votes), 0
        yield f"less {how.k - 1} errors, τ = {tau:g}", several.radius(votes.sigma), several(votes), how.k - 1


def _attacked(model: Segmenter | Smoothed, sample: Sample, radius: float, how: How, void: int) -> Tensor:
    """The image as an attack changes it, just inside a radius: (B, H, W)."""
    if not radius:
        return sample.image
    attack = sr.make_attack(how.attack, norm="l2", eps=radius * (1 - 1e-6), steps=how.steps)
    image, label = sample.image[None], sample.label[None]
    return attack(model, image, label, ids=(sample.id,), seed=how.seed, ignore_index=void).adversarial[0]


def _judged(
    model: Segmenter, noise: Noise, point: Tensor, copies: int, keys: sr.Randomness, guess: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """By fresh copies: class of most votes, class of the largest mean, votes for a guess and for its rival, (H, W)."""
    counts = torch.zeros((model.num_classes, *point.shape[1:]), dtype=torch.int32)
    means, asked = torch.zeros(counts.shape, dtype=torch.float64), confiding(model)
    one = torch.ones((), dtype=torch.int32)
    with torch.no_grad():
        for first in range(0, copies, 4):
            some = noise.copies(point, keys, first, min(4, copies - first))
            _, classes, probabilities = asked(some)
            counts.scatter_add_(0, classes, one.expand_as(classes))
            means += probabilities.sum(0)
    index = guess.unsqueeze(0)
    return counts.argmax(0), means.argmax(0), counts.gather(0, index)[0], counts.scatter(0, index, -1).amax(0)


def _lost(own: Certificate, hits: Tensor, rival: Tensor, radius: float, model: Segmenter, how: How) -> Tensor:
    """(H, W) bool: pixels certified at a radius for which another class is likelier beyond chance."""
    there = own.at(radius)
    tail = special.bdtr(hits.numpy(), (hits + rival).clamp_min(1).numpy(), 0.5) * (model.num_classes - 1)
    return there & (torch.from_numpy(tail) <= how.alpha / max(1, int(there.sum())))


def main(
    data: str,
    out: Path,
    smoothed: str = "",
    lipschitz: str = "",
    split: str = "test",
    size: str | None = None,
    stride: int = 1,
    limit: int = 8,
    radii: str = "0.1,0.2,0.3,0.4",
    until: float = 0.6,
    bins: int = 30,
    n0: int = 20,
    n: int = 300,
    alpha: float = 0.001,
    taus: str = "0.75,0.9",
    k: int = 100,
    attack: str = "flips",
    steps: int = 20,
    samples: int = 8,
    copies: int = 200,
    threads: int = 1,
    seed: int = 0,
    beside: Path | None = None,
) -> None:
    """Measure both sides and draw them.

    Args:
        data: As ``segradius certify --data``.
        out: Folder.
        smoothed: NAME@SIGMA=CARD, commas between them.
        lipschitz: NAME=CARD of networks whose constant is verified layer by layer, commas between them.
        split: Part of the data set.
        size: Height x width.
        stride: Only every stride-th image.
        limit: Only so many.
        radii: l2 lengths that the attack may use.
        until: Certificates are counted up to this radius.
        bins: At so many radii above 0.
        n0: Noisy copies that name the class of each pixel.
        n: Noisy copies that test it.
        alpha: Error rate of each certificate of an image.
        taus: Of SegCertify.
        k: Errors that the test against k errors keeps an image below.
        attack: Name of a white-box attack.
        steps: Of it.
        samples: Noisy copies behind its gradients.
        copies: Fresh ones that judge.
        threads: Of torch.
        seed: Seed.
        beside: Folder of an earlier run on the same images, which is drawn in the same figure.
    """
    torch.set_num_threads(threads)
    grid = tuple(round(until * place / bins, 9) for place in range(bins + 1))
    lengths = tuple(text.number("radii", each) for each in text.names(radii))
    tested = tuple(text.number("taus", each) for each in text.names(taus))
    how = How(lengths, grid, n0, n, alpha, tested, k, attack, steps, samples, copies, seed)
    opened = open_data(data, split=split, size=text.size(size), stride=stride, limit=limit)
    void, counted, seconds = opened.classes.ignore_index, Counted(), dict[str, float]()
    noisy = [_noisy(each) for each in text.names(smoothed)]
    exact = [_named(each) for each in text.names(lipschitz)]
    out.mkdir(parents=True, exist_ok=True)
    models = {card: load_model(card) for card in dict.fromkeys(card for *_, card in (*noisy, *exact))}
    constants = {card: lipschitz_bound(models[card], tuple(opened[0].image.shape[1:])).bound for _, card in exact}
    for place in range(len(opened)):
        sample = opened[place]
        counted.images.append(sample.id)
        counted.labelled.append(int((sample.label != void).sum()))
        for name, sigma, card in noisy:
            started = time.process_time()
            with models[card].frozen():
                by_noise(name, models[card], sigma, sample, how, void, counted)
            key = f"{name}, σ = {sigma:g}"
            seconds[key] = seconds.get(key, 0) + time.process_time() - started
        for name, card in exact:
            started = time.process_time()
            with models[card].frozen():
                by_constant(name, models[card], constants[card], sample, how, void, counted)
            seconds[name] = seconds.get(name, 0) + time.process_time() - started
        it = counted.sandwich()
        (out / "sandwich.csv").write_text(sandwich_csv(it), "utf-8")
        facts = {"data": data.partition(":")[0], "split": split, "size": size, "stride": stride, "images": place + 1}
        facts |= {"options": vars(how), "seconds": {name: round(each, 1) for name, each in seconds.items()}}
        (out / "sandwich.json").write_text(json.dumps(facts, indent=1, ensure_ascii=False) + "\n", "utf-8")
        print(f"{place + 1} of {len(opened)}", flush=True)
    title = f"{data.partition(':')[0]} {split}, {size}, n = {len(it.images)} images, seed {seed}"
    others = [] if beside is None else [read_sandwich((beside / "sandwich.csv").read_text("utf-8"))]
    picture(together([*others, it]), title, out, literature=data.partition(":")[0] == "cityscapes")
    print(table(it).markdown())


def picture(it: Sandwich, title: str, out: Path, *, literature: bool = False) -> None:
    """Draw both sides into a folder."""
    figure = draw_sandwich(it, title, literature=literature)
    for kind in ("svg", "png"):
        (out / f"sandwich.{kind}").write_bytes(as_file(figure, kind))


def tables(path: Path) -> list[Cells]:
    """Of a run's folder, or of one with several runs on the same images."""
    files = sorted(path.rglob("sandwich.csv"))
    return [table(together(read_sandwich(file.read_text("utf-8")) for file in files))]


def table(it: Sandwich) -> Cells:
    """At each attacked radius what the best certificate and the strongest attack leave of each answer."""
    rows = []
    for network, answer in it.answers:
        lost = it.of(network, answer, "lost")
        fell = {line.radius: sum(line.pixels) for lines in lost.values() for line in lines}
        attacked = {line.radius: share(line.pixels, it.labelled) for line in it.attacked(network, answer)}
        for radius, low, high in it.gaps(network, answer):
            ends = f"[{100 * attacked[radius].low:.1f}, {100 * attacked[radius].high:.1f}]"
            cells = (f"{radius:g}", f"{100 * low:.1f}", f"{100 * high:.1f} {ends}", f"{100 * (high - low):.1f}")
            rows.append((network, answer, *cells, str(fell.get(radius, ""))))
    header = ("network", "answer", "l2 radius", "certified %", "attacked %", "between, points", "lost")
    return Cells(f"PixAcc of {len(it.images)} images", header, rows)


def _named(given: str) -> tuple[str, str]:
    """NAME=CARD."""
    name, _, card = given.partition("=")
    if not card:
        raise sr.InputError(f"{given!r}; expected NAME=CARD")
    return name, card


def _noisy(given: str) -> tuple[str, float, str]:
    """NAME@SIGMA=CARD."""
    name, card = _named(given)
    name, _, sigma = name.partition("@")
    return name, text.number("σ", sigma), card


if __name__ == "__main__":
    auto_cli(main, as_positional=False)
