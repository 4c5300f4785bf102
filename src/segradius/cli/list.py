"""``segradius list``."""

from __future__ import annotations

import importlib
from collections import Counter
from collections.abc import Mapping
from inspect import Parameter
from typing import TYPE_CHECKING, Any, Literal

from segradius.core.screen import console, say

if TYPE_CHECKING:
    from segradius.core.registry import Registry

Rows = list[tuple[str, str]]
Section = tuple[str, Rows, list[str]]
"""Title, rows of name and what it is, and notes below."""

Kind = Literal[
    "attacks",
    "losses",
    "weightings",
    "models",
    "sources",
    "targets",
    "data",
    "protocols",
    "defences",
    "denoisers",
    "corrections",
    "fills",
]

#: Where the registry of a kind is, and what is said below its names.
REGISTRIES: dict[str, tuple[str, list[str]]] = {
    "losses": (
        "segradius.objectives.losses:LOSSES",
        ["\nmasked_NAME counts only pixels that are not fooled yet."],
    ),
    "weightings": (
        "segradius.objectives.weightings:WEIGHTINGS",
        ["\nA product is written cr*still_correct, options clever(batches=10;samples=1)."],
    ),
    "models": ("segradius.models.sources:MODELS", ["\nOther networks, arguments after commas as key=value:"]),
    "sources": ("segradius.models.sources:SOURCES", ["\nFor --model, arguments after commas as key=value:"]),
    "targets": (
        "segradius.targets:TARGETS",
        ["\nA target is asked for scores only, by black-box attacks, and every query counts:"],
    ),
    "data": (
        "segradius.data.sample:DATA",
        ["\nGive the folder or file after a colon, as in voc:PATH, and options after commas."],
    ),
    "protocols": ("segradius.data.protocols:PROTOCOLS", []),
    "defences": (
        "segradius.training.adversaries:ADVERSARIES",
        ["\nFor segradius train --adversary; their options are those of the attacks."],
    ),
    "denoisers": (
        "segradius.models.denoising:DENOISERS",
        [
            "\nFor --denoiser, options after commas as key=value. One with weights is first trained before a network,",
            "as by segradius train --model denoised:residual,base=CARD.yaml --adversary gaussian: give its card.",
        ],
    ),
    "corrections": (
        "segradius.certification:CORRECTIONS",
        ["\nFor segradius certify --correction; all hold whatever the dependence of the pixels."],
    ),
    "fills": (
        "segradius.certification:FILLS",
        ["\nFor segradius certify --fill: what is seen in the place of pixels that a mask hides."],
    ),
}


def list_names(kind: Kind, /) -> int:
    """List what can be named on the command line, with one line on each.

    Args:
        kind: What to list.

    Returns:
        The exit status.
    """
    from rich.table import Table

    for title, rows, notes in _attacks() if kind == "attacks" else [_section(kind)]:
        table = Table(show_header=False, box=None, padding=(0, 2, 0, 0), title=title or None, title_justify="left")
        table.add_column(no_wrap=True, style="bold")
        for row in rows:
            table.add_row(*(cell.replace("``", "") for cell in row))
        console().print(table)
        for note in notes:
            say(note)
    return 0


def _section(kind: str) -> Section:
    """All of a registry, and what belongs below."""
    place, notes = REGISTRIES[kind]
    registry = _registry(place)
    more: dict[str, Any] = {"models": _other_models, "sources": _own_examples, "targets": _other_targets}
    return "", [(name, registry.summary(name)) for name in registry], notes + (more[kind]() if kind in more else [])


def _registry(place: str) -> Registry[Any]:
    module, _, name = place.partition(":")
    registry: Registry[Any] = getattr(importlib.import_module(module), name)
    return registry


def _other_models() -> list[str]:
    return [
        *_examples("segradius.models.sources:SOURCES"),
        _example("package.module:callable,key=value", "your own; its code is run"),
        _example("card.yaml", "all of it in a file"),
    ]


def _own_examples() -> list[str]:
    return _examples("segradius.models.sources:SOURCES")


def _other_targets() -> list[str]:
    return [
        *_examples("segradius.targets:TARGETS"),
        _example("demo, smp:PSPNet,classes=11, card.yaml, …", "a network here; see segradius list models"),
        "--answers digits=3, top=2 or labels and --input uint8 or jpeg=90 make it as harsh as a deployed one.",
    ]


def _examples(place: str) -> list[str]:
    """One line on each thing of a registry whose facts have an example, with the extra that it needs."""
    registry = _registry(place)
    facts = [registry.facts(name) for name in registry]
    return [
        _example(fact["example"], f"(pip install 'segradius[{fact['extra']}]')" if "extra" in fact else "")
        for fact in facts
        if "example" in fact
    ]


def _example(text: str, remark: str) -> str:
    return f"  {text:<48}  {remark}".rstrip()


def _attacks() -> list[Section]:
    from segradius.attacks import ATTACKS, BLACK_BOX

    white, black = _family(ATTACKS, "pgd"), _family(BLACK_BOX, "pbgd")
    return [
        ("White-box attacks, for --model: they follow the gradient", *white),
        ("\nBlack-box attacks, for --target and --model: they ask for scores and count every query", *black),
    ]


def _family(registry: Registry[Any], example: str) -> tuple[Rows, list[str]]:
    """Each attack with the options in which it differs from the others, and what three in four of them take."""
    from segradius.attacks import attack_options

    taken = {name: attack_options(name) for name in registry}
    count = Counter(option for options in taken.values() for option in options)
    shared = {option for option, times in count.items() if 4 * times >= 3 * len(taken)}
    rows = []
    for name, options in taken.items():
        own = [option for option in options if option not in shared]
        told = [f"Options: {', '.join(own)}."] if own else []
        told += [f"Without {', '.join(sorted(lacking))}."] if (lacking := shared.difference(options)) else []
        rows.append((name, " ".join([registry.summary(name), *told])))
    guided = {o: p for o, p in attack_options(f"cr_{example}").items() if o not in taken[example]}
    return rows, [
        f"\nAll take projection, band_weights, lattice and, unless said otherwise, {', '.join(sorted(shared))}.",
        f"cr_NAME guides any of them by the certified radius; further options: {', '.join(guided)}.",
        "\nWhat an option may be, and its default:",
        *_values({**taken, "cr_": guided}),
    ]


def _values(taken: Mapping[str, Mapping[str, Parameter]]) -> list[str]:
    """One line on each option, and on each of its forms where attacks differ: what it may be and its default."""
    from segradius.core.declared import condition, expected

    forms: dict[str, dict[str, list[str]]] = {}
    for name, options in taken.items():
        for option, parameter in options.items():
            only = condition(parameter.annotation)
            told = expected(parameter.annotation) + (f", with {only}" if only else "")
            default = "the attack's own" if parameter.default is None else _told(parameter.default)
            forms.setdefault(option, {}).setdefault(f"{told}; default {default}", []).append(name)
    lines = []
    for option, found in sorted(forms.items()):
        for place, (form, names) in enumerate(found.items()):
            whose = f" ({', '.join(names)})" if len(found) > 1 else ""
            lines.append(f"  {option if place == 0 else '':<18}  {form}{whose}")
    return lines


def _told(default: object) -> str:
    """A default as it is written in an option."""
    if isinstance(default, bool):
        return str(default).lower()
    return "+".join(map(str, default)) or "none" if isinstance(default, tuple) else str(default)
