"""The transfer matrix of a study: each model attacked by adversarial images of each other one, and of all others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from segradius.core import text
from segradius.core.errors import InputError, shown

#: The option of a model that names the network on which adversarial images for it are made.
MADE_ON = "from"
#: What ``transfer`` may hold: each other network by itself, and the mean of all others.
WAYS = ("each", "others")
#: Between the label of what is attacked and that of what its images are made on.
BETWEEN = " from "
#: What stands for all other networks there.
OTHERS = "the others"

Options = Mapping[str, Any]


def with_transfers(models: Mapping[str, Options], transfer: Any, file: str) -> dict[str, Options]:
    """The models of a study, and each of them again as it is attacked from others.

    Args:
        models: Options by label.
        transfer: ``each``: from each other network; ``others``: from the mean of all others; or both. None: neither.
        file: Of the study, for messages.

    Returns:
        Those, those of one target together: labels *A from B* and *A from the others*.

    Raises:
        InputError: ``transfer`` is another word, or there is no network to attack from.

    Example:
        >>> models = {"a": {"model": "a.yaml"}, "b": {"model": "b.yaml"}, "served": {"target": "onnx:c.onnx"}}
        >>> for label, own in with_transfers(models, "each", "the study").items():
        ...     print(label, own)
        a {'model': 'a.yaml'}
        a from b {'model': 'a.yaml', 'from': ['b.yaml']}
        b {'model': 'b.yaml'}
        b from a {'model': 'b.yaml', 'from': ['a.yaml']}
        served from a {'target': 'onnx:c.onnx', 'from': ['a.yaml']}
        served from b {'target': 'onnx:c.onnx', 'from': ['b.yaml']}
    """
    if transfer is None:
        return dict(models)
    ways = text.names(transfer) if isinstance(transfer, str | list) else [shown(transfer)]
    text.refuse_unknown(f"value of {file}: transfer", ways or [""], WAYS)
    plain = {label: own for label, own in models.items() if MADE_ON not in own}
    networks = {label: str(own["model"]) for label, own in plain.items() if set(own) == {"model"}}
    for label, own in plain.items():
        if "model" in own and label not in networks:
            more = ", ".join(sorted(set(own) - {"model"}))
            raise InputError(
                f"{file}: transfer attacks from every network, and models.{label} has {more} beside model; expected a "
                "card that says it, models: {LABEL: FILE.yaml}"
            )
    if len(networks) < 1 + (len(networks) == len(plain)):
        raise InputError(f"{file}: transfer has nothing to attack from; expected another network among models")
    found: dict[str, Options] = {}
    for label, own in models.items():
        # A target's own attacks would be others, black-box ones, which a study of it alone can hold.
        found |= {label: own} if label not in plain or "target" not in own else {}
        if label in plain:
            found |= {name: {**own, MADE_ON: specs} for name, specs in _from_others(label, networks, ways).items()}
    return found


def _from_others(label: str, networks: Mapping[str, str], ways: Sequence[str]) -> dict[str, list[str]]:
    others = {other: spec for other, spec in networks.items() if other != label}
    each = {f"{label}{BETWEEN}{other}": [spec] for other, spec in others.items()} if "each" in ways else {}
    mean = (
        {f"{label}{BETWEEN}{OTHERS}": list(others.values())}
        if "others" in ways and (len(others) > 1 or not each)
        else {}
    )
    return each | mean


def attacked_and_made_on(label: str) -> tuple[str, str]:
    """What is attacked under a label of a study, and what its adversarial images are made on.

    Example:
        >>> attacked_and_made_on("a from b"), attacked_and_made_on("a")
        (('a', 'b'), ('a', 'a'))
    """
    attacked, _, made_on = label.partition(BETWEEN)
    return attacked, made_on or attacked
