"""What is run: jobs, which are a task of a model over images, and what determines, and so identifies, their numbers."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import PurePath
from typing import Any, Literal, Protocol

import numpy as np
import torch

from segradius.core.contracts import Seen
from segradius.core.errors import InputError, one_of
from segradius.core.secrets import without_secrets
from segradius.data.protocols import void_of
from segradius.evaluation.attack import Attacking, AttackPlan
from segradius.evaluation.batch import Batch, Bench, Clean
from segradius.evaluation.rows import CLEAN, Rows

UNLESS_GIVEN = (
    *("scores_only", "answers", "input", "dtype", "threshold", "channels", "output", "speed"),
    *("surrogates", "surrogate_weights", "surrogate_fingerprints", "surrogate_mean", "denoiser"),
)

#: What is meant where nothing was said.
UNSAID = {"model.speed": "plain", "data.order": "given", "data.void": "ignore"}


@dataclass(frozen=True)
class ModelChoice:
    """Which network is attacked, as it was asked for.

    Args:
        spec: The model as `segradius.models.load_model` takes it.
        weights: File of its weights.
        num_classes: Number of classes, where the spec does not tell.
        normalisation: Normalisation, where the spec does not tell.
        outputs: What it returns, as `segradius.models.load_model` takes it, where the spec does not tell.
        fingerprint: `segradius.models.fingerprint` of the loaded network, so that retrained weights under an old name
            are noticed; `segradius.targets.fingerprint` of a target.
        scores_only: Whether it was a target, of which nothing but scores were used.
        answers: How the target's answers were changed, as `segradius.targets.parse_answers` takes it.
        input: How the images were, as `segradius.targets.parse_inputs` takes it.
        dtype: To which the network's parameters were turned; None for their own.
        threshold: Of yes/no channels; None where it was not given.
        channels: Which channels of the output count; None likewise.
        output: Which entry of the output is meant; None likewise.
        speed: ``fast`` where gradients may be of reduced precision, which changes numbers; None otherwise.
        surrogates: Networks on which adversarial images are made in its place, as `segradius.models.load_model` takes
            them; None for none.
        surrogate_weights: File of the weights of each, None for one that needs none; None where none needs any.
        surrogate_fingerprints: Of each, as ``fingerprint`` is.
        surrogate_mean: Of several, what their mean is taken of: see `segradius.models.averaged`.
        denoiser: What every image goes through first, as `segradius.models.load_model` takes it; None for nothing, or
            what the spec's card says.
    """

    spec: str
    weights: str | None = None
    num_classes: int | None = None
    normalisation: str | None = None
    outputs: str | None = None
    fingerprint: str = ""
    scores_only: bool = False
    answers: str | None = None
    input: str | None = None
    dtype: str | None = None
    threshold: float | None = None
    channels: tuple[int, ...] | None = None
    output: str | None = None
    speed: Literal["fast"] | None = None
    surrogates: tuple[str, ...] | None = None
    surrogate_weights: tuple[str | None, ...] | None = None
    surrogate_fingerprints: tuple[str, ...] | None = None
    surrogate_mean: Literal["logits", "probabilities"] | None = None
    denoiser: str | None = None


@dataclass(frozen=True)
class DataChoice:
    """Which images are attacked, as `segradius.data.open_data` takes them.

    Args:
        spec: The data set, for example ``"voc:PATH"``.
        split: Its split; the data set's own default where None.
        size: Height and width to resize to.
        protocol: Name of an evaluation protocol, instead of ``size``.
        limit: Only the first so many images.
        stride: Only every stride-th image.
        labels: ``given`` with them, or ``predicted``: what the model makes of each image before any attack, so that
            figures tell stability in place of accuracy.
        order: ``spread`` where ``limit`` takes images from everywhere.
        void: What pixels without a class count as, ``ignore`` for nothing or ``background``; None, which does not stay,
            is what the protocol says.
    """

    spec: str
    split: str | None = None
    size: tuple[int, int] | None = None
    protocol: str | None = None
    limit: int | None = None
    stride: int = 1
    labels: Literal["given", "predicted"] = "given"
    order: Literal["given", "spread"] = "given"
    void: Literal["ignore", "background"] | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "void", self.void or void_of(self.protocol))
        one_of(("given", "predicted"), labels=self.labels)
        one_of(("given", "spread"), order=self.order)
        one_of(("ignore", "background"), void=str(self.void))

    @property
    def predicted(self) -> bool:
        """Whether the model's own predictions stand for labels."""
        return self.labels == "predicted"


