"""All of a server's answer, within bounds: bytes on the wire, bytes after decompression, and seconds for the whole."""

from __future__ import annotations

import contextlib
import socket
import threading
import zlib
from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Any

from segradius.core.errors import AnswerError

if TYPE_CHECKING:
    from urllib3.response import BaseHTTPResponse

#: Bytes that are read at once.
PIECE = 2**16
#: Bytes of what a server says to an error.
WORDS = 2**16
#: Of the headers ``Content-Encoding`` that can be undone; none is asked for.
PACKED = ("gzip", "x-gzip", "deflate")


class Deadline:
    """A context in which what is sent and read on the watched connection ends after so many seconds.

    A time-out of a socket is one of each piece; against one byte now and then only another thread helps, which cuts
    the connection.

    Args:
        seconds: From the beginning of the context.
    """

    _present = threading.local()

    def __init__(self, seconds: float) -> None:
        self.seconds, self.over = seconds, False
        self._socket: socket.socket | None = None
        self._timer = threading.Timer(seconds, self._cut)
        self._timer.daemon = True

    def __enter__(self) -> Deadline:
        self._present.it = self
        self._timer.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._timer.cancel()
        self._present.it = None

    @classmethod
    def watch(cls, connection: socket.socket | None) -> None:
        """Cut this connection when the deadline of this thread, if there is one, is over."""
        it = getattr(cls._present, "it", None)
        if it is not None:
            it._socket = connection
            if it.over:
                it._cut()

    def _cut(self) -> None:
        self.over = True
        if self._socket is not None:
            with contextlib.suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)


def watched(kind: type[Any]) -> type[Any]:
    """A kind of connection whose socket a `Deadline` knows."""

    class Watched(kind):  # type: ignore[misc]
        def connect(self) -> None:
            super().connect()
            Deadline.watch(self.sock)

        def getresponse(self, *given: Any, **named: Any) -> Any:
            Deadline.watch(self.sock)
            return super().getresponse(*given, **named)

    return Watched


def read_body(response: BaseHTTPResponse, largest: int) -> bytes:
    """All of a response, decompressed.

    Args:
        response: Of which nothing was read.
        largest: Bytes that it may have, compressed and not.

    Raises:
        AnswerError: It is longer, or cannot be decompressed.
    """
    told = f"at most {largest} bytes, which is more than such an answer has"
    announced = response.headers.get("Content-Length", "")
    if announced.isdecimal() and (len(announced) > 18 or int(announced) > largest):
        raise AnswerError(f"the server announces {announced[:40]} bytes; expected {told}")
    body = bytearray()
    for piece in _unpacked(_pieces(response), response.headers, largest + 1):
        body += piece
        if len(body) > largest:
            raise AnswerError(f"the server goes on after {largest} bytes; expected {told}")
    return bytes(body)


def read_words(response: BaseHTTPResponse) -> str:
    """The beginning of what a server says to an error."""
    found = bytearray()
    with contextlib.suppress(AnswerError):
        for piece in _unpacked(_pieces(response), response.headers, WORDS):
            found += piece
            if len(found) >= WORDS:
                break
    return found[:WORDS].decode("utf-8", "replace")


def _pieces(response: BaseHTTPResponse) -> Iterator[bytes]:
    while piece := response.read(PIECE, decode_content=False):
        yield piece


def _unpacked(pieces: Iterator[bytes], headers: Mapping[str, str], most: int) -> Iterator[bytes]:
    """Pieces of at most so many bytes, decompressed if the headers say that they are compressed."""
    encoding = headers.get("Content-Encoding", "").strip().lower()
    if encoding in ("", "identity"):
        yield from pieces
        return
    if encoding not in PACKED:
        raise AnswerError(f"the server answers with Content-Encoding {encoding[:40]!r}; expected none, or gzip")
    unpack, ended = _unpacker(), False
    try:
        for piece in pieces:
            left = piece
            while left:
                yield unpack.decompress(left, most)
                left, ended = unpack.unconsumed_tail, unpack.eof
                if ended:  # another may follow
                    left, unpack = unpack.unused_data, _unpacker()
    except zlib.error as error:
        raise AnswerError(f"the server's answer is no {encoding}, as its Content-Encoding says: {error}") from error
    if not ended:
        raise AnswerError(f"the server's {encoding} stops before its end")


def _unpacker() -> Any:
    return zlib.decompressobj(zlib.MAX_WBITS | 32)  # finds out which of the two it is
