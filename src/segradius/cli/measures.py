"""The measurements of a study as the commands would carry them out: options read, models and images opened in turn."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

from segradius.cli.attack import AttackOptions, planned_attacks
from segradius.cli.certify import CheckOptions, SmoothingOptions, WayOptions, planned_certificates
from segradius.cli.certify_lipschitz import LipschitzOptions
from segradius.cli.certify_patch import PatchOptions
from segradius.cli.evaluate import planned_accuracy
from segradius.cli.options import DataOptions, ModelOptions, RunOptions, Subject
from segradius.cli.parser import call, said
from segradius.cli.surrogates import SurrogateOptions
from segradius.core import text
from segradius.core.contracts import Seen
from segradius.core.errors import InputError
from segradius.data.sample import SegmentationData
from segradius.evaluation.folders import RUNS
from segradius.evaluation.job import ModelChoice
from segradius.evaluation.study import CERTIFY, Asked, Study
from segradius.threats.budgets import budgets

T = TypeVar("T")
#: Of the options of attacks, those that a study has a key of its own for.
APART = ("attack", "plan", "norm", "eps")


@dataclass(frozen=True)
class _Attacked:
    """What a study may say of a model: its options, and on which network adversarial images for it are made."""

    model: ModelOptions
    made_on: SurrogateOptions


@dataclass(frozen=True)
class Measure:
    """A measurement of a study whose options were read, and with which nothing was opened yet.

    Args:
        asked: As the study has it.
        data: Its images.
        model: Its model.
        made_on: The network on which adversarial images are made, if it is another.
        run: Where and how.
        plan: What the command makes of an opened model and images.
    """

    asked: Asked
    data: DataOptions
    model: ModelOptions
    made_on: SurrogateOptions
    run: RunOptions
    plan: Callable[[Subject], Any]


def measures(study: Study, run: RunOptions) -> tuple[Measure, ...]:
    """All measurements of a study, their options read as the commands read them.

    Args:
        study: What is asked.
        run: How; its folder is that of the study, and its seed is not looked at.

    Raises:
        InputError: An option is unknown, or its value is not of its form; the message names the key of the study.
    """
    return tuple(_measure(study, asked, run) for asked in study.measurements)


def _measure(study: Study, asked: Asked, run: RunOptions) -> Measure:
    place = replace(run, out=str(run.folder / RUNS / asked.name), seed=asked.seed)
    with naming(study, f"data.{asked.data}"):
        data = group(DataOptions, dict(study.data[asked.data]) | dict(asked.images))
        _ = data.choice
    with naming(study, f"models.{asked.model}"):
        model = group(_Attacked, study.models[asked.model])
        model.made_on.check()
    return Measure(asked, data, model.model, model.made_on, place, PLANS[asked.kind](study, asked, place))


def _to_attack(study: Study, asked: Asked, run: RunOptions) -> Callable[[Subject], Any]:
    with naming(study, "options"):
        text.refuse_unknown("option of attacks", study.options, [n for n in _defaults(AttackOptions) if n not in APART])
        shared = group(AttackOptions, dict(study.options) | dict(study.budgets) | {"aim": asked.aim})
    with naming(study, "budgets"):
        _ = budgets(shared.norm, shared.eps)
    with naming(study, "attacks"):
        plans = shared.plans_of(asked.attacks)
    return lambda of: planned_attacks(of, plans, shared, run, asked.name)


def _to_certify(study: Study, asked: Asked, run: RunOptions) -> Callable[[Subject], Any]:
    with naming(study, CERTIFY):
        groups = (SmoothingOptions, LipschitzOptions, PatchOptions, CheckOptions)
        known = [name for each in groups for name in _defaults(each)]
        text.refuse_unknown("option of certify", asked.options, [*known, "limit", "stride"])
        smoothing, check = _group(SmoothingOptions, asked.options), _group(CheckOptions, asked.options)
        patch = _group(PatchOptions, asked.options)
        ways = WayOptions(smoothing, _group(LipschitzOptions, asked.options), patch)
        checking = check.checking(certain=ways.certain)
        if not ways.certain:
            smoothing.smoothing()  # what is wrong is told before anything is opened
        patch.way()
    return lambda of: planned_certificates(of, ways, checking, run, asked.name)


def _group(kind: Callable[..., T], given: Mapping[str, Any]) -> T:
    """A group of options of those given, which may be of others too."""
    return group(kind, {name: value for name, value in given.items() if name in _defaults(kind)})


def _to_evaluate(study: Study, asked: Asked, run: RunOptions) -> Callable[[Subject], Any]:
    return lambda of: planned_accuracy(of, run, asked.name)


PLANS: Mapping[str, Callable[[Study, Asked, RunOptions], Callable[[Subject], Any]]] = {
    "attack": _to_attack,
    "certify": _to_certify,
    "evaluate": _to_evaluate,
}


@dataclass
class Opener:
    """Opens what measurements name: images once, and a model again only if another one was opened since.

    Args:
        study: For messages.
    """

    study: Study
    _data: dict[DataOptions, SegmentationData] = field(default_factory=dict)
    _model: tuple[object, Seen, ModelChoice] | None = None

    def open(self, it: Measure) -> Any:
        """The measurement, planned; raises `InputError` where its model or images cannot be opened."""
        with naming(self.study, f"data.{it.asked.data}"):
            if it.data not in self._data:
                self._data[it.data] = it.data.open()
        data = self._data[it.data]
        key = (it.asked.model, it.asked.seed)
        with naming(self.study, f"models.{it.asked.model}"):
            it.model.check(data.classes.names)
            if self._model is None or self._model[0] != key:
                self._model = None  # let it go before the next one takes memory
                seen, described = it.model.open(data, it.run.device, it.asked.seed)
                down = it.model.network.allow_download
                self._model = (key, *it.made_on.applied(seen, described, allow_download=down))
        _, seen, chosen = self._model
        with naming(self.study, it.asked.name):
            return it.plan(Subject(seen, it.run.described(chosen), data, it.data.choice))


def group(kind: Callable[..., T], given: Mapping[str, Any]) -> T:
    """A group of options from a mapping of their names, those not given having their defaults.

    Args:
        kind: The dataclass, or a command; options of groups in it stand beside its own.
        given: The options.

    Raises:
        InputError: One is unknown or missing, or not of its form.

    Example:
        >>> group(DataOptions, {"data": "scenes", "limit": 3}).choice.limit
        3
        >>> group(DataOptions, {"data": "scenes", "limits": 3})
        Traceback (most recent call last):
        segradius.core.errors.InputError: unknown option 'limits'; did you mean 'limit'...? Known: data, labels, ...
    """
    defaults = _defaults(kind)
    text.refuse_unknown("option", map(str, given), defaults)
    options = defaults | dict(given)
    for name, value in options.items():
        if value is inspect.Parameter.empty:
            raise InputError(f"{name} is missing")
    return call(kind, options)


def _defaults(kind: Any) -> dict[str, Any]:
    """Of every option of a group and of the groups in it; `inspect.Parameter.empty` where there is none."""
    from segradius.core.declared import kinds_of

    found: dict[str, Any] = {}
    parameters = inspect.signature(kind).parameters
    for name, each in kinds_of(kind).items():
        inner = isinstance(each, type) and hasattr(each, "__dataclass_fields__")
        found |= _defaults(each) if inner else {said(name): parameters[name].default}
    return found


@contextmanager
def naming(study: Study, key: str) -> Iterator[None]:
    """Errors that name the key of the study."""
    try:
        yield
    except InputError as error:
        raise type(error)(f"{study.file}: {key}: {error}") from error
