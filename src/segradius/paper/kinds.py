"""What an element of the paper can be shown as, by name: tables, curves, maps, …."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Protocol

from segradius.core.errors import InputError
from segradius.core.text import refuse_unknown
from segradius.paper.draw_allocation import allocation
from segradius.paper.draw_bars import bars
from segradius.paper.draw_curves import curves
from segradius.paper.draw_heat import heat
from segradius.paper.draw_maps import maps
from segradius.paper.draw_rows import lines, rows
from segradius.paper.draw_table import table
from segradius.paper.draw_traces import traces
from segradius.paper.draw_weights import weights
from segradius.paper.measured import Measured
from segradius.paper.outputs import Shown


class HasBlocks(Protocol):
    """An element of the paper, of which what is shown takes its blocks."""

    @property
    def blocks(self) -> tuple[str, ...]:
        """Names of them."""


#: What options are called in a specification, where that is no name in Python, or another one is plainer.
ALIASES: Mapping[str, str] = {"from": "source", "percent": "percents"}
Draw = Callable[..., Shown]


def options_of(draw: Draw) -> tuple[str, ...]:
    """Names of the options of a kind, besides ``name``."""
    return tuple(each for each in inspect.signature(draw).parameters if each not in ("measured", "name"))


def show(kind: str, measured: Measured, scale: object, element: HasBlocks, **options: Any) -> Shown:
    """Draw what was measured of an element.

    Args:
        kind: In `KINDS`.
        measured: What was measured.
        scale: Of the measurements; no kind asks for it so far.
        element: Whose blocks are shown where ``blocks`` names none.
        **options: ``name`` of the files, and those of the kind.

    Raises:
        InputError: An option is unknown, missing or wrong.
    """
    draw = DRAWN[kind]
    options = {ALIASES.get(key, key): value for key, value in options.items()}
    known = inspect.signature(draw).parameters
    refuse_unknown(f"option of {kind}", options, ("name", *options_of(draw)))
    given = {"blocks": element.blocks, **options}
    lacking = [
        name for name, it in known.items() if name not in (*given, "measured") and it.default is inspect.Parameter.empty
    ]
    if lacking:
        raise InputError(f"{kind} {options.get('name', '')} lacks {', '.join(lacking)}; expected these options")
    for name, value in given.items():
        if isinstance(value, str) and str(known[name].annotation).startswith("Sequence[str]"):
            given[name] = (value,)
    return draw(measured, **given)


DRAWN: Mapping[str, Draw] = {
    "table": table,
    "curves": curves,
    "heat": heat,
    "bars": bars,
    "traces": traces,
    "rows": rows,
    "lines": lines,
    "maps": maps,
    "weights": weights,
    "allocation": allocation,
}

#: By name: a function of what was measured, the scale, the element, and options, ``name`` among them.
KINDS: Mapping[str, Draw] = {name: partial(show, name) for name in DRAWN}
