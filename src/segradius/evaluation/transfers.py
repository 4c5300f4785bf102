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

Options = Mapping[str, Any]


def with_transfers(models: Mapping[str, Options], transfer: Any, file: str) -> dict[str, Options]:
    """The models of a study, and each of them again as it is attacked from others.

    Args:
        models: Options by label.
        transfer: ``each``: from each other network; ``others``: from the mean of all others; or both. None: neither.
        file: Of the study, for messages.

    Returns:
        Those, those of one target together: labels *A from B* and *A from others*.

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
    networks = {label: own for label, own in plain.items() if "model" in own}
    for label, own in networks.items():
        if more := sorted(set(own) - {"model", "weights"}):
            raise InputError(
                f"{file}: transfer attacks from every network, and models.{label} has {', '.join(more)} beside model "
                "and weights; expected a card that says it, models: {LABEL: FILE.yaml}"
            )
    if len(networks) < 1 + (len(networks) == len(plain)):
        raise InputError(f"{file}: transfer has nothing to attack from; expected another network among models")
    found: dict[str, Options] = {}
    for label, own in models.items():
        # A target's own attacks would be others, black-box ones, which a study of it alone can hold.
        found |= {label: own} if label not in plain or "target" not in own else {}
        if label in plain:
            found |= {name: {**own, **made_on(*others)} for name, others in _from_others(label, networks, ways).items()}
    return found


def made_on(*networks: Options) -> dict[str, Any]:
    """The options of a model that is attacked by adversarial images of these networks, of their mean if several.

    Example:
        >>> made_on({"model": "a.yaml"}), made_on({"model": "pspnet50", "weights": "b.safetensors"})
        ({'from': ['a.yaml']}, {'from': ['pspnet50'], 'from_weights': ['b.safetensors']})
    """
    files = [each.get("weights") for each in networks]
    return {MADE_ON: [each["model"] for each in networks]} | ({f"{MADE_ON}_weights": files} if any(files) else {})


def _from_others(label: str, networks: Mapping[str, Options], ways: Sequence[str]) -> dict[str, list[Options]]:
    others = {other: own for other, own in networks.items() if other != label}
    each = {f"{label} from {other}": [own] for other, own in others.items()} if "each" in ways else {}
    mean = "others" in ways and (len(others) > 1 or not each)
    return each | ({f"{label} from others": list(others.values())} if mean else {})


def attacked_and_made_on(label: str) -> tuple[str, str]:
    """What is attacked under a label of a study, and what its adversarial images are made on.

    Example:
        >>> attacked_and_made_on("a from b"), attacked_and_made_on("a")
        (('a', 'b'), ('a', 'a'))
    """
    attacked, _, made_on = label.partition(" from ")
    return attacked, made_on or attacked
