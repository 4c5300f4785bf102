"""The short text that names a network: ``smp:PSPNet,encoder_name=resnet18,classes=11``."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import yaml

from segradius.errors import InputError

OPENING, CLOSING = "[{(", "]})"


@dataclass(frozen=True)
class Spec:
    """A parsed model text.

    Args:
        source: What stands before the colon: ``torchvision``, ``smp``, ``hf`` or a Python module; empty if built in.
        name: What stands after it.
        arguments: Keyword arguments.
    """

    source: str
    name: str
    arguments: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        """The text, without its arguments."""
        return f"{self.source}:{self.name}" if self.source else self.name


def parse_spec(text: str) -> Spec:
    """A `Spec` from ``[SOURCE:]NAME[,key=value…]``, values in YAML.

    Args:
        text: For example ``torchvision:fcn_resnet50,num_classes=21``. Commas inside brackets belong to a value.

    Returns:
        The parts.

    Raises:
        InputError: If there is no name, or an argument is not ``key=value`` or is given twice.

    Example:
        >>> parse_spec("hf:segformer,num_labels=19,depths=[2, 2, 2, 2],backbone=null")
        Spec(source='hf', name='segformer', arguments={'num_labels': 19, 'depths': [2, 2, 2, 2], 'backbone': None})
    """
    head, *rest = _split(text)
    source, colon, name = head.strip().partition(":")
    if not colon:
        source, name = "", source
    if not name:
        raise InputError(f"model {text!r} names no network; expected NAME, SOURCE:NAME or a card FILE.yaml")
    arguments: dict[str, Any] = {}
    for part in rest:
        key, value = _argument(part, text)
        if key in arguments:
            raise InputError(f"model {text!r} gives {key!r} twice")
        arguments[key] = value
    return Spec(source, name, arguments)


def _argument(part: str, text: str) -> tuple[str, Any]:
    key, equals, value = part.strip().partition("=")
    if not equals or not key.strip().isidentifier():
        raise InputError(f"model {text!r}: {part.strip()!r} is not key=value")
    try:
        return key.strip(), yaml.safe_load(value)
    except yaml.YAMLError as error:
        raise InputError(f"model {text!r}: the value of {key.strip()!r} is not YAML: {value!r}") from error


def _split(text: str) -> list[str]:
    """Parts between the commas that are outside brackets."""
    parts, depth = [""], 0
    for character in text:
        depth += (character in OPENING) - (character in CLOSING)
        if character == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += character
    return parts
