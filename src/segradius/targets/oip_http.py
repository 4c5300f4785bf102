"""How a server is spoken to: time-outs, repetitions, pace, a token kept nowhere, a count of what was sent."""

from __future__ import annotations

import math
import os
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from segradius.core.errors import InputError, TargetError, at_least, missing_extra, must

if TYPE_CHECKING:
    import urllib3
    from urllib3.response import BaseHTTPResponse


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
            must(value is None or 0 < value < math.inf, name, value, "a positive number")
        at_least(0, retries=self.retries)
        must(0 <= self.backoff < math.inf, "backoff", self.backoff, "at least 0")

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


@dataclass
class Traffic:
    """Counters of one target, safe to add to from several threads.

    Attributes:
        answered: Images whose scores arrived, each counted once however often it was sent.
        sent: Infer requests sent, each sending counted.
        retried: Those among them that repeat an earlier one.
        timed_out: Those without a connection or an answer in time.
        rejected: Those answered with an error status.
        dropped: Those whose connection was refused or broke.

    Example:
        >>> traffic = Traffic()
        >>> traffic.add(sent=1, rejected=1)
        >>> traffic.add(sent=1, retried=1)
        >>> traffic.add(answered=8)
        >>> traffic
        Traffic(answered=8, sent=2, retried=1, timed_out=0, rejected=1, dropped=0)
    """

    answered: int = 0
    sent: int = 0
    retried: int = 0
    timed_out: int = 0
    rejected: int = 0
    dropped: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False, compare=False)

    def add(self, **more: int) -> None:
        """Add to the counters named."""
        with self._lock:
            for name, count in more.items():
                setattr(self, name, getattr(self, name) + count)


@dataclass(frozen=True)
class Clock:
    """The time in seconds, and how to wait; tests give their own."""

    now: Callable[[], float] = time.monotonic
    sleep: Callable[[float], None] = time.sleep


class Pace:
    """Lets at most ``rate`` images a second pass, evenly spaced over any number of threads.

    Args:
        rate: Images a second; None for no limit.
        clock: The time.

    Example:
        >>> waits = []
        >>> pace = Pace(4.0, Clock(now=lambda: 0.0, sleep=waits.append))
        >>> for _ in range(3):
        ...     pace.wait(2)
        >>> waits
        [0.5, 1.0]
    """

    def __init__(self, rate: float | None, clock: Clock) -> None:
        self.rate, self.clock = rate, clock
        self._free, self._lock = float("-inf"), threading.Lock()

    def wait(self, images: int) -> None:
        """Wait until a request with so many images may go."""
        if self.rate is None:
            return
        with self._lock:
            now = self.clock.now()
            start = max(now, self._free)
            self._free = start + images / self.rate
        if start > now:
            self.clock.sleep(start - now)


# What passes: slow, busy, restarting. A 500 is the model's own failure, which the same query meets again.
PASSING = (408, 425, 429, 502, 503, 504)
HINTS = {
    **dict.fromkeys((301, 302, 307, 308), ": redirects are not followed, give the final address"),
    401: ": give token_env=NAME, the environment variable that holds the token",
    403: ": is it the right token?",
    404: ": expected http://HOST:PORT/v2/models/NAME",
    413: ": give a smaller batch",
}
LONGEST_WAIT = 120  # seconds, of a back-off or of what a server asks for


@dataclass(frozen=True)
class Reply:
    """An answer with status 200.

    Args:
        headers: Its headers, with names in any case of letters.
        body: All of it.
    """

    headers: Mapping[str, str]
    body: bytes


