"""What a release must keep to: rules in a YAML file, each a bound on a figure, critical or advisory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Annotated, Any, Literal

from segradius.core.declared import Eps, Images, Length, Seed, check_fields, only_with
from segradius.core.errors import InputError, one_of, shown, unknown_name
from segradius.core.safe_yaml import read_yaml
from segradius.core.text import number, refuse_unknown
from segradius.evaluation.decisions import Bound
from segradius.metrics.intervals import LEAST

#: What a rule may be about, by where it is found.
ATTACKED = ("pixacc", "miou", "miou_image", "success", "dice", "iou", "accuracy", "drop", "pixacc_8bit", "miou_8bit")
CERTIFIED = ("certified", "abstained")
COUNTED = ("set_aside", "images")
SANITY = "sanity"
METRICS = (*ATTACKED, *CERTIFIED, *COUNTED, SANITY)
#: What sanity verdicts may be required to be: the grades that break the rule.
REQUIRED = {"no fail": ("fail",), "no warn": ("fail", "warn"), "pass": ("fail", "warn", "open")}

_Attacked = only_with(metric=ATTACKED)
_ByClass = only_with(metric=["dice", "iou", "accuracy"])


Answer = Literal["segcertify", "adaptive", "radii", "soft", "lipschitz", "recovery", "detection", "whole"]


@dataclass(frozen=True)
class Rule:
    """A bound on a figure.

    Args:
        metric: What it is about, of `METRICS`.
        require: A bound on an end of its interval, as ``low >= 0.6``, ``high <= 0.1`` or ``value >= 0.5``; of sanity
            ``no fail``, ``no warn`` or ``pass``.
        name: For people; made of the rest unless given.
        tier: ``critical`` rules decide, ``advisory`` ones warn.
        model: Label of a model of a study, or the spec of a run's; ``*`` stands for anything. All unless given.
        data: The same of data.
        seed: Of a measurement. All unless given.
        attack: ``clean``, ``worst`` of all at a budget, ``all``, or a label, in which ``*`` stands for anything.
        norm: Of the threat. All unless given.
        eps: Its budget. All unless given.
        of_class: Name of a class, in the file ``class``.
        answer: Name of a certificate: ``segcertify``, ``adaptive``, ``radii``, ``soft``, ``lipschitz``, ``recovery`` or
            ``detection``; or ``whole`` for what stays right of whole images beyond a radius. All rows unless given.
        radius: Beyond which pixels are to be certified, l2. Any unless given.
        check: Name of a sanity check. All unless given.
        min_images: With fewer nothing is decided; the policy's unless given.

    Example:
        >>> Rule("pixacc", "low >= 0.6", attack="clean").title
        'pixacc of clean: low >= 0.6'
        >>> Rule("pixac", "low >= 0.6")
        Traceback (most recent call last):
        segradius.core.errors.InputError: unknown metric 'pixac'; did you mean 'pixacc' or ...
    """

    metric: str
    require: str
    name: str = ""
    tier: Literal["critical", "advisory"] = "critical"
    model: str | None = None
    data: str | None = None
    seed: Seed | None = None
    attack: Annotated[str, _Attacked] = "worst"
    norm: Annotated[Literal["l1", "l2", "linf"] | None, _Attacked] = None
    eps: Annotated[Eps | None, _Attacked] = None
    of_class: Annotated[str | None, _ByClass] = None
    answer: Annotated[Answer | None, only_with(metric=CERTIFIED)] = None
    radius: Annotated[Length | None, only_with(metric=["certified"])] = None
    check: Annotated[str | None, only_with(metric=[SANITY])] = None
    min_images: Images | None = None

    def __post_init__(self) -> None:
        if self.metric not in METRICS:
            raise unknown_name("metric", str(self.metric), METRICS)
        check_fields(self, of_class="class")
        if self.metric == SANITY:
            one_of(REQUIRED, require=self.require)
        else:
            self.bound  # noqa: B018  # is read
        if self.metric == "accuracy" and self.of_class is None:
            raise InputError("class is not given; expected it beside the metric accuracy, which is that of a class")

    @property
    def bound(self) -> Bound:
        """What is required of the figure."""
        return Bound.read(self.require)

    @property
    def title(self) -> str:
        """For people."""
        if self.name:
            return self.name
        about = [f"of {self.attack}" if self.metric in ATTACKED else ""]
        about += [f"{name} {value:g}" for name, value in (("ε", self.eps), ("r", self.radius)) if value is not None]
        about += [str(each) for each in (self.norm, self.of_class, self.answer, self.check, self.model) if each]
        return f"{' '.join([self.metric, *filter(None, about)])}: {self.require}"


@dataclass(frozen=True)
class Policy:
    """What a release must keep to.

    Args:
        rules: At least one.
        min_images: With fewer no rule is decided that does not say otherwise.
    """

    rules: tuple[Rule, ...]
    min_images: Images = LEAST

    def __post_init__(self) -> None:
        check_fields(self)
        if not self.rules:
            raise InputError("the policy has no rules; expected at least one")

    def least(self, rule: Rule) -> int:
        """Images that a rule needs."""
        return self.min_images if rule.min_images is None else rule.min_images


def read_policy(file: str | Path) -> Policy:
    """The policy in a YAML file.

    Args:
        file: With ``rules``, a list of mappings of `Rule`'s arguments, and ``min_images``.

    Raises:
        InputError: It cannot be read, a key is unknown, or a value will not do; the message names the rule.
    """
    given = read_yaml(file, "the policy")
    where = f"the policy {file}"
    if not isinstance(given, Mapping):
        raise InputError(f"{where} is no mapping; expected rules, a list, and min_images")
    refuse_unknown(f"key of {where}", map(str, given), [each.name for each in fields(Policy)])
    rules = given.get("rules", [])
    if not isinstance(rules, Sequence) or isinstance(rules, str):
        raise InputError(f"rules of {where} is {shown(rules)}; expected a list")
    read = tuple(_rule(each, f"rule {number} of {where}") for number, each in enumerate(rules, 1))
    titles = [rule.title for rule in read]
    if twice := next((title for title in titles if titles.count(title) > 1), None):
        raise InputError(f"{where} has two rules {shown(twice)}; expected names that differ")
    return Policy(read, given.get("min_images", LEAST))


def _rule(given: object, where: str) -> Rule:
    known = {"class" if each.name == "of_class" else each.name: each.name for each in fields(Rule)}
    if not isinstance(given, Mapping):
        raise InputError(f"{where} is {shown(given)}; expected a mapping with metric and require")
    refuse_unknown(f"key of {where}", map(str, given), known)
    if lacking := [name for name in ("metric", "require") if name not in given]:
        raise InputError(f"{where} has no {' and no '.join(lacking)}; expected both metric and require")
    values: dict[str, Any] = {known[str(name)]: value for name, value in given.items()}
    try:
        for name in ("eps", "radius"):
            if isinstance(values.get(name), str):  # a fraction
                values[name] = number(name, values[name])
        return Rule(**values)
    except InputError as error:
        raise InputError(f"{where}: {error}") from error
