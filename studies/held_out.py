r"""Attacks beside one another at equal passes: networks, images and budgets as given, a line for each image.

    python studies/held_out.py --models unet=unet/last.yaml,hard=hard/last.yaml --data folder:microscopy --split test \
        --limit 24 --eps l2=0.5,1.5,linf=4/255 --passes 50,300 --out runs/microscopy \
        --attacks flips pgd cospgd sea 'mce=sea,only=mce' 'masked=pgd,weighting=still_correct'
    python studies/held_out.py --judge runs --against flips

An attack is ``LABEL=NAME,option=value`` or ``NAME,option=value``; ``only=MEMBER`` takes one member of an ensemble. Its
steps are the most that cost no more passes than ``--passes``, those of all members of an ensemble together. A pass is
one forward and one backward, or two forwards, as the noisy looks for the radius are; judging iterates is free for all.

Lines are appended to ``lines.csv`` as batches end. The same command goes on where it was stopped, and what is there is
not run again, whatever else is asked for beside it.

``--judge`` prints a table for each data set, norm, ε and budget. Differences are of PixAcc, all pixels pooled, and of
MIoU, a mean over networks, in points, of an attack less the one that ``--against`` names: above 0, the latter is
stronger. Intervals are the jackknife's over images, for these networks; "drawn" is over networks too, as if they were
drawn from many. An ensemble's PixAcc is its worst member of each image, its MIoU that of members chosen for MIoU;
members are attacks of their names, too, in the tables of what they spent.
"""

from __future__ import annotations

import argparse
import csv
import functools
import io
import itertools
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import segradius as sr
from segradius.attacks import ATTACKS, Attack, Ensemble, Result, attack_options
from segradius.core import text
from segradius.data import Sample, open_data
from segradius.metrics import Counts, count, miou, worst_miou
from segradius.models import Segmenter, load_model
from segradius.paper import Estimate, Term, estimate
from segradius.report import Cells
from segradius.threats import parse_eps

#: Attacks of this library, which no other one has.
OURS = ("flips", "balanced", "margins", "auto", "flip_pgd", "flip_apgd")
loaded = functools.cache(load_model)
LINES, CLEAN, JUDGING = "lines.csv", "clean", "judging"
KINDS: dict[str, Callable[[str], Any]] = {"str": str, "float": float, "int": int}
BY_CLASS = ("intersection", "predicted", "labelled")


@dataclass(frozen=True)
class Asked:
    """An attack as it is asked for: its label, its name, its options, and the member that is meant, or "" for all."""

    label: str
    name: str
    options: tuple[tuple[str, Any], ...] = ()
    only: str = ""

    @staticmethod
    def of(given: str) -> Asked:
        """From ``[LABEL=]NAME[,option=value…]``; `InputError` where the steps are given.

        Example:
            >>> Asked.of("mce=sea,only=mce")
            Asked(label='mce', name='sea', options=(), only='mce')
        """
        head, options = text.parse_options(given, f"attack {given!r}")
        label, _, name = head.rpartition("=")
        if "steps" in options:
            raise sr.InputError(f"attack {given!r} gives steps; they follow from --passes")
        only = str(options.pop("only", ""))
        return Asked(label or name, name, tuple(options.items()), only)

    def made(self, norm: str, eps: float, steps: int) -> Attack:
        """The attack with so many steps."""
        count = {"steps": steps} if "steps" in attack_options(self.name) else {}  # fgsm is one step
        whole = sr.make_attack(self.name, norm=norm, eps=eps, **count, **dict(self.options))
        if not self.only:
            return whole
        members: Mapping[str, Any] = whole.method.members if isinstance(whole.method, Ensemble) else {}
        if self.only not in members:
            raise sr.InputError(f"{self.name} has no member {self.only!r}; it has {', '.join(members) or 'none'}")
        return Attack(f"{self.name}.{self.only}", members[self.only])

    def __str__(self) -> str:
        only = [f"only={self.only}"] if self.only else []
        return ",".join([self.name, *(f"{key}={value}" for key, value in self.options), *only])