class RejectedError(TargetError):
    """An answer with an error status that sending again would not change.

    Args:
        status: The status.
        message: What to tell.
    """

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Line:
    """A connection to one server, kept open between requests.

    Args:
        url: ``http://HOST:PORT/…`` or ``https://…``; paths are added to it.
        policy: How to speak to it.
        clock: The time; waiting goes through it.

    Raises:
        InputError: If the URL is none, or holds a password or a query, which would be stored and printed.
        MissingExtraError: If urllib3 is not installed.
    """

    def __init__(self, url: str, policy: Policy, clock: Clock | None = None) -> None:
        self.url, self.policy, self.clock = _checked_url(url), policy, clock or Clock()
        self.traffic, self._pace = Traffic(), Pace(policy.rate, self.clock)
        policy.authorization()
        self._pool, self._path = _pool(self.url, policy), urlsplit(self.url).path

    def __repr__(self) -> str:
        return f"Line({self.url!r}, {self.policy})"

    def get(self, path: str = "") -> Reply:
        """The answer to a GET, which is in no counter."""
        return self._send("GET", path, {}, None, images=0, traffic=Traffic())

    def post(self, path: str, headers: Mapping[str, str], body: bytes, images: int) -> Reply:
        """The answer to a POST about so many images; every sending is counted in ``traffic``.

        Raises:
            TargetError: If there is no answer after all repetitions.
            RejectedError: If there is one with an error status.
        """
        return self._send("POST", path, headers, body, images=images, traffic=self.traffic)

    def _send(
        self, method: str, path: str, headers: Mapping[str, str], body: bytes | None, *, images: int, traffic: Traffic
    ) -> Reply:
        from urllib3.exceptions import MaxRetryError

        patience = _patience(self.policy)
        while True:
            self._pace.wait(images)
            traffic.add(sent=1, retried=int(bool(patience.history)))
            response, failure = self._once(method, path, headers, body)
            if response is not None and response.status == 200:
                return Reply(response.headers, response.data)
            traffic.add(**{"rejected" if failure is None else _counter(failure): 1})
            self._give_up(path, response, failure)
            try:
                patience = patience.increment(method, path, response=response, error=failure)
            except MaxRetryError as error:
                told = self._told(path, response, failure)
                raise TargetError(f"{told}; sent {self.policy.retries + 1} times: is the server up?") from error.reason
            self.clock.sleep(_wait(patience, response))

    def _give_up(self, path: str, response: BaseHTTPResponse | None, failure: Exception | None) -> None:
        """Raise what sending again would not change."""
        from urllib3.exceptions import SSLError

        if response is not None and response.status not in PASSING:
            raise RejectedError(response.status, self._told(path, response, None))
        if isinstance(failure, SSLError):
            raise TargetError(
                f"{self._told(path, None, failure)}: give ca=FILE for a certificate of your own"
            ) from failure

    def _once(
        self, method: str, path: str, headers: Mapping[str, str], body: bytes | None
    ) -> tuple[BaseHTTPResponse | None, Exception | None]:
        """The response, whatever its status, or what went wrong."""
        from urllib3.exceptions import HTTPError

        token = self.policy.authorization()
        given = {**headers, **({} if token is None else {"Authorization": token})}
        try:
            # No redirect: the token is for this server.
            return self._pool.urlopen(method, self._path + path, body, given, retries=False, redirect=False), None
        except HTTPError as error:
            return None, error

    def _told(self, path: str, response: BaseHTTPResponse | None, failure: Exception | None) -> str:
        """Where, what and why, in one line, without the token that a server may send back."""
        if response is None:
            return f"{self.url}{path}: {self.policy.redacted(str(failure) or type(failure).__name__)}"
        lines = self.policy.redacted(response.data.decode("utf-8", "replace").strip()).splitlines()
        # What a Python traceback says stands at its end.
        lines = lines[::-1] if lines and lines[0].startswith("Traceback") else lines
        said = lines[0][:200] if lines else "(no message)"
        return f"{self.url}{path} answered {response.status}: {said}{HINTS.get(response.status, '')}"


def _checked_url(url: str) -> str:
    parts = urlsplit(url)
    if "@" in parts.netloc or parts.query or parts.fragment:
        raise InputError(
            f"the URL of {parts.hostname!r} holds a user, a query or a fragment; expected "
            "http://HOST:PORT/v2/models/NAME, and a secret in the environment variable that token_env names"
        )
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise InputError(f"{url!r} is no address of a server; expected http://HOST:PORT/v2/models/NAME")
    return url.rstrip("/")


def _pool(url: str, policy: Policy) -> urllib3.HTTPConnectionPool:
    try:
        import urllib3
    except ModuleNotFoundError as error:
        raise missing_extra("urllib3", "oip") from error
    timeout = urllib3.Timeout(connect=policy.connect, read=policy.read)
    trust = {"ca_certs": policy.ca} if policy.ca is not None else {}
    return urllib3.connection_from_url(url, timeout=timeout, maxsize=8, **trust)


def _patience(policy: Policy) -> urllib3.Retry:
    import urllib3

    return urllib3.Retry(policy.retries, backoff_factor=policy.backoff, backoff_max=LONGEST_WAIT, allowed_methods=None)


def _wait(patience: urllib3.Retry, response: BaseHTTPResponse | None) -> float:
    from urllib3.exceptions import InvalidHeader

    try:
        asked = None if response is None else patience.get_retry_after(response)
    except InvalidHeader:
        asked = None
    return min(patience.get_backoff_time() if asked is None else asked, LONGEST_WAIT)


def _counter(error: Exception) -> str:
    from urllib3.exceptions import NewConnectionError, TimeoutError

    # A refused connection descends from a time-out in some releases.
    return "timed_out" if isinstance(error, TimeoutError) and not isinstance(error, NewConnectionError) else "dropped"
