"""``segradius list``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

Kind = Literal["attacks", "losses", "weightings", "models", "data", "protocols", "defences"]


def list_names(kind: Kind, /) -> int:
    """List what can be named on the command line, with one line on each.

    Args:
        kind: What to list.

    Returns:
        The exit status.
    """
    from rich.console import Console
    from rich.table import Table

    rows, notes = _LISTS[kind]()
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True, style="bold")
    for row in rows:
        table.add_row(*(cell.replace("``", "") for cell in row))
    console = Console()
    if not console.is_terminal:
        console.width = 160
    console.print(table)
    for note in notes:
        console.print(note, markup=False, highlight=False)
    return 0


def _attacks() -> tuple[list[tuple[str, str]], list[str]]:
    from segradius.attacks import ATTACKS, attack_options

    shared = set.intersection(*(set(attack_options(name)) for name in ATTACKS))
    rows = []
    for name in ATTACKS:
        own = [option for option in attack_options(name) if option not in shared]
        rows.append((name, ATTACKS.summary(name) + (f" Options: {', '.join(own)}." if own else "")))
    guided = [option for option in attack_options("cr_pgd") if option not in attack_options("pgd")]
    return rows, [
        f"\nAll take {', '.join(sorted(shared))} and projection.",
        f"cr_NAME guides any of them by the certified radius; further options: {', '.join(guided)}.",
    ]


def _losses() -> tuple[list[tuple[str, str]], list[str]]:
    from segradius.losses import LOSSES

    return [(n, LOSSES.summary(n)) for n in LOSSES], ["\nmasked_NAME counts only pixels that are not fooled yet."]


def _weightings() -> tuple[list[tuple[str, str]], list[str]]:
    from segradius.weightings import WEIGHTINGS

    return [(n, WEIGHTINGS.summary(n)) for n in WEIGHTINGS], ["\nA product is written cr*still_correct."]


def _models() -> tuple[list[tuple[str, str]], list[str]]:
    from segradius.models import MODELS

    rows = [(n, MODELS.summary(n)) for n in MODELS]
    return rows, [
        "\nOther networks, arguments after commas as key=value:",
        "  torchvision:deeplabv3_resnet50,num_classes=21",
        "  smp:PSPNet,encoder_name=resnet18,classes=11      (pip install 'segradius[smp]')",
        "  hf:FOLDER or hf:segformer,num_labels=19          (pip install 'segradius[hf]')",
        "  package.module:callable,key=value                 your own",
        "  card.yaml                                         all of it in a file",
    ]


def _data() -> tuple[list[tuple[str, str]], list[str]]:
    from segradius.data import DATA

    return [(n, DATA.summary(n)) for n in DATA], ["\nGive the folder after a colon, as in voc:PATH."]


def _protocols() -> tuple[list[tuple[str, str]], list[str]]:
    from segradius.data import PROTOCOLS

    return [(n, PROTOCOLS.summary(n)) for n in PROTOCOLS], []


def _defences() -> tuple[list[tuple[str, str]], list[str]]:
    from segradius.training import ADVERSARIES

    rows = [(n, ADVERSARIES.summary(n)) for n in ADVERSARIES]
    return rows, ["\nFor segradius train --adversary; their options are those of the attacks."]


_LISTS: dict[str, Callable[[], tuple[list[tuple[str, str]], list[str]]]] = {
    "attacks": _attacks,
    "losses": _losses,
    "weightings": _weightings,
    "models": _models,
    "data": _data,
    "protocols": _protocols,
    "defences": _defences,
}
