"""How a server is spoken to: time-outs, repetitions, pace, and a token that is kept nowhere."""

from __future__ import annotations

import math
import os
from dataclasses import dataclass

from segradius.errors import InputError


@dataclass(frozen=True)
class Policy:
    """How a server is spoken to.

    Args:
        connect: Seconds to wait for a connection.
        read: Seconds to wait for an answer, between two pieces of it.
        retries: How often a request is sent again after a time-out, a broken connection or status 408, 425, 429, 502,
            503, 504.
        backoff: Seconds b: the k-th repetition waits b · 2^(k−1), the first not at all, at most two minutes; a
            ``Retry-After`` goes before it.
        rate: Images a second, repetitions counted; None for no limit.
        token_env: Name of the environment variable that holds the token, or a whole ``Authorization`` header's value.
        ca: File of the certificates to trust, in place of the system's.

    Raises:
        InputError: For a number outside its range.
    """

    connect: float = 5.0
    read: float = 60.0
    retries: int = 8
    backoff: float = 0.5
    rate: float | None = None
    token_env: str | None = None
    ca: str | None = None

    def __post_init__(self) -> None:
        for name in ("connect", "read", "rate"):
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and value > 0):
                raise InputError(f"{name}={value!r}: expected a positive number")
        if self.retries < 0 or not (math.isfinite(self.backoff) and self.backoff >= 0):
            raise InputError(f"retries={self.retries!r}, backoff={self.backoff!r}: expected none below zero")

    def authorization(self) -> str | None:
        """Value of the ``Authorization`` header, read anew each time and kept nowhere; None without ``token_env``.

        Raises:
            InputError: If the variable is not set or cannot be a header. The message holds its name only.
        """
        if self.token_env is None:
            return None
        token = os.environ.get(self.token_env, "").strip()
        if not token:
            raise InputError(
                f"the environment variable {self.token_env} is not set; token_env says that it holds a token"
            )
        if not (token.isascii() and token.isprintable()):
            raise InputError(f"the environment variable {self.token_env} holds characters that no header can have")
        return token if " " in token else f"Bearer {token}"

    def redacted(self, text: str) -> str:
        """A text without the token."""
        token = self.authorization()
        secrets = [] if token is None else [token, token.split(" ", 1)[1]]
        for secret in secrets:
            text = text.replace(secret, "***")
        return text
