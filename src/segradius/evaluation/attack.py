"""The task `Attacking`: which attacks, what a model sees after them, and what was changed in the images."""

from __future__ import annotations

import inspect
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar, cast

import torch
from torch import Tensor
from torch.nn import functional

from segradius.attacks.base import Attack, Result
from segradius.attacks.make import attack_options, make_attack, refuse_untaken, taken_by
from segradius.attacks.presets import preset_options
from segradius.core.bands import bands_of
from segradius.core.contracts import LOGITS, Model, Seen, surrogate_of
from segradius.core.declared import Eps, read
from segradius.core.digests import file_digest
from segradius.core.errors import InputError, unknown_name
from segradius.data.sample import SegmentationData, class_counts
from segradius.evaluation.attack_rows import attack_results
from segradius.evaluation.batch import Batch, Bench, is_priced, judge, outside
from segradius.evaluation.gallery import extremes, remaining
from segradius.evaluation.journal import digest
from segradius.evaluation.rounded import rounded_results
from segradius.evaluation.rows import Exhibit, ImageResult, Kept, Rows
from segradius.evaluation.trace import image_traces
from segradius.objectives.weightings import balanced_weights
from segradius.threats.threat import NORMS, make_threat, norm_name
from segradius.threats.weighted import check_number_of_weights, read_weights, written

#: Options that every attack takes, which are the threat's and no recipe's.
SHARED = {"projection": "euclidean", "band_weights": None, "lattice": None}

#: Where a patch lies by default, which says nothing where there is none.
PLACE = ("place", "search")

#: The record of an image whose gradient was exactly zero at every step though there were pixels left to turn.
STILL = b'{"gradient": "zero"}'


@dataclass(frozen=True)
class AttackPlan:
    """One attack in one threat model.

    Args:
        name: Registered name, with ``cr_`` in front to guide it by the certified radius.
        norm: ``"l1"``, ``"l2"`` or ``"linf"``.
        eps: Budget ε > 0, in the unit of images in [0, 1], over all B·H·W values.
        options: Options of the attack, defaults included where they are known; ``band_weights``, as text, and
            ``lattice`` if given.
        label: What it is called in tables, apart from the same attack with other options; the name unless given. It
            changes no number.
    """

    name: str
    norm: str
    eps: float
    options: Mapping[str, Any] = field(default_factory=dict)
    label: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "label", self.label or self.name)

    @property
    def described(self) -> dict[str, Any]:
        """What determines its numbers; of a perturbation from a file its content too."""
        found = {name: value for name, value in asdict(self).items() if name != "label"}
        content = file_digest(Path(str(self.options.get("delta", ""))))
        return found | ({"delta": content} if content else {})

    @property
    def threat(self) -> tuple[str, float]:
        """The norm and the budget."""
        return self.norm, self.eps

    @property
    def weights(self) -> str:
        """Those of the bands, as they are written; empty where all are 1."""
        return str(self.options.get("band_weights") or "")

    @property
    def patch(self) -> str:
        """The square that an attack keeps to, as "0.01, search"; empty where it may change the whole image."""
        share = self.options.get("patch")
        return "" if share is None else f"{share:g}, {self.options.get('place', 'search')}"

    @property
    def lattice(self) -> int | None:
        """L where adversarial images are of whole levels, {0, 1/L, …, 1}; None where any values are allowed."""
        return self.options.get("lattice")

    def lengths(self, delta: Tensor) -> dict[str, Tensor]:
        """‖δ‖ of each image in every norm, of w ⊙ δ where bands have weights; (N, B, H, W) → (N,)."""
        return {name: make_threat(name, band_weights=self.weights or None).length(delta) for name in NORMS}


