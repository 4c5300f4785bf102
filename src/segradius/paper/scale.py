"""A scale: the networks, images and numbers with which the paper is re-made, from ``scales/NAME.yaml``."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from segradius.core.errors import InputError, is_whole, shown
from segradius.core.text import refuse_unknown
from segradius.paper.spec import ROOM, Spec, names, replaced

KEYS = ("about", "given", "data", "networks", "values")


@dataclass(frozen=True)
class Network:
    """A network of a scale.

    Attributes:
        label: What it is called.
        family: Its architecture: pspnet, psanet, hrnet_ocr.
        role: What it was trained as: plain, fast_adt, ….
        seed: That it is trained with.
        data: Label of the images that it is measured on.
        model: As ``--model`` takes it.
        norm: Of a defence's attacks.
        train: Recipe by which it is trained; None where its weights are published.
        start: Label of the network that its training starts from.
        weights: File of its published weights.
        source: Where that is to be had, and how it is converted.
        sha256: Of the file, where it is known.
        options: Further options of ``--model``: normalisation, outputs, ….
    """

    label: str
    family: str
    role: str
    seed: int
    data: str
    model: str
    norm: str | None = None
    train: str | None = None
    start: str | None = None
    weights: str | None = None
    source: str = ""
    sha256: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def texts(self) -> list[str]:
        """What may name what was given."""
        return [self.model, self.weights or "", *(each for each in self.options.values() if isinstance(each, str))]


#: Of a network; what else it has is an option of the model.
OWN = tuple(each.name for each in fields(Network) if each.name not in ("label", "options"))
#: By which blocks choose networks.
BY = ("family", "role", "norm", "seed", "data")


@dataclass(frozen=True)
class Scale:
    """At what size the paper is re-made.

    Attributes:
        name: Of the scale: full, light or demo.
        about: It, in a sentence.
        given: Names that ``--given`` fills, ``{NAME}`` in texts.
        data: By label, options of images as a study has them.
        networks: By label.
        values: By name, what ``$NAME`` stands for in blocks.
        file: Where it is from, for messages.
    """

    name: str
    about: str
    given: tuple[str, ...]
    data: Mapping[str, Mapping[str, Any]]
    networks: Mapping[str, Network]
    values: Mapping[str, Any] = field(default_factory=dict)
    file: str = "the scale"

    @staticmethod
    def read(name: str, room: Path = ROOM) -> Scale:
        """That of a file.

        Args:
            name: ``full``, ``light`` or ``demo``.
            room: Folder that ``scales`` is in.

        Raises:
            InputError: There is none, or a key is unknown, missing or wrong; the message names file and key.
        """
        it = Spec.read("scales", name, room)
        it.refuse_unknown(KEYS)
        data = {label: _options(it, "data", label, own) for label, own in it.mapping("data").items()}
        networks = {
            label: _network(it, label, _options(it, "networks", label, own))
            for label, own in it.mapping("networks").items()
        }
        found = Scale(name, it.text("about"), it.texts("given"), data, networks, it.mapping("values"), it.file)
        for network in networks.values():
            with it.under(f"networks.{network.label}"):
                refuse_unknown("data", [network.data], data)
                refuse_unknown("network", [network.start] if network.start else [], networks)
                refuse_unknown("recipe", [network.train] if network.train else [], names("recipes", room))
        return found

    def filled(self, given: Mapping[str, str]) -> Scale:
        """The scale with what was given in the place of its names.

        Args:
            given: By name, the folder or file.

        Raises:
            InputError: The scale asks for nothing of a name.
        """
        refuse_unknown(f"name of --given at scale {self.name}", given, self.given)

        def fill(text: str) -> str:
            for name, value in given.items():
                text = text.replace(f"{{{name}}}", value)
            return text

        networks = {
            label: replace(
                each,
                model=fill(each.model),
                weights=None if each.weights is None else fill(each.weights),
                options=replaced(each.options, fill),
            )
            for label, each in self.networks.items()
        }
        return replace(self, data={label: replaced(own, fill) for label, own in self.data.items()}, networks=networks)

    @property
    def lacking(self) -> dict[str, str]:
        """By label of images and networks, the name that has to be given for them and was not."""
        found = {label: name for label, own in self.data.items() if (name := self._unfilled(own))}
        for label, each in self.networks.items():
            if name := self._unfilled(each.texts) or found.get(each.data, ""):
                found[label] = name
        return found

    def without(self, labels: Collection[str]) -> Scale:
        """The scale without some images and networks."""
        data = {label: own for label, own in self.data.items() if label not in labels}
        networks = {label: each for label, each in self.networks.items() if label not in labels}
        return replace(self, data=data, networks=networks)

    def _unfilled(self, value: Any) -> str:
        found: list[str] = []
        replaced(value, lambda text: found.extend(re.findall(r"\{(\w+)\}", text)))
        return next((name for name in found if name in self.given), "")


def chosen(networks: Mapping[str, Network], by: Mapping[str, Any], file: str) -> tuple[Network, ...]:
    """Those networks of a scale that a block asks for.

    Args:
        networks: By label.
        by: By key of a network a value or several; ``labels``; ``each: {first: seed}`` for one of each kind alone.
        file: For messages.

    Raises:
        InputError: A key is unknown.

    Example:
        >>> one, two = (Network(f"a-{seed}", "a", "plain", seed, "scenes", "a") for seed in (0, 1))
        >>> [it.label for it in chosen({"a-0": one, "a-1": two}, {"role": "plain", "each": {"first": "seed"}}, "b")]
        ['a-0']
    """
    refuse_unknown(f"key of {file}: networks", by, (*BY, "labels", "each"))
    found = list(networks.values())
    if "labels" in by:
        found = [each for each in found if each.label in _several(by["labels"])]
    for key in BY:
        if key in by:
            found = [each for each in found if getattr(each, key) in _several(by[key])]
    if "each" not in by:
        return tuple(found)
    if by["each"] != {"first": "seed"}:
        raise InputError(f"{file}: networks.each is {shown(by['each'])}; expected {{first: seed}}")
    firsts: dict[tuple[str, str, str | None, str], Network] = {}
    for each in sorted(found, key=lambda it: it.seed):
        firsts.setdefault((each.family, each.role, each.norm, each.data), each)
    return tuple(each for each in found if each in firsts.values())


def _several(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [value]


def _options(it: Spec, key: str, label: str, own: Any) -> dict[str, Any]:
    if not isinstance(own, Mapping):
        it.wrong(f"{key}.{label}", own, "a mapping of options")
    return {str(name): value for name, value in own.items()}


def _network(it: Spec, label: str, own: dict[str, Any]) -> Network:
    for needed in ("family", "role", "data", "model"):
        if not isinstance(own.get(needed), str):
            it.wrong(f"networks.{label}.{needed}", own.get(needed), "a text")
    if not is_whole(own.get("seed", 0)):
        it.wrong(f"networks.{label}.seed", own["seed"], "a whole number of at least 0")
    if own.get("train") and own.get("weights"):
        raise InputError(f"{it.file}: networks.{label} has both train and weights; expected one of them")
    if own.get("start") and not own.get("train"):
        raise InputError(f"{it.file}: networks.{label} has start and no train; expected the recipe of its training")
    rest = {name: value for name, value in own.items() if name not in OWN}
    given = {"seed": 0} | {name: value for name, value in own.items() if name in OWN and value is not None}
    return Network(label, **given, options=rest)