class Task(Protocol):
    """What can be done with images that were judged `Clean`; a frozen dataclass of plain data.

    A new one is a file like `segradius.evaluation.attack`; the driver knows none by name.
    """

    @property
    def described(self) -> Mapping[str, Any]:
        """What determines its numbers, beside model, data and seed."""

    @property
    def title(self) -> str:
        """For people."""

    @property
    def unit(self) -> str:
        """What its steps are, in the plural; empty where they are not counted."""

    @property
    def total_steps(self) -> int:
        """Over each image, at most."""

    @property
    def one_by_one(self) -> bool:
        """Whether it takes batches of one image only."""

    @property
    def differentiates(self) -> bool:
        """Whether most of its passes are differentiated in the images."""

    @property
    def precision(self) -> torch.dtype | None:
        """Of most of its passes; None for the network's own."""

    def check(self, model: Seen) -> None:
        """Raise `InputError` unless the model offers what it needs."""

    def run(self, batch: Batch, bench: Bench) -> Rows:
        """Do it."""


@dataclass(frozen=True)
class Job:
    """A task of a model over images.

    Attributes:
        model: The model.
        data: The images.
        task: What is done.
        seed: Of all random numbers.
    """

    model: ModelChoice
    data: DataChoice
    task: Task
    seed: int = 0

    @cached_property
    def key(self) -> str:
        """A hash of everything that determines the result on an image of a given id.

        Which other jobs or images are run beside it does not matter, so those can be added later.
        """
        if not self.task.described:
            return CLEAN
        decisive = described(self.model, self.data) | plain(self.task.described) | {"seed": self.seed}
        del decisive["data"]["limit"], decisive["data"]["stride"]
        decisive["data"].pop("order", None)
        if self.model.fingerprint:  # says more of the weights than the name of their file
            del decisive["model"]["weights"]
        if self.model.surrogate_fingerprints and all(self.model.surrogate_fingerprints):
            decisive["model"].pop("surrogate_weights", None)
        return fingerprint_of(decisive)


class Measurement(Protocol):
    """What goes into one folder: jobs of one model over the same images; `Experiment`, or `Certification`."""

    @property
    def model(self) -> ModelChoice:
        """The model."""

    @property
    def data(self) -> DataChoice:
        """The images."""

    @property
    def seed(self) -> int:
        """Of all random numbers."""

    @property
    def clean(self) -> Clean:
        """The task that comes first."""

    @property
    def jobs(self) -> tuple[Job, ...]:
        """What follows, in order."""

    def as_dict(self) -> dict[str, Any]:
        """As plain numbers, strings, lists and dicts."""

    def extends(self, earlier: Mapping[str, Any]) -> str | None:
        """What keeps it from going on with an earlier one, which is given by its `as_dict`; None where nothing does."""


@dataclass(frozen=True)
class Experiment:
    """Attacks on a model over images. Batch size, device and output folder are not part of it: they change no number.

    Example:
        >>> one = Experiment(ModelChoice("demo"), DataChoice("scenes"), (AttackPlan("pgd", "l2", 1.5),))
        >>> more = Experiment(ModelChoice("demo"), DataChoice("scenes", limit=3), (AttackPlan("pgd", "l2", 1.5),))
        >>> one.key(one.attacks[0]) == more.key(more.attacks[0])  # results of an image can be shared
        True
        >>> more.extends(one.as_dict())  # not without dropping images
        'data.limit is 3, and null in the earlier run'
    """

    model: ModelChoice
    data: DataChoice
    attacks: tuple[AttackPlan, ...]
    aim: str | None = None
    seed: int = 0

    def as_dict(self) -> dict[str, Any]:
        """The experiment as plain numbers, strings, lists and dicts."""
        labelled = [{} if plan.label == plan.name else {"label": plan.label} for plan in self.attacks]
        attacks = [plan.described | label for plan, label in zip(self.attacks, labelled, strict=True)]
        more = {"attacks": plain(attacks), "target": self.aim, "seed": self.seed}
        return described(self.model, self.data) | more

    @property
    def identity(self) -> str:
        """A hash of everything that determines the results as a whole, equal on every machine."""
        return fingerprint_of(self.as_dict())

    @property
    def clean(self) -> Clean:
        """What comes first."""
        return Clean(self.aim)

    @property
    def jobs(self) -> tuple[Job, ...]:
        """One for each attack."""
        return tuple(Job(self.model, self.data, Attacking(plan, self.aim), self.seed) for plan in self.attacks)

    def key(self, plan: AttackPlan) -> str:
        """Of the job of an attack."""
        return Job(self.model, self.data, Attacking(plan, self.aim), self.seed).key

    def extends(self, earlier: Mapping[str, Any]) -> str | None:
        """What stands in the way of adding this experiment to an earlier one; None where nothing does.

        Nothing may differ, save that there may be more attacks and more images.

        Args:
            earlier: `as_dict` of the earlier experiment.
        """
        mine, theirs = self.as_dict(), dict(earlier)
        attacks, before = mine.pop("attacks"), theirs.pop("attacks", None)
        if before is None:
            return "that of segradius certify"
        if differing := conflict(mine, theirs):
            return differing
        kept = [_unlabelled(attack) for attack in attacks]
        dropped = [attack for attack in before if _unlabelled(attack) not in kept]
        return _missing(dropped[0], attacks) if dropped else None


