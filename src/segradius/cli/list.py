"""``segradius list``."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from segradius.core.registry import Registry

Rows = list[tuple[str, str]]
Section = tuple[str, Rows, list[str]]
"""Title, rows of name and what it is, and notes below."""

Kind = Literal["attacks", "losses", "weightings", "models", "targets", "data", "protocols", "defences", "corrections"]


def list_names(kind: Kind, /) -> int:
    """List what can be named on the command line, with one line on each.

    Args:
        kind: What to list.

    Returns:
        The exit status.
    """
    from rich.console import Console
    from rich.table import Table

    console = Console()
    if not console.is_terminal:
        console.width = 160
    for title, rows, notes in _LISTS[kind]():
        table = Table(show_header=False, box=None, padding=(0, 2, 0, 0), title=title or None, title_justify="left")
        table.add_column(no_wrap=True, style="bold")
        for row in rows:
            table.add_row(*(cell.replace("``", "") for cell in row))
        console.print(table)
        for note in notes:
            console.print(note, markup=False, highlight=False)
    return 0


def _attacks() -> list[Section]:
    from segradius.attacks import ATTACKS, BLACK_BOX

    white, black = _family(ATTACKS, "pgd"), _family(BLACK_BOX, "pbgd")
    return [
        ("White-box attacks, for --model: they follow the gradient", *white),
        ("\nBlack-box attacks, for --target and --model: they ask for scores and count every query", *black),
    ]


def _family(registry: Registry[Any], example: str) -> tuple[Rows, list[str]]:
    """Each attack with the options that are its own, and what all of the registry have in common."""
    from segradius.attacks import attack_options

    shared = set.intersection(*(set(attack_options(name)) for name in registry))
    rows = []
    for name in registry:
        own = [option for option in attack_options(name) if option not in shared]
        rows.append((name, registry.summary(name) + (f" Options: {', '.join(own)}." if own else "")))
    guided = [option for option in attack_options(f"cr_{example}") if option not in attack_options(example)]
    return rows, [
        f"\nAll take {', '.join(sorted(shared))} and projection.",
        f"cr_NAME guides any of them by the certified radius; further options: {', '.join(guided)}.",
    ]


def _targets() -> list[Section]:
    from segradius.targets import TARGETS

    rows = [(name, TARGETS.summary(name)) for name in TARGETS]
    return [
        (
            "",
            rows,
            [
                "\nA target is asked for scores only, by black-box attacks, and every query counts:",
                "  onnx:model.onnx,threads=2                         (pip install 'segradius[onnx]')",
                "  oip:http://HOST:PORT/v2/models/NAME,rate=20       (pip install 'segradius[oip]')",
                "  demo, smp:PSPNet,classes=11, card.yaml, …         a network here; see segradius list models",
                "--answers digits=3, top=2 or labels and --input uint8 or jpeg=90 make it as harsh as a deployed one.",
            ],
        )
    ]


def _losses() -> list[Section]:
    from segradius.objectives.losses import LOSSES

    rows = [(n, LOSSES.summary(n)) for n in LOSSES]
    return [("", rows, ["\nmasked_NAME counts only pixels that are not fooled yet."])]


def _weightings() -> list[Section]:
    from segradius.objectives.weightings import WEIGHTINGS

    return [
        (
            "",
            [(n, WEIGHTINGS.summary(n)) for n in WEIGHTINGS],
            ["\nA product is written cr*still_correct, options clever(batches=10;samples=1)."],
        )
    ]


def _models() -> list[Section]:
    from segradius.models import MODELS

    rows = [(n, MODELS.summary(n)) for n in MODELS]
    notes = [
        "\nOther networks, arguments after commas as key=value:",
        "  torchvision:deeplabv3_resnet50,num_classes=21",
        "  smp:PSPNet,encoder_name=resnet18,classes=11      (pip install 'segradius[smp]')",
        "  hf:FOLDER or hf:segformer,num_labels=19          (pip install 'segradius[hf]')",
        "  package.module:callable,key=value                 your own",
        "  card.yaml                                         all of it in a file",
    ]
    return [("", rows, notes)]


def _data() -> list[Section]:
    from segradius.data import DATA

    return [("", [(n, DATA.summary(n)) for n in DATA], ["\nGive the folder after a colon, as in voc:PATH."])]


def _protocols() -> list[Section]:
    from segradius.data import PROTOCOLS

    return [("", [(n, PROTOCOLS.summary(n)) for n in PROTOCOLS], [])]


def _defences() -> list[Section]:
    from segradius.training import ADVERSARIES

    rows = [(n, ADVERSARIES.summary(n)) for n in ADVERSARIES]
    return [("", rows, ["\nFor segradius train --adversary; their options are those of the attacks."])]


def _corrections() -> list[Section]:
    from segradius.certification import CORRECTIONS

    rows = [(n, CORRECTIONS.summary(n)) for n in CORRECTIONS]
    return [("", rows, ["\nFor segradius certify --correction; all hold whatever the dependence of the pixels."])]


_LISTS: dict[str, Callable[[], list[Section]]] = {
    "attacks": _attacks,
    "losses": _losses,
    "weightings": _weightings,
    "models": _models,
    "targets": _targets,
    "data": _data,
    "protocols": _protocols,
    "defences": _defences,
    "corrections": _corrections,
}
