"""From any text, such as the id of an image or the label of an attack, to a file name that every file system takes."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from itertools import count
from urllib.parse import quote

#: Bytes of a name, its ending apart: with an ending and what marks a temporary file it stays below the usual 255.
LIMIT = 120
START = 96
#: What Windows takes for a device, with any ending.
DEVICE = re.compile(r"(con|prn|aux|nul|com\d|lpt\d)(\..*)?", re.IGNORECASE)


def safe_name(text: str) -> str:
    """A text as the name of a file, without its ending: ASCII, in one folder, visible, at most `LIMIT` bytes.

    What a name cannot hold is percent-encoded, undecodable bytes included. A name that would be too long, empty,
    hidden or a device's keeps its beginning and gets a digest of the whole. Texts that differ have names that differ,
    save in the case of letters: see `safe_names`.

    Args:
        text: Anything.

    Example:
        >>> safe_name("frankfurt/frankfurt_000000_000294")
        'frankfurt%2Ffrankfurt_000000_000294'
        >>> safe_name("山" * 28)[:9], len(safe_name("山" * 28)), safe_name(".hidden")
        ('%E5%B1%B1', 109, 'hidden-1692419006a8')
    """
    plain = quote(_bytes(text), safe=" ")
    fine = plain and len(plain) <= LIMIT and not plain.startswith(".") and not DEVICE.fullmatch(plain)
    return plain if fine else _marked(text)


def safe_names(texts: Iterable[str]) -> dict[str, str]:
    """Names of several files in one folder, by text, no two alike even where the case of letters is not kept.

    The first of those that are alike keeps its name, so that more texts change none.

    Example:
        >>> safe_names(["a", "A"])
        {'a': 'a', 'A': 'A-559aead08264'}
    """
    found: dict[str, str] = {}
    taken: set[str] = set()
    for text in dict.fromkeys(texts):
        name, turns = safe_name(text), count()
        while name.casefold() in taken:
            name = _marked(text, next(turns))
        taken.add(name.casefold())
        found[text] = name
    return found


def _marked(text: str, turn: int = 0) -> str:
    """The beginning of a name, and a digest; another one at every turn."""
    start = re.sub("%[0-9A-F]?$", "", quote(_bytes(text), safe=" ")[:START]).lstrip(".").replace(".", "_")
    mark = hashlib.sha256(_bytes(text) + turn * b"\0").hexdigest()[:12]
    return f"{start or 'unnamed'}-{mark}"


def _bytes(text: str) -> bytes:
    """Of a file's name those that it has on the disk, also where they are no UTF-8."""
    try:
        return text.encode("utf-8", "surrogateescape")
    except UnicodeEncodeError:
        return text.encode("utf-8", "surrogatepass")