def described(model: ModelChoice, data: DataChoice) -> dict[str, Any]:
    """Model and data as plain numbers, strings, lists and dicts; secrets are left out, and change no number."""
    # Without what is for few of them, experiments of networks are described as those of earlier versions.
    chosen = {name: value for name, value in plain(asdict(model)).items() if value or name not in UNLESS_GIVEN}
    unsaid = (("labels", "given"), ("order", "given"), ("void", "ignore"))
    images = {name: value for name, value in plain(asdict(data)).items() if (name, value) not in unsaid}
    found: dict[str, Any] = without_secrets({"model": chosen, "data": images})
    return found


def _unlabelled(attack: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in attack.items() if name != "label"}


def _missing(earlier: Mapping[str, Any], attacks: Sequence[Mapping[str, Any]]) -> str:
    """That an attack of the earlier run is none of these, or how the one of its title differs."""
    title = _title(earlier)
    for attack in attacks:
        if _title(attack) == title and (differing := conflict(attack["options"], earlier["options"])):
            return f"of {title}, {differing}"
    return f"the earlier run also has {title}"


def _title(attack: Mapping[str, Any]) -> str:
    return f"{attack.get('label', attack['name'])} ({attack['norm']}, ε = {attack['eps']:g})"


def plain(value: Any) -> Any:
    """``value`` made of dicts, lists, strings, numbers, booleans and None only, as JSON holds it.

    Functions become their qualified names. Raises `InputError` for what has no lasting description.

    Example:
        >>> plain({"weights": (1.0, 2.0), "loss": max})
        {'weights': [1.0, 2.0], 'loss': 'builtins.max'}
    """
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Mapping):
        return {str(name): plain(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [plain(inner) for inner in value]
    if isinstance(value, torch.Tensor | np.ndarray | np.generic):
        return value.tolist()
    if isinstance(value, torch.dtype | PurePath):
        return str(value)
    if callable(value) and hasattr(value, "__qualname__"):
        return f"{value.__module__}.{value.__qualname__}"
    raise InputError(f"{value!r} cannot be part of an experiment: give a number, a string, or a list or dict of those")


def fingerprint_of(described: Mapping[str, Any]) -> str:
    """A short hash of a description, equal on every machine."""
    return hashlib.sha256(json.dumps(described, sort_keys=True).encode()).hexdigest()[:16]


def conflict(described: Mapping[str, Any], earlier: Mapping[str, Any]) -> str | None:
    """What keeps an experiment from going on with an earlier one; None where nothing does.

    Nothing may differ, save that there may be more images, and weights under another name that are the same.

    Args:
        described: The experiment, with ``model`` and ``data`` as `ModelChoice` and `DataChoice` have them.
        earlier: The earlier one.

    Example:
        >>> conflict({"seed": 1, "data": {"limit": None}}, {"seed": 0, "data": {"limit": 3}})
        'seed is 1, and 0 in the earlier run'
        >>> conflict({"seed": 0, "data": {"limit": None}}, {"seed": 0, "data": {"limit": 3}})
    """
    mine, theirs = _flat(described), _flat(without_secrets(earlier))  # of a version that kept them
    if mine.get("model.fingerprint") and mine["model.fingerprint"] == theirs.get("model.fingerprint"):
        mine.pop("model.weights", None), theirs.pop("model.weights", None)
    if mine.get("model.surrogate_fingerprints") == theirs.get("model.surrogate_fingerprints"):
        mine.pop("model.surrogate_weights", None), theirs.pop("model.surrogate_weights", None)
    content = {"smoothing.region": "the mask of the region"}
    if all(mine.get(name) == theirs.get(name) for name in ("model.spec", "model.weights")):
        content["model.fingerprint"] = str(mine.get("model.weights") or f"the model {mine.get('model.spec')}")
    if mine.get("model.surrogates") == theirs.get("model.surrogates"):
        content["model.surrogate_fingerprints"] = "a surrogate"
    limit, floor = mine.pop("data.limit", None), theirs.pop("data.limit", None)
    for name in sorted(mine.keys() | theirs.keys(), key=lambda name: ("fingerprint" in name, name)):
        if mine.get(name) != theirs.get(name):
            now, then = (json.dumps(_said(each, name)) for each in (mine, theirs))
            told = f"{name} is {now}, and {then} in the earlier run"
            return f"{content[name]} changed: {told}" if name in content else told
    if limit is not None and (floor is None or limit < floor):
        return f"data.limit is {json.dumps(limit)}, and {json.dumps(floor)} in the earlier run"
    return None


def _said(flat: Mapping[str, Any], name: str) -> Any:
    return UNSAID.get(name) if flat.get(name) is None else flat[name]


def _flat(described: Mapping[str, Any]) -> dict[str, Any]:
    """One level: ``{"data": {"limit": 3}}`` becomes ``{"data.limit": 3}``."""
    flat: dict[str, Any] = {}
    for name, value in described.items():
        if isinstance(value, Mapping):
            flat |= {f"{name}.{inner}": part for inner, part in value.items()}
        else:
            flat[name] = value
    return flat