@dataclass(frozen=True)
class Attacking:
    """An attack on the images.

    Args:
        plan: Which.
        aim: As `segradius.evaluation.batch.Clean` has it.
    """

    plan: AttackPlan
    aim: str | None = None

    one_by_one: ClassVar[bool] = False
    precision: ClassVar[torch.dtype | None] = None

    @property
    def described(self) -> Mapping[str, Any]:
        """What determines its numbers, beside model, data and seed."""
        return {"attack": self.plan.described, "target": self.aim}

    @property
    def title(self) -> str:
        """For people."""
        weights = f" w={self.plan.weights}" if self.plan.weights else ""
        patch = f" patch={self.plan.patch}" if self.plan.patch else ""
        levels = f" k/{self.plan.lattice}" if self.plan.lattice else ""
        return f"{self.plan.label} {self.plan.norm} ε={self.plan.eps:.4g}{weights}{patch}{levels}"

    @property
    def attack(self) -> Attack:
        """Ready to run; raises `InputError` for an unknown attack or norm, or an option out of range."""
        return make_attack(self.plan.name, norm=self.plan.norm, eps=self.plan.eps, **self.plan.options)

    @property
    def total_steps(self) -> int:
        """Steps, or queries, over each image."""
        return self.attack.total_steps

    @property
    def unit(self) -> str:
        """What its steps are."""
        return "queries" if self.asks else "steps"

    @property
    def asks(self) -> bool:
        """Whether it is a black-box attack, whose steps are queries."""
        return LOGITS not in self.attack.method.needs

    @property
    def differentiates(self) -> bool:
        """Whether it is a white-box attack."""
        return not self.asks

    def check(self, model: Seen) -> None:
        """Raise `InputError` unless the model offers what the attack needs, and has a band for each weight."""
        self.attack.check_model(model)
        if self.aim is not None:
            self.attack.check_aim()
        if self.plan.weights and (bands := bands_of(model)) is not None:
            check_number_of_weights(read_weights(self.plan.weights), bands)

    def run(self, batch: Batch, bench: Bench) -> Rows:
        """Attack a batch. Of a model with a price all is kept, and nothing judged a second time."""
        model, target = bench.model, bench.target(self.aim, batch)
        place = bench.checkpoints if self.asks else None
        if bench.checkpoints is not None and surrogate_of(model) is not None and not self.asks:
            bench.checkpoints.begin(f"{bench.key} {digest(batch.ids)}")  # the verdict, which is paid for once
        journal = place.journal(bench.key, batch.ids, batch.images, batch.labels) if place else None
        started = time.perf_counter()
        result = self.attack(
            cast(Model, model),
            batch.images,
            batch.labels,
            ids=batch.ids,
            seed=bench.seed,
            target=target,
            ignore_index=batch.ignore_index,
            progress=bench.progress,
            journal=journal,
        )
        seconds = (time.perf_counter() - started) / len(batch.ids)
        free = not is_priced(model)
        again = batch.outside(result.covered, judge(model, result.adversarial)[0]) if free else None
        result = outside(result, batch)
        rounded = rounded_results(model, batch, result, target, self.plan.lengths) if free else {}
        found = attack_results(result, batch, model.num_classes, target, again, seconds, self.plan.lengths)
        kept = replace(
            _kept(result, batch, bench, remaining(found, targeted=self.aim is not None)),
            records={image: STILL for image in _still(result, found)},
            confusions=batch.confusions(result.prediction, bench),
            rounded=rounded,
        )
        return Rows(bench.key, found, kept, journal=journal.name if journal else None)


def _kept(result: Result, batch: Batch, bench: Bench, left: Mapping[str, float]) -> Kept:
    """What is shown, and what may be by what is left; of a model with a price everything, as it was paid for."""
    traces = dict(zip(batch.ids, image_traces(result), strict=True)) if result.trace is not None else {}
    priced, before = is_priced(bench.model), dict(zip(batch.ids, batch.prediction, strict=True))
    extreme = () if priced else [image for end in extremes(left, bench.gallery) for image in end]
    whole = {image for image in batch.ids if priced or image in bench.shown or image in extreme}
    seen = zip(batch.ids, result.adversarial.float(), result.prediction, strict=True)
    kept = {image: (x, prediction) for image, x, prediction in seen if image in whole}
    return Kept(
        {image: x for image, (x, _) in kept.items()},
        {image: prediction for image, (_, prediction) in kept.items()},
        traces,
        gallery={image: Exhibit(left[image], before[image]) for image in extreme},
    )


def _still(result: Result, found: Sequence[ImageResult]) -> list[str]:
    """Images in which the attack had nothing to follow, though not all was done."""
    still = [False] * len(found) if result.still is None else result.still.tolist()
    left = [each.valid and each.hit < each.eligible for each in found]
    return [each.image for each, zero, more in zip(found, still, left, strict=True) if zero and more]