@dataclass(frozen=True)
class Line:
    """An image under an attack, or under a member of an ensemble ("" for the whole of it).

    ``asked`` is what the label of the attack stands for, ``passes`` what it could spend and ``spent`` what this line
    did. ``right`` is pixels, ``right8`` after rounding to 8 bits; the last three are pixels by class: right, called it,
    and of it. Void pixels are in none.
    """

    network: str
    data: str
    attack: str
    member: str
    asked: str
    norm: str
    eps: float
    passes: int
    spent: int
    seed: int
    image: str
    right: int
    right8: int
    intersection: tuple[int, ...]
    predicted: tuple[int, ...]
    labelled: tuple[int, ...]

    @property
    def key(self) -> tuple[Any, ...]:
        """What is not run twice."""
        return self.network, self.data, self.attack, self.norm, self.eps, self.passes, self.seed, self.image


HEADER = [f.name for f in fields(Line)]


def spent(found: Result) -> int:
    """Passes over the first image, rounded up: half of all forward and backward ones but those that judge."""
    books = (book for purpose, book in found.ledger.passes.items() if purpose != JUDGING)
    return -(-sum(int(book[:, 0].sum()) for book in books) // 2)


@functools.cache
def steps_of(asked: Asked, norm: str, passes: int) -> int:
    """The most steps that cost no more than some passes; `InputError` where a single one does.

    Example:
        >>> steps_of(Asked.of("pgd"), "l2", 50), steps_of(Asked.of("sea"), "l2", 50)
        (50, 16)
    """
    small = sr.wrap(nn.Sequential(nn.Conv2d(3, 4, 1), nn.Conv2d(4, 2, 1)), num_classes=2, normalisation="none")
    images = torch.full((1, 3, 16, 16), 0.5)
    labels = small.logits(images).argmax(1)
    bare = replace(asked, options=tuple(each for each in asked.options if each[0] != "layer"))  # of the true network

    def cost(steps: int) -> int:
        return spent(bare.made(norm, 1e-6, steps)(small, images, labels))

    steps = passes
    while (price := cost(steps)) > passes:
        if steps == 1:
            raise sr.InputError(f"one step of {asked.label} costs {price} passes, more than {passes}")
        steps = max(1, min(steps - 1, steps * passes // price))
    while price < cost(steps + 1) <= passes:
        price, steps = cost(steps + 1), steps + 1
    return steps


def measure(
    model: Segmenter,
    asked: Asked | None,
    samples: Sequence[Sample],
    about: tuple[str, str],
    setting: tuple[str, float, int, int],
    void: int,
) -> Iterator[Line]:
    """Lines of a batch under an attack, after those of its members; without an attack, of the clean images.

    Args:
        model: That is attacked.
        asked: The attack.
        samples: Images of one size.
        about: Labels of network and data.
        setting: Norm, ε, passes, seed.
        void: Label that does not count.
    """
    (norm, eps, passes, seed), ids = setting, [s.id for s in samples]
    images, labels = (torch.stack([getattr(s, what) for s in samples]) for what in ("image", "label"))
    if asked is None:
        tables = {"": (model.logits(images).argmax(1), images, 0)}
    else:
        attack = asked.made(norm, eps, steps_of(asked, norm, passes))
        found = attack(model, images, labels, ids=ids, seed=seed, ignore_index=void)
        parts = {**found.members, "": found}  # the whole last: where it is, all are
        tables = {name: (each.prediction, each.adversarial, spent(each)) for name, each in parts.items()}
    for member, (prediction, seen, price) in tables.items():
        coarse = model.logits((seen * 255).round() / 255).argmax(1)
        counts = count(prediction, labels, model.num_classes, void).images
        right8 = ((coarse == labels) & (labels != void)).sum((1, 2)).tolist()
        for image, pixels, rounded in zip(ids, counts, right8, strict=True):
            names = (asked.label, member, str(asked)) if asked else (CLEAN, "", CLEAN)
            right, by_class = sum(pixels.intersection), map(tuple, pixels[:3])
            yield Line(*about, *names, norm, eps, passes, price, seed, image, right, rounded, *by_class)


def run(
    models: Mapping[str, str],
    asked: Sequence[Asked],
    samples: Sequence[Sample],
    data: str,
    settings: Iterable[tuple[str, float, int, int]],
    path: Path,
    *,
    void: int = 255,
    batch: int = 8,
) -> None:
    """Append to a file what is not in it; `InputError` where a label is in it with another attack.

    Args:
        models: Texts for `load_model`, by label.
        asked: Attacks.
        samples: Images.
        data: Label of the data set.
        settings: Norm, ε, passes and seed of each.
        path: The file.
        void: Label that does not count.
        batch: Images at a time.
    """
    there = read(path)
    meant, done = {line.attack: line.asked for line in there}, {line.key for line in there if not line.member}
    for each in (each for each in asked if meant.get(each.label, str(each)) != str(each)):
        raise sr.InputError(f"{path} has {meant[each.label]} under the label {each.label}, not {each}")
    work = [(CLEAN, None, ("", 0.0, 0, 0), network) for network in models]
    work += [(a.label, a, s, network) for s, network, a in itertools.product(settings, models, asked)]
    for label, attack, setting, network in work:
        norm, eps, passes, seed = setting
        if attack and norm not in ATTACKS.facts(attack.name.removeprefix("cr_"))["norms"]:
            continue  # a table of that norm has no row of it
        left = [s for s in samples if (network, data, label, norm, eps, passes, seed, s.id) not in done]
        for first in range(0, len(left), batch):
            some = left[first : first + batch]
            write(measure(loaded(models[network]), attack, some, (network, data), setting, void), path)
        if left:
            print(f"{network}: {label}, {norm} {eps:g}, {passes} passes, {len(left)} images", file=sys.stderr)


def write(lines: Iterable[Line], path: Path) -> None:
    """Append lines, all of them at once."""
    rows = [[" ".join(map(str, v)) if isinstance(v, tuple) else v for v in astuple(line)] for line in lines]
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a", encoding="utf-8", newline="") as file:
        whole = io.StringIO()
        csv.writer(whole, lineterminator="\n").writerows(rows if file.tell() else [HEADER, *rows])
        file.write(whole.getvalue())


def read(path: Path) -> list[Line]:
    """Lines of a file; a last one that was cut short is taken out of the file."""
    whole = path.read_text(encoding="utf-8") if path.exists() else ""
    if whole and not whole.endswith("\n"):
        whole = whole[: whole.rfind("\n") + 1]
        path.write_text(whole, encoding="utf-8")
    kinds = [KINDS.get(str(f.type), lambda value: tuple(map(int, value.split()))) for f in fields(Line)]
    rows = list(csv.reader(whole.splitlines()))
    if rows and rows[0] != HEADER:
        raise sr.InputError(f"{path} begins with {','.join(rows[0])}; expected {','.join(HEADER)}")
    found = [Line(*(kind(value) for kind, value in zip(kinds, row, strict=True))) for row in rows[1:]]
    return list({(line.key, line.member): line for line in found}.values())


@dataclass(frozen=True, eq=False)
class Seen:
    """An attack on S networks and I images: pixels (S, I) float64, and counts by class of each network.

    Of an ensemble the counts are those of the members that make its MIoU least.
    """

    right: Tensor
    right8: Tensor
    labelled: Tensor
    counts: tuple[Counts, ...]

    @property
    def miou(self) -> float:
        """Mean over the networks, in per cent."""
        return 100 * sum(map(miou, self.counts)) / len(self.counts)


Group = tuple[str, tuple[str, ...], Mapping[str, Seen]]
"""Title, networks, and attacks by label."""


def groups(lines: Sequence[Line]) -> list[Group]:
    """By data set, norm, ε, passes and seed, as they come; of images that all attacks have on all networks."""
    clean = {(line.network, line.data, line.image): line for line in lines if line.attack == CLEAN}
    own = [replace(each, attack=each.member, member="", passes=each.spent) for each in lines if each.member]
    settings: dict[tuple[Any, ...], dict[tuple[str, str], dict[tuple[str, str], Line]]] = {}
    for line in (each for each in (*lines, *own) if each.attack != CLEAN):
        parts = settings.setdefault((line.data, line.norm, line.eps, line.passes, line.seed), {(CLEAN, ""): {}})
        parts.setdefault((line.attack, line.member), {})[line.network, line.image] = line
        parts[CLEAN, ""][line.network, line.image] = clean[line.network, line.data, line.image]
    found = []
    for (data, norm, eps, passes, seed), parts in settings.items():
        networks, images = (tuple(dict.fromkeys(each)) for each in zip(*parts[CLEAN, ""], strict=True))
        images = tuple(i for i in images if all((n, i) in part for part in parts.values() for n in networks))
        title = f"{data}, {norm} {eps:.4g}, {passes} passes, seed {seed}, n = {len(images)}: {', '.join(networks)}"
        if not images:
            print(f"{title}: some attack is not there yet", file=sys.stderr)
            continue
        whole = {part: [[lines[n, i] for i in images] for n in networks] for part, lines in parts.items()}
        labels = [label for label, member in whole if not member]
        found.append((title, networks, {label: _seen(whole, label) for label in labels}))
    return found


def _seen(tables: Mapping[tuple[str, str], Sequence[Sequence[Line]]], label: str) -> Seen:
    whole = tables[label, ""]
    members = [lines for (name, member), lines in tables.items() if name == label and member] or [whole]
    by_network = [[_counts(member[k]) for member in members] for k in range(len(whole))]
    rows = [[(line.right, line.right8, sum(line.labelled)) for line in each] for each in whole]
    pixels = torch.tensor(rows, dtype=torch.float64).unbind(-1)
    return Seen(*pixels, tuple(Counts.chosen(each, worst_miou(each)) for each in by_network))


def _counts(lines: Sequence[Line]) -> Counts:
    return Counts(*(torch.tensor([getattr(line, name) for line in lines]) for name in BY_CLASS))


def pixacc_less(one: Seen, other: Seen, networks: Sequence[int], *, drawn: bool = False) -> Estimate:
    """Difference of PixAcc pooled over some networks, in points; ``drawn``: its interval is over networks too."""
    sides = [[part[networks] for part in (each.right, each.labelled)] for each in (one, other)]
    if not drawn:  # an image of all networks is one, and networks stay as they are
        sides = [[part.sum(0, keepdim=True) for part in side] for side in sides]
    return estimate([Term("networks", *side) for side in sides], lambda s: s[..., 0] - s[..., 1]).scaled(100)


def miou_less(one: Seen, other: Seen) -> Estimate:
    """Difference of MIoU, a mean over the networks, in points; its interval is over images."""
    tables = [*one.counts, *other.counts]
    parts = [(t.intersection[:, [c]].T, t.union[:, [c]].T) for t in tables for c in range(t.union.shape[1])]

    def finish(shares: Tensor) -> Tensor:  # absent classes are NaN
        sides = shares.unflatten(-1, (2, len(one.counts), -1)).nanmean(-1).mean(-1)
        return sides[..., 0] - sides[..., 1]

    return estimate([Term("networks", *(p.double() for p in pair)) for pair in parts], finish).scaled(100)


def table(group: Group, against: str) -> Cells:
    """A row for each attack."""
    title, networks, attacks = group
    base, every, several = attacks[against], list(range(len(networks))), networks if len(networks) > 1 else ()
    rows = []
    for name, each in attacks.items():
        shares = [f"{100 * float(part.sum() / each.labelled.sum()):.1f}" for part in (each.right, each.right8)]
        gaps = [pixacc_less(each, base, part) for part in (every, *([k] for k in every if several))]
        if several:
            gaps.insert(1, pixacc_less(each, base, every, drawn=True))
        ends = ["" if each is base else _ends(gap) for gap in (*gaps, miou_less(each, base))]
        rows.append((name, *shares, *ends[:-1], f"{each.miou:.1f}", ends[-1]))
    drawn = (f"less {against}, drawn",) if several else ()
    header = ("attack", "PixAcc", "8 bits", f"less {against}", *drawn, *several, "MIoU", f"less {against}")
    return Cells(title, header, rows)


def _ends(found: Estimate) -> str:
    return f"{found.value:+.1f} [{found.low:+.1f}, {found.high:+.1f}]" if found.known else f"{found.value:+.1f}"


def short(found: Sequence[Group], against: str) -> Cells:
    """A row for each group: an attack beside the strongest of those that others have published."""
    rows = []
    for title, networks, attacks in found:
        base, every = attacks[against], list(range(len(networks)))
        others = {name: each for name, each in attacks.items() if name not in {CLEAN, against, *OURS}}
        if others:
            pixels = min(others, key=lambda name: float(others[name].right.sum()))
            classes = min(others, key=lambda name: others[name].miou)
            mine, least = (100 * float(e.right.sum() / e.labelled.sum()) for e in (base, others[pixels]))
            gaps = [_ends(pixacc_less(base, others[pixels], every)), _ends(miou_less(base, others[classes]))]
            which = (f"{least:.1f} ({pixels})", gaps[0], f"{base.miou:.1f}", f"{others[classes].miou:.1f} ({classes})")
            head, _, names = title.partition(", seed ")
            rows.append((head, names.partition(", n = ")[2], f"{mine:.1f}", *which, gaps[1]))
    header = ("setting", "n: networks", against, "best other", "difference", "MIoU", "best other", "difference")
    return Cells(f"{against} beside the best of the others", header, rows)


def tables(path: Path, against: str = "flips", digest: str = "") -> list[Cells]:
    """Tables of a folder of runs, or of a run: a group that has the attack ``against`` is a table.

    Args:
        path: The folder.
        against: What the others are compared with.
        digest: Anything for one short table alone, a row for each group.
    """
    files = sorted({*path.glob(LINES), *path.glob(f"*/{LINES}")})
    found = [g for g in groups([line for file in files for line in read(file)]) if against in g[2]]
    return [short(found, against)] if digest else [table(g, against) for g in found]


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, or judge; the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--judge", type=Path, help="print the tables of this folder of runs, and measure nothing")
    parser.add_argument("--against", default="flips", help="label of the attack that the others are compared with")
    parser.add_argument("--models", help="label=model, commas between them")
    parser.add_argument("--data", help="images and labels, as for segradius attack")
    parser.add_argument("--attacks", nargs="+", default=["flips", "pgd"], help="[LABEL=]NAME[,option=value…] each")
    texts: dict[str, Any] = {"split": None, "size": None, "eps": "l2=0.5", "passes": "50", "out": "held-out"}
    numbers = {"stride": 1, "limit": None, "batch-size": 8, "threads": 1, "seed": 0}
    for name, default in (texts | numbers).items():
        parser.add_argument(f"--{name}", default=default, type=int if name in numbers else str)
    given = parser.parse_args(arguments)
    if given.judge:
        print(*(each.markdown() + "\n" for each in tables(given.judge, given.against)), sep="\n")
        return 0
    if not (given.models and given.data):
        parser.error("expected --models and --data, or --judge")
    torch.set_num_threads(given.threads)
    data = open_data(given.data, split=given.split, size=text.size(given.size), stride=given.stride, limit=given.limit)
    samples, void = [data[place] for place in range(len(data))], data.classes.ignore_index
    asked = [Asked.of(each) for words in given.attacks for each in words.split()]
    budgets = [(norm, parse_eps(eps)) for norm, each in text.pairs(given.eps) for eps in each.split(",")]
    settings = [(*budget, int(p), given.seed) for p in given.passes.split(",") for budget in budgets]
    about = "{} {}x{}".format(data.name, *samples[0].label.shape)
    models = {label: card for label, _, card in (pair.partition("=") for pair in text.names(given.models))}
    path = Path(given.out) / LINES
    run(models, asked, samples, about, settings, path, void=void, batch=given.batch_size)
    return 0


if __name__ == "__main__":
    sys.exit(main())
