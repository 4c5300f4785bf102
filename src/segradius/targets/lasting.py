"""What of a target's text determines its answers."""

from __future__ import annotations

from segradius.models.cards import is_card
from segradius.models.specs import parse_spec
from segradius.targets.target import TARGETS

#: How a target is asked, not what it answers.
PASSING = frozenset(
    {"backoff", "batch", "ca", "connect", "prefix", "rate", "read", "retries", "threads", "token_env", "wire"}
)


def lasting(text: str) -> str:
    """A target's text without options that change no answer, so that a run can go on at another rate.

    Example:
        >>> lasting("oip:http://localhost/v2/models/roads,rate=5,outputs=logits,batch=2")
        'oip:http://localhost/v2/models/roads,outputs=logits'
    """
    if is_card(text):
        return text
    spec = parse_spec(text)
    kept = {name: value for name, value in spec.arguments.items() if name not in PASSING}
    if spec.source not in TARGETS or len(kept) == len(spec.arguments):
        return text
    return ",".join([str(spec), *(f"{name}={value}" for name, value in kept.items())])
