"""A finished run read again from its store: which job a key is of, and the counts of each image, changing nothing."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from segradius.core.errors import DamagedError
from segradius.core.seal import readable
from segradius.evaluation.attack import AttackPlan
from segradius.evaluation.inspection import looked_into
from segradius.evaluation.job import DataChoice, Experiment, ModelChoice
from segradius.evaluation.rows import CLEAN
from segradius.evaluation.saved import made
from segradius.evaluation.seals import TABLES, UnsealedError
from segradius.evaluation.store import Store
from segradius.metrics.counts import Pixels

Plan = tuple[str, str, float]
"""Label, norm and ε of an attack; ("clean", "", 0) for the unattacked images."""


def experiment_of(described: Mapping[str, Any]) -> Experiment:
    """The experiment that `Experiment.as_dict` gave.

    Example:
        >>> one = Experiment(ModelChoice("demo"), DataChoice("scenes"), (AttackPlan("pgd", "l2", 1.5),))
        >>> experiment_of(one.as_dict()).key(one.attacks[0]) == one.key(one.attacks[0])
        True
    """
    attacks = tuple(made(AttackPlan, attack) for attack in described["attacks"])
    model, data = made(ModelChoice, described["model"]), made(DataChoice, described["data"])
    return Experiment(model, data, attacks, described["target"], described["seed"])


@contextmanager
def reading(path: Path) -> Iterator[Store]:
    """A store to be read without a change to it or to its folder, of whatever version.

    Args:
        path: The file; nobody writes in it now.

    Raises:
        DamagedError: It is no SQLite file, or not a whole one.
    """
    with looked_into(path) as base:
        if base.is_sealed() and base.tables() == list(TABLES):
            yield Store(path, base)
            return
        with tempfile.TemporaryDirectory() as folder:
            Store(path, base).copy(Path(folder) / path.name)
            with Store(Path(folder) / path.name) as store:  # gives it what an earlier version had not
                yield store


def counts_of(store: Path) -> dict[Plan, dict[str, Pixels]]:
    """Counts of every valid image under every attack of a run; nothing of a store without checksums.

    Args:
        store: Its results.sqlite; nobody writes in it now.

    Raises:
        DamagedError: It is no whole store, or not of attacks.
    """
    try:
        with looked_into(store) as base:
            if not base.is_sealed():  # of an early version
                return {}
            noted = base.rows("meta", "value", "name = ?", "experiment")
            it = readable(lambda: experiment_of(json.loads(noted[0][0])), store, "the store of an attack")
            keys = {CLEAN: (CLEAN, "", 0.0)} | {it.key(plan): (plan.label, *plan.threat) for plan in it.attacks}
            found: dict[Plan, dict[str, Pixels]] = {}
            for key, plan in keys.items():
                rows = base.rows("results", "image, pixels", "attack = ? AND valid", key)
                found[plan] = {image: Pixels(*json.loads(pixels)) for image, pixels in rows}
            return found
    except UnsealedError as error:
        raise DamagedError(f"{store}: {error}") from error


def differing_images(one: Path, other: Path) -> str:
    """The first image that two stores have under one name though its content is another, in words; empty where none is.

    Args:
        one: A store; nobody writes in it now.
        other: Another.

    Raises:
        DamagedError: One is no whole store.
    """
    before, after = _digests(one), _digests(other)
    for image, parts in before.items():
        for role, digest in parts.items():
            now = after.get(image, {}).get(role, digest)
            if digest and now and now != digest:
                return f"the {role} of image {image} is another one for the baseline than for the candidate"
    return ""


def _digests(store: Path) -> dict[str, dict[str, str]]:
    """By image and what it is made of; of a store of an earlier version nothing."""
    try:
        with looked_into(store) as base:
            if not base.is_sealed() or "sources" not in base.tables():
                return {}
            rows = base.rows("sources", "image, marks")
            return {image: {role: str(mark[0]) for role, mark in json.loads(marks).items()} for image, marks in rows}
    except UnsealedError as error:
        raise DamagedError(f"{store}: {error}") from error
