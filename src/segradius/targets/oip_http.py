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
from segradius.core.escapes import visible
from segradius.targets.oip_body import Deadline, read_body, read_words, watched

if TYPE_CHECKING:
    import urllib3


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
        total: Seconds to wait for a whole answer, from the first byte sent to the last one read; None for five times
            ``read``.

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
    total: float | None = None

    def __post_init__(self) -> None:
        for name in ("connect", "read", "rate", "total"):
            value = getattr(self, name)
            must(value is None or 0 < value < math.inf, name, value, "a positive number")
        at_least(0, retries=self.retries)
        must(0 <= self.backoff < math.inf, "backoff", self.backoff, "at least 0")

    @property
    def patience(self) -> float:
        """Seconds to wait for a whole answer."""
        return 5 * self.read if self.total is None else self.total

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
        refused: Images whose answers arrived and could not be used; the server may have been paid for them.

    Example:
        >>> traffic = Traffic()
        >>> traffic.add(sent=1, rejected=1)
        >>> traffic.add(sent=1, retried=1)
        >>> traffic.add(answered=8)
        >>> traffic
        Traffic(answered=8, sent=2, retried=1, timed_out=0, rejected=1, dropped=0, refused=0)
    """

    answered: int = 0
    sent: int = 0
    retried: int = 0
    timed_out: int = 0
    rejected: int = 0
    dropped: int = 0
    refused: int = 0
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
    """An answer.

    Args:
        headers: Its headers, with names in any case of letters.
        body: All of it; of one with an error status the beginning.
        status: Its status.
    """

    headers: Mapping[str, str]
    body: bytes
    status: int = 200


#: From the headers of an answer to the bytes that its body has at most.
Largest = Callable[[Mapping[str, str]], int]
#: The same of metadata.
METADATA = 2**20


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
        return self._send("GET", path, {}, None, images=0, traffic=Traffic(), largest=lambda headers: METADATA)

    def post(self, path: str, headers: Mapping[str, str], body: bytes, images: int, largest: Largest) -> Reply:
        """The answer to a POST about so many images; every sending is counted in ``traffic``.

        Args:
            path: Added to the URL.
            headers: Of the request.
            body: Likewise.
            images: For the pace.
            largest: From the headers of an answer to the bytes that it has at most.

        Raises:
            TargetError: If there is no answer after all repetitions.
            RejectedError: If there is one with an error status.
            AnswerError: If it is larger.
        """
        return self._send("POST", path, headers, body, images=images, traffic=self.traffic, largest=largest)

    def _send(
        self,
        method: str,
        path: str,
        headers: Mapping[str, str],
        body: bytes | None,
        *,
        images: int,
        traffic: Traffic,
        largest: Largest,
    ) -> Reply:
        from urllib3.exceptions import MaxRetryError

        patience = _patience(self.policy)
        while True:
            self._pace.wait(images)
            traffic.add(sent=1, retried=int(bool(patience.history)))
            reply, failure = self._once(method, path, headers, body, largest)
            if reply is not None and reply.status == 200:
                return reply
            traffic.add(**{"rejected" if failure is None else _counter(failure): 1})
            self._give_up(path, reply, failure)
            try:
                patience = patience.increment(method, path, error=failure)
            except MaxRetryError as error:
                told = self._told(path, reply, failure)
                raise TargetError(f"{told}; sent {self.policy.retries + 1} times: is the server up?") from error.reason
            self.clock.sleep(_wait(patience, reply))

    def _give_up(self, path: str, reply: Reply | None, failure: Exception | None) -> None:
        """Raise what sending again would not change."""
        from urllib3.exceptions import LocationValueError, SSLError

        if isinstance(failure, LocationValueError):
            raise InputError(f"{self.url!r} is no address of a server: {failure}") from failure
        if reply is not None and reply.status not in PASSING:
            raise RejectedError(reply.status, self._told(path, reply, None))
        if isinstance(failure, SSLError):
            raise TargetError(
                f"{self._told(path, None, failure)}: give ca=FILE for a certificate of your own"
            ) from failure

    def _once(
        self, method: str, path: str, headers: Mapping[str, str], body: bytes | None, largest: Largest
    ) -> tuple[Reply | None, Exception | None]:
        """The reply, whatever its status, or what went wrong on the way."""
        from urllib3.exceptions import HTTPError, ReadTimeoutError

        token = self.policy.authorization()
        given = {"Accept-Encoding": "identity", **headers, **({} if token is None else {"Authorization": token})}
        response = None
        with Deadline(self.policy.patience) as deadline:
            try:
                # No redirect: the token is for this server.
                response = self._pool.urlopen(
                    method, self._path + path, body, given, retries=False, redirect=False, preload_content=False
                )
                if response.status == 200:
                    reply = Reply(response.headers, read_body(response, largest(response.headers)))
                else:
                    reply = Reply(response.headers, read_words(response).encode(), response.status)
                if deadline.over:  # what was cut may look like the end
                    raise TimeoutError
                return reply, None
            except Exception as error:
                if deadline.over:
                    told = f"no whole answer in {deadline.seconds:g} seconds (total=…)"
                    return None, ReadTimeoutError(self._pool, path, told)
                if isinstance(error, HTTPError):
                    return None, error
                raise
            finally:
                if response is not None:
                    if not response.closed:  # what is left of it must not be the beginning of the next
                        response.close()
                    response.release_conn()

    def _told(self, path: str, reply: Reply | None, failure: Exception | None) -> str:
        """Where, what and why, in one line, without the token that a server may send back."""
        if reply is None:
            return f"{self.url}{path}: {visible(self.policy.redacted(str(failure) or type(failure).__name__))}"
        lines = self.policy.redacted(reply.body.decode("utf-8", "replace").strip()).splitlines()
        # What a Python traceback says stands at its end.
        lines = lines[::-1] if lines and lines[0].startswith("Traceback") else lines
        said = visible(lines[0])[:200] if lines else "(no message)"
        return f"{self.url}{path} answered {reply.status}: {said}{HINTS.get(reply.status, '')}"


def _checked_url(url: str) -> str:
    wanted = "expected http://HOST:PORT/v2/models/NAME"
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError as error:  # of a port that is none, of brackets
        raise InputError(f"{_without_secret(url)!r} is no address of a server ({error}); {wanted}") from None
    whole = parts.scheme in ("http", "https") and bool(host)
    if "@" in parts.netloc or parts.query or parts.fragment or ("@" in url and not whole):
        raise InputError(
            f"the URL of {host!r} holds a user, a query or a fragment; {wanted}, and a secret in the environment "
            "variable that token_env names"
        )
    if not whole or port == 0 or not url.isprintable() or any(letter in url for letter in " \\"):
        raise InputError(f"{_without_secret(url)!r} is no address of a server; {wanted}")
    return url.rstrip("/")


def _without_secret(url: str) -> str:
    """What of a malformed URL can be repeated."""
    return "…" + url.rpartition("@")[2].partition("?")[0] if "@" in url else url.partition("?")[0].partition("#")[0]


def _pool(url: str, policy: Policy) -> urllib3.HTTPConnectionPool:
    try:
        import urllib3
    except ModuleNotFoundError as error:
        raise missing_extra("urllib3", "oip") from error
    timeout = urllib3.Timeout(connect=policy.connect, read=policy.read)
    trust = {"ca_certs": policy.ca} if policy.ca is not None else {}
    try:
        pool = urllib3.connection_from_url(url, timeout=timeout, maxsize=8, **trust)
    except urllib3.exceptions.HTTPError as error:
        raise InputError(f"{url!r} is no address of a server: {error}") from error
    pool.ConnectionCls = watched(pool.ConnectionCls)
    return pool


def _patience(policy: Policy) -> urllib3.Retry:
    import urllib3

    return urllib3.Retry(policy.retries, backoff_factor=policy.backoff, backoff_max=LONGEST_WAIT, allowed_methods=None)


def _wait(patience: urllib3.Retry, reply: Reply | None) -> float:
    from urllib3.exceptions import InvalidHeader

    after = None if reply is None else reply.headers.get("Retry-After")
    try:
        asked = None if after is None else patience.parse_retry_after(after)
    except InvalidHeader:
        asked = None
    return min(patience.get_backoff_time() if asked is None else asked, LONGEST_WAIT)


def _counter(error: Exception) -> str:
    from urllib3.exceptions import NewConnectionError, TimeoutError

    # A refused connection descends from a time-out in some releases.
    return "timed_out" if isinstance(error, TimeoutError) and not isinstance(error, NewConnectionError) else "dropped"
