"""What an evaluation runs, and the hash of everything that determines its numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from segradius.evaluation.identity import conflict, fingerprint_of, plain

TARGET_ONLY = ("scores_only", "answers", "input")


@dataclass(frozen=True)
class ModelChoice:
    """Which network is attacked, as it was asked for.

    Args:
        spec: The model as `segradius.models.load_model` takes it.
        weights: File of its weights.
        num_classes: Number of classes, where the spec does not tell.
        normalisation: Normalisation, where the spec does not tell.
        outputs: ``"logits"`` or ``"probabilities"``, where the spec does not tell.
        fingerprint: `segradius.models.fingerprint` of the loaded network, so that retrained weights under an old name
            are noticed; `segradius.targets.fingerprint` of a target.
        scores_only: Whether it was a target, of which nothing but scores were used.
        answers: How the target's answers were changed, as `segradius.targets.parse_answers` takes it.
        input: How the images were, as `segradius.targets.parse_inputs` takes it.
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
    """

    spec: str
    split: str | None = None
    size: tuple[int, int] | None = None
    protocol: str | None = None
    limit: int | None = None
    stride: int = 1


@dataclass(frozen=True)
class AttackPlan:
    """One attack in one threat model.

    Args:
        name: Registered name, with ``cr_`` in front to guide it by the certified radius.
        norm: ``"l1"``, ``"l2"`` or ``"linf"``.
        eps: Budget ε > 0, in the unit of images in [0, 1], over all 3·H·W values.
        options: Options of the attack, defaults included where they are known.
    """

    name: str
    norm: str
    eps: float
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def threat(self) -> tuple[str, float]:
        """The norm and the budget."""
        return self.norm, self.eps


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
    target: str | None = None
    seed: int = 0

    def as_dict(self) -> dict[str, Any]:
        """The experiment as plain numbers, strings, lists and dicts."""
        described: dict[str, Any] = plain(asdict(self))
        # Without these the experiments of networks are those of earlier versions.
        described["model"] = {k: v for k, v in described["model"].items() if v or k not in TARGET_ONLY}
        return described

    @property
    def identity(self) -> str:
        """A hash of everything that determines the results as a whole, equal on every machine."""
        return fingerprint_of(self.as_dict())

    def key(self, plan: AttackPlan) -> str:
        """A hash of everything that determines the result of ``plan`` on an image of a given id.

        Which other attacks or images are in the experiment does not matter, so those can be added later.
        """
        described = self.as_dict()
        del described["attacks"], described["data"]["limit"], described["data"]["stride"]
        if self.model.fingerprint:  # says more of the weights than the name of their file
            del described["model"]["weights"]
        return fingerprint_of(described | {"attack": plain(asdict(plan))})

    def extends(self, earlier: Mapping[str, Any]) -> str | None:
        """What stands in the way of adding this experiment to an earlier one; None where nothing does.

        Nothing may differ, save that there may be more attacks and more images.

        Args:
            earlier: `as_dict` of the earlier experiment.
        """
        mine, theirs = self.as_dict(), dict(earlier)
        attacks, before = mine.pop("attacks"), theirs.pop("attacks", [])
        if differing := conflict(mine, theirs):
            return differing
        dropped = [attack for attack in before if attack not in attacks]
        return f"the earlier run also has {_title(dropped[0])}" if dropped else None


def _title(attack: Mapping[str, Any]) -> str:
    return f"{attack['name']} ({attack['norm']}, ε = {attack['eps']:g})"
