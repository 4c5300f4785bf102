"""Norms with their budgets, from what a person gives: one number, or several by norm."""

from __future__ import annotations

from collections.abc import Mapping

from segradius.core import text
from segradius.core.errors import InputError
from segradius.core.text import Keyed, Listed
from segradius.threats.threat import NORMS, norm_name, parse_eps


def budgets(
    norm: Listed | float | None, eps: Keyed | None, default: Mapping[str, float] | None = None
) -> list[tuple[str, float]]:
    """Pairs of norm and ε, the paper's ε where none is given.

    Args:
        norm: Norms; None for those that ``eps`` names, or else l2.
        eps: ``"1.5"`` for a single norm; ``"l2=0.5,1.0,linf=4/255"`` for several norms or budgets.
        default: ε by norm where none is given; None for the paper's in white-box attacks.

    Raises:
        InputError: ε ≤ 0 or no number, an unknown norm, or a budget whose norm cannot be told.

    Example:
        >>> budgets("l2,linf", "l2=0.5,1.5")
        [('l2', 0.5), ('l2', 1.5), ('linf', 0.006)]
        >>> budgets(None, "linf=4/255")[0][0]
        'linf'
    """
    pairs = text.pairs(eps) if eps is not None else []
    given = [(key and norm_name(key), values) for key, values in pairs]
    named = list(dict.fromkeys(key for key, _ in given if key))
    asked = [str(norm)] if isinstance(norm, int | float) else text.names(norm or [])
    norms = list(dict.fromkeys(map(norm_name, asked))) or named or ["l2"]
    for name in named:
        if name not in norms:
            raise InputError(f"eps is given for {name}, but norm is {','.join(norms)}")
    if len(norms) > 1 and any(not key for key, _ in given):
        raise InputError(f"with the norms {','.join(norms)} say which eps is whose, as in l2=1.5,linf=4/255")
    found = [(key or norms[0], parse_eps(value)) for key, values in given for value in values.split(",")]
    usual = {name: norm.default_eps for name, norm in NORMS.items()} if default is None else default
    return [budget for name in norms for budget in ([f for f in found if f[0] == name] or [(name, usual[name])])]
