"""Of a run's facts in a file: how its images were certified, and under which condition, in a few words."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from statistics import NormalDist
from typing import Any

#: Certificates in which each pixel has a radius of its own.
OWN_RADII = frozenset({"radii", "soft", "lipschitz"})

#: Ways whose certificates have no radius at all.
WITHOUT_RADII = frozenset({"masks"})

#: By the name of a way of certifying, what its certificates are under, in a few words.
CONDITIONS: Mapping[str, Callable[[Mapping[str, Any]], str]] = {
    "smoothing": lambda it: f"σ = {it['sigma']:g}",
    "lipschitz": lambda it: f"L = {it['lipschitz']:g}",
    "masks": lambda it: f"patch {100 * it['patch']:g} %",
}


def certified_by(experiment: Mapping[str, Any]) -> str | None:
    """The way of certifying, by its name among the facts of a run; None for a run that certified nothing.

    Example:
        >>> certified_by({"smoothing": {"sigma": 0.25}}), certified_by({"attacks": []})
        ('smoothing', None)
    """
    return next((way for way in CONDITIONS if way in experiment), None)


def options_of(experiment: Mapping[str, Any]) -> Mapping[str, Any]:
    """The options of the way; empty for a run that certified nothing."""
    way = certified_by(experiment)
    return {} if way is None else experiment[way]


def condition(experiment: Mapping[str, Any]) -> str:
    """What its certificates are under, in a few words.

    Example:
        >>> condition({"smoothing": {"sigma": 0.25}}), condition({"lipschitz": {"lipschitz": 1.0}})
        ('σ = 0.25', 'L = 1')
    """
    way = certified_by(experiment)
    return "" if way is None else CONDITIONS[way](experiment[way])


def common_radius(experiment: Mapping[str, Any]) -> float | None:
    """The l2 radius σΦ⁻¹(τ) that certified pixels share where they have none of their own; None for no smoothing.

    Example:
        >>> round(common_radius({"smoothing": {"sigma": 0.25, "tau": 0.75}}), 4)
        0.1686
    """
    it = experiment.get("smoothing")
    return None if it is None else float(it["sigma"]) * NormalDist().inv_cdf(it["tau"])


def refutations(report: Mapping[str, Any]) -> list[str]:
    """Attacks that found what the certificates of a report exclude; none where they stand, or were not attacked.

    Example:
        >>> refutations({"attacked": [{"attack": "flips", "at": "ε = 1", "contradicted": 2}]}), refutations({})
        (['flips (ε = 1)'], [])
    """
    certain = [f"{each['attack']} ({each['at']})" for each in report.get("attacked", ()) if each["contradicted"]]
    return certain + [each["attack"] for each in report.get("checked", ()) if each["refuted"]]
