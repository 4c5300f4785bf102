"""Requests to a server that are sent again where that can help, and told apart from new ones by their counters."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from segradius.errors import InputError, TargetError, missing_extra
from segradius.targets.oip_policy import Policy
from segradius.targets.traffic import Clock, Pace, Traffic

if TYPE_CHECKING:
    import urllib3
    from urllib3.response import BaseHTTPResponse

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