def make_plans(
    names: Sequence[str] | Mapping[str, Mapping[str, Any]],
    budgets: Sequence[tuple[str, float]],
    options: Mapping[str, Any] | None = None,
    preset: str | None = None,
) -> tuple[AttackPlan, ...]:
    """Every attack in every threat model, each with those of ``options`` that it takes, and its defaults for the rest.

    Args:
        names: Attacks; or variants of attacks by label, the attack's name under ``attack`` and options of its own
            beside it, which go before ``options``.
        budgets: Pairs of norm and ε.
        options: Options by name, or by attack and name as in ``sea.steps``: for that attack and its ``cr_`` form alone,
            before those for all. Of a variant, by its label alone. None values are as if not given.
        preset: Of `segradius.attacks.PRESETS`: holds where nothing is given, in the place of defaults.

    Raises:
        InputError: For an unknown attack or norm, an option that none of the attacks takes, a bad value, or two
            variants that are the same.

    Example:
        >>> plain, guided = make_plans(["pgd", "cr_pgd"], [("l2", 1.5)], {"samples": 4, "steps": 10})
        >>> plain.options["steps"], guided.options["samples"], "samples" in plain.options
        (10, 4, False)
        >>> [plan.options["steps"] for plan in make_plans(["pgd", "sea"], [("l2", 1.5)], {"steps": 9, "sea.steps": 99})]
        [9, 99]
        >>> variants = {"short": {"attack": "pgd", "steps": 5}, "default": {"attack": "pgd"}}
        >>> [(plan.label, plan.options["steps"]) for plan in make_plans(variants, [("l2", 1.5)], {"steps": 9})]
        [('short', 5), ('default', 9)]
    """
    given = {name: value for name, value in (options or {}).items() if value is not None}
    variants = names if isinstance(names, Mapping) else {name: {"attack": name} for name in names}
    takes = {label: _defaults(own["attack"]) for label, own in variants.items()}
    _check_taken(given, takes, {label: own["attack"] for label, own in variants.items()})
    for label, own in variants.items():
        refuse_untaken(label, [option for option in own if option != "attack"], takes[label], [own["attack"]])
    plans = tuple(
        AttackPlan(
            own["attack"],
            norm,
            eps,
            _options(
                takes[label] | (preset_options(preset, own["attack"], norm, eps) if preset else {}),
                _for_attack(label, given, takes[label], own),
            ),
            label,
        )
        for norm, eps in dict.fromkeys((norm_name(norm), read("eps", Eps, eps)) for norm, eps in budgets)
        for label, own in variants.items()
    )
    for option, named in (("band_weights", "band_weights"), ("patch", "patches")):
        if len({one.options.get(option) for one in plans}) > 1:
            told = " and ".join(dict.fromkeys(f"{one.label} ({one.options.get(option) or 'none'})" for one in plans))
            raise InputError(f"{named} differ between attacks, {told}; expected one threat model: run them apart")
    for k, plan in enumerate(plans):
        try:
            make_attack(plan.name, norm=plan.norm, eps=plan.eps, **plan.options)
        except InputError as error:
            raise (InputError(f"{plan.label}: {error}") if isinstance(names, Mapping) else error) from None
        for other in plans[:k]:
            if other.described == plan.described:
                raise InputError(f"{other.label} and {plan.label} are the same attack with the same options")
    return plans


def _options(defaults: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Options, without weights, lattice and patch where there are none; weights in one form, as JSON has no inf."""
    found = {**defaults, **given}
    if found.get("lattice") is None:
        found.pop("lattice", None)
    if found.get("patch") is None:
        found = {name: value for name, value in found.items() if (name, value) not in (("patch", None), PLACE)}
    weights = read_weights(found.pop("band_weights", None))
    return found | ({"band_weights": written(weights)} if weights else {})


def with_class_weights(
    plans: Sequence[AttackPlan], data: SegmentationData, num_classes: int, *, predicted: bool = False
) -> tuple[AttackPlan, ...]:
    """The plans with class-balancing weights counted in ``data``, where an attack takes them and has none yet.

    Args:
        plans: Attacks.
        data: The images; those that cannot be read count nowhere.
        num_classes: Classes of the model.
        predicted: Whether its own predictions are the labels: nobody has counted those, and an attack without weights
            balances each image by itself.
    """
    lacking = [plan for plan in plans if plan.options.get("class_weights", ()) is None]
    if predicted or not lacking:
        return tuple(plans)
    counts = class_counts(data, readable_only=True)
    weights = balanced_weights(functional.pad(counts, (0, num_classes - len(counts))))
    return tuple(
        replace(plan, options={**plan.options, "class_weights": weights}) if plan in lacking else plan for plan in plans
    )


def _check_taken(given: Mapping[str, Any], takes: Mapping[str, Mapping[str, Any]], attacks: Mapping[str, str]) -> None:
    """Raise `InputError` for an option that no attack takes; options and attacks by label."""
    for option in given:
        if any(_for_attack(label, {option: 0}, own) for label, own in takes.items()):
            continue
        place, _, word = option.rpartition(".")
        asked = [label for label in takes if place in ("", label, label.removeprefix("cr_"))]
        known = {known for label in asked or takes for known in takes[label]}
        why = taken_by(word, known, dict.fromkeys(attacks[label] for label in asked)) if asked else ""
        why = why or f": {unknown_name('option', option, known)}"
        raise InputError(f"none of the attacks {', '.join(takes)} takes {option!r}{why}")


def _for_attack(
    label: str, given: Mapping[str, Any], known: Mapping[str, Any], own: Mapping[str, Any] = MappingProxyType({})
) -> dict[str, Any]:
    """The given options that an attack takes; its own go before those for all, and those by its label before these."""
    found = {option: value for option, value in given.items() if option in known}
    found |= {option: value for option, value in own.items() if option in known}
    for prefix in dict.fromkeys((label.removeprefix("cr_"), label)):
        named = {option.removeprefix(f"{prefix}."): value for option, value in given.items()}
        found |= {o: v for o, v in named.items() if o in known and f"{prefix}.{o}" in given}
    return found


def _defaults(name: str) -> dict[str, Any]:
    """Options that an attack takes, with their defaults."""
    return SHARED | {o: p.default for o, p in attack_options(name).items() if p.default is not inspect.Parameter.empty}
