"""A study: models × data × tasks × budgets × seeds, read from YAML, and the measurements that it expands to."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

from segradius.core import text
from segradius.core.declared import Seed, read
from segradius.core.errors import InputError, shown, unknown_name
from segradius.core.names import safe_name
from segradius.core.safe_yaml import read_yaml
from segradius.evaluation.transfers import MADE_ON, with_transfers

#: Of the file, in the order of the documentation.
KEYS = ("models", "transfer", "data", "seeds", "budgets", "attacks", "options", "certify", "sweeps", "clean")
#: Of a certification beside the options of ``segradius certify``: fewer images than the other measurements have.
IMAGES = ("limit", "stride")
#: What stands before the dot in a sweep over certifications.
CERTIFY = "certify"

Options = Mapping[str, Any]
Kind = Literal["attack", "certify", "evaluate"]


@dataclass(frozen=True)
class Asked:
    """A measurement of a study, as it is asked for: what goes into one folder.

    Attributes:
        name: Of the measurement, and of its folder; changes with nothing that is added to the study.
        kind: Which command would carry it out.
        model: Label of the model.
        data: Label of the images.
        seed: Of all random numbers.
        attacks: Of the kind attack: by label, the attack's name under ``attack`` and options of its own.
        aim: Of the kind attack: as ``--aim`` has it.
        options: Of the kind certify: those of ``segradius certify``.
        images: Likewise: ``limit`` and ``stride``, where they are not those of the data.
    """

    name: str
    kind: Kind
    model: str
    data: str
    seed: int
    attacks: Mapping[str, Options] = field(default_factory=dict)
    aim: str | None = None
    options: Options = field(default_factory=dict)
    images: Options = field(default_factory=dict)

    @property
    def as_dict(self) -> dict[str, Any]:
        """As ``study.json`` has it."""
        return {
            "name": self.name,
            "folder": f"runs/{self.name}",
            "kind": self.kind,
            "model": self.model,
            "data": self.data,
            "seed": self.seed,
        }


@dataclass(frozen=True)
class Study:
    """What is measured, by label; the options are those of the commands, under their names.

    Args:
        models: By label, options of a model: ``model`` or ``target``, ``weights``, ``normalisation``, …; one with
            ``from`` is attacked by adversarial images of another network, and nothing else is measured of it.
        data: By label, options of images: ``data``, ``split``, ``size``, ``limit``, ….
        seeds: Each gives measurements of its own.
        budgets: ``norm`` and ``eps`` of the attacks.
        attacks: By label, ``attack`` and options of that one, as ``--plan`` has them; ``aim`` too.
        options: Of all attacks.
        certifications: Options of certifications, none or some.
        clean: Whether images are judged unattacked where no attack does that.
        given: All that, as it was given.
        file: Where it is from, for messages.

    Example:
        >>> study = Study.of({"models": {"demo": "demo"}, "data": {"scenes": "scenes:24x32"}, "attacks": ["pgd"],
        ...                   "certify": {"n": 200, "limit": 3}, "sweeps": {"certify.sigma": [0.1, 0.25]}})
        >>> [each.name for each in study.measurements]
        ['demo-scenes-s0', 'demo-scenes-s0-certify-sigma0.1', 'demo-scenes-s0-certify-sigma0.25']
    """

    models: Mapping[str, Options]
    data: Mapping[str, Options]
    seeds: tuple[int, ...] = (0,)
    budgets: Options = field(default_factory=dict)
    attacks: Mapping[str, Options] = field(default_factory=dict)
    options: Options = field(default_factory=dict)
    certifications: tuple[Options, ...] = ()
    clean: bool = False
    given: Options = field(default_factory=dict, repr=False)
    file: str = "the study"

    @staticmethod
    def read(path: str | Path) -> Study:
        """From a YAML file; raises `InputError` as `of` does, or where it cannot be read."""
        return Study.of(read_yaml(path, "the study"), str(path))

    @staticmethod
    def of(given: Any, file: str = "the study") -> Study:
        """From what the YAML file holds.

        Args:
            given: Its value.
            file: Its name, for messages.

        Raises:
            InputError: A key is unknown or missing, or a value is not of its form; the message names the key.
        """
        if not isinstance(given, Mapping):
            raise InputError(f"{file} is {shown(given)}; expected a mapping with models, data and what is measured")
        text.refuse_unknown(f"key of {file}", map(str, given), KEYS)
        for needed in ("models", "data"):
            if not given.get(needed):
                raise InputError(f"{file}: {needed} is missing; expected a label and what it stands for, for each")
        variants, certifications = _swept(given, file)
        found = Study(
            with_transfers(_labelled(given["models"], "models", "model", file), given.get("transfer"), file),
            _labelled(given["data"], "data", "data", file),
            _seeds(given.get("seeds", [0]), file),
            _mapping(given.get("budgets"), "budgets", file, ("norm", "eps")),
            variants,
            _mapping(given.get("options"), "options", file),
            certifications,
            _clean(given.get("clean", False), file),
            dict(given),
            file,
        )
        if not (found.attacks or found.certifications or found.clean):
            raise InputError(f"{file} asks for nothing; expected attacks, certify or clean: true")
        if not found.attacks and (label := next((one for one, own in found.models.items() if MADE_ON in own), None)):
            raise InputError(f"{file}: {label} is attacked by images of another network; expected attacks")
        _ = found.measurements  # checks their names
        return found

    @property
    def measurements(self) -> tuple[Asked, ...]:
        """All, those of one model together.

        Raises:
            InputError: Two have the same name, as folders go.
        """
        found: dict[str, Asked] = {}
        for each in self._expanded():
            other = found.setdefault(each.name.casefold(), each)
            if other is not each:
                raise InputError(
                    f"{self.file}: two measurements would be in the folder {each.name}: {_differ(other, each)}"
                )
        return tuple(found.values())

    def _expanded(self) -> Iterator[Asked]:
        for model, seed, data in itertools.product(self.models, self.seeds, self.data):
            one = Asked(f"{safe_name(model)}-{safe_name(data)}-s{seed}", "evaluate", model, data, seed)
            aims: dict[str | None, dict[str, Options]] = {}
            for label, own in self.attacks.items():
                attack = {name: value for name, value in own.items() if name != "aim"}
                aims.setdefault(own.get("aim", self.options.get("aim")), {})[label] = attack
            if self.clean and None not in aims and MADE_ON not in self.models[model]:
                yield one
            for aim, attacks in aims.items():
                name = one.name if aim is None else f"{one.name}-aim-{safe_name(str(aim))}"
                yield replace(one, name=name, kind="attack", attacks=attacks, aim=None if aim is None else str(aim))
            for options in () if MADE_ON in self.models[model] else self.certifications:
                images = {name: options[name] for name in IMAGES if name in options}
                own = {name: value for name, value in options.items() if name not in (*IMAGES, "named")}
                name = f"{one.name}-certify-{options['named']}"
                yield replace(one, name=name, kind="certify", options=own, images=images)


def variants(given: Mapping[str, Any], file: str = "the study") -> dict[str, tuple[str, Options]]:
    """The attacks of a study by the label that each variant has, with its label without sweeps and the values of those.

    Args:
        given: What its file holds.
        file: Its name, for messages.

    Raises:
        InputError: As `Study.of` does.

    Example:
        >>> variants({"attacks": ["cr_pgd"], "sweeps": {"cr_pgd.samples": [1, 8]}})
        {'cr_pgd samples=1': ('cr_pgd', {'samples': 1}), 'cr_pgd samples=8': ('cr_pgd', {'samples': 8})}
    """
    sweeps = _sweeps(given.get("sweeps"), file)
    return {
        f"{label}{_told(values)}": (label, values)
        for label in _attacks(given.get("attacks"), file)
        for values in _combined(label, sweeps)
    }


def _labelled(given: Any, key: str, main: str, file: str) -> dict[str, Options]:
    """A mapping from labels to options; a text is that of the option ``main``."""
    if not isinstance(given, Mapping):
        raise InputError(f"{file}: {key} is {shown(given)}; expected {{LABEL: {main} or its options}}")
    found: dict[str, Options] = {}
    for label, own in given.items():
        if not isinstance(own, str | Mapping) or not own:
            raise InputError(
                f"{file}: {key}.{label} is {shown(own)}; expected a {main} as --{main} takes it, or options"
            )
        found[str(label)] = {main: own} if isinstance(own, str) else dict(own)
    return found


def _mapping(given: Any, key: str, file: str, known: Sequence[str] = ()) -> Options:
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        raise InputError(
            f"{file}: {key} is {shown(given)}; expected a mapping{f' of {text.listed(known)}' if known else ''}"
        )
    if known:
        text.refuse_unknown(f"key of {file}: {key}", map(str, given), known)
        for name, value in given.items():
            if isinstance(value, str | list | Mapping) and not value:
                raise InputError(f"{file}: {key}.{name} is {shown(value)}; expected one or several, or no such key")
    return {str(name): value for name, value in given.items()}


def _seeds(given: Any, file: str) -> tuple[int, ...]:
    listed = given if isinstance(given, list) else [given]
    found = tuple(read(f"{file}: seeds", Seed, each) for each in listed)
    if not found or len(set(found)) < len(found):
        raise InputError(f"{file}: seeds is {shown(given)}; expected one or several, each once")
    return found


def _clean(given: Any, file: str) -> bool:
    return bool(read(f"{file}: clean", bool, given))


def _attacks(given: Any, file: str) -> dict[str, Options]:
    """By label; one without options may be given by its name alone."""
    if given is None:
        return {}
    if isinstance(given, str | list):
        listed = text.names(given)
        if twice := [name for name in listed if listed.count(name) > 1]:
            raise InputError(f"{file}: attacks has {shown(twice[0])} twice; expected each once, or labels of their own")
        given = dict.fromkeys(listed)
    if not isinstance(given, Mapping):
        raise InputError(
            f"{file}: attacks is {shown(given)}; expected {{LABEL: {{attack: NAME, OPTION: VALUE}}}}, or names"
        )
    found: dict[str, Options] = {}
    for label, own in given.items():
        named = {"attack": str(label)} if own is None else {"attack": own} if isinstance(own, str) else own
        if not isinstance(named, Mapping) or not isinstance(named.get("attack", str(label)), str):
            raise InputError(f"{file}: attacks.{label} is {shown(own)}; expected {{attack: NAME, OPTION: VALUE}}")
        if not str(label):
            raise InputError(f"{file}: attacks has an empty label; expected {{LABEL: {{attack: NAME, OPTION: VALUE}}}}")
        options = {str(name): _value(value) for name, value in named.items() if name != "attack"}
        found[str(label)] = {"attack": str(named.get("attack", label)), **options}
    return found


def _swept(given: Mapping[str, Any], file: str) -> tuple[dict[str, Options], tuple[Options, ...]]:
    """Attacks and certifications, each once for every combination of the values that sweeps give it."""
    attacks, sweeps = _attacks(given.get("attacks"), file), _sweeps(given.get("sweeps"), file)
    for label, option in sweeps:
        if label not in (*attacks, CERTIFY):
            wrong = unknown_name("label", label, [*attacks, CERTIFY])
            raise InputError(f"{file}: sweeps.{label}.{option}: {wrong}")
    named: dict[str, Options] = {
        name: {**attacks[label], **values} for name, (label, values) in variants(given, file).items()
    }
    return named, _certifications(given.get("certify"), sweeps, file)


def _told(values: Options) -> str:
    return "".join(f" {name}={text.listed(value)}" for name, value in values.items())


def _certifications(given: Any, sweeps: Mapping[tuple[str, str], Sequence[Any]], file: str) -> tuple[Options, ...]:
    swept = {option for label, option in sweeps if label == CERTIFY}
    if given is None and not swept:
        return ()
    own = {} if given is True else _mapping(given, CERTIFY, file)
    found = []
    for values in _combined(CERTIFY, sweeps):
        # What it is under is in the name always, as it may be swept later.
        how = next((name for name in ("lipschitz", "patch") if name in {**own, **values}), "sigma")
        under = {how: values.get(how, own.get(how, 0.25))}
        named = "-".join(f"{name}{_short(value)}" for name, value in (under | dict(values)).items())
        found.append(MappingProxyType({**own, **values, "named": safe_name(named)}))
    return tuple(found)


def _sweeps(given: Any, file: str) -> dict[tuple[str, str], Sequence[Any]]:
    """Values by label and option."""
    found: dict[tuple[str, str], Sequence[Any]] = {}
    for key, values in _mapping(given, "sweeps", file).items():
        label, dot, option = key.rpartition(".")
        if not dot or not label or not option:
            raise InputError(f"{file}: sweeps: {shown(key)} is no LABEL.OPTION, as cr_pgd.samples or certify.sigma")
        if not isinstance(values, list) or not values:
            raise InputError(f"{file}: sweeps.{key} is {shown(values)}; expected a list of values")
        found[label, option] = list(map(_value, values))
        if len(set(map(repr, found[label, option]))) < len(values):
            raise InputError(f"{file}: sweeps.{key} has a value twice: {shown(values)}")
    return found


def _combined(label: str, sweeps: Mapping[tuple[str, str], Sequence[Any]]) -> Iterator[Options]:
    """Every combination of the values of a label's options; one empty one where it has none."""
    mine = {option: values for (of, option), values in sweeps.items() if of == label}
    for chosen in itertools.product(*mine.values()):
        yield dict(zip(mine, chosen, strict=True))


def _value(given: Any) -> Any:
    return text.value_of(given) if isinstance(given, str) else given


def _short(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) and math.isfinite(value) else text.listed(value)


def _differ(one: Asked, other: Asked) -> str:
    """Labels by which two measurements differ."""
    told = [f"{part} {getattr(each, part)}" for each in (one, other) for part in ("model", "data", "aim")]
    half = len(told) // 2
    return (
        "; ".join(f"{a} and {b}" for a, b in zip(told[:half], told[half:], strict=True) if a != b) or "they are equal"
    )
