"""Names come from outside: files, classes and labels made harmless where they are shown, and still told apart."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

_HIDDEN = ("Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp")
_ENTITIES = {ord(sign): f"&#{ord(sign)};" for sign in "|`*<>"} | {ord("&"): "&amp;"}
_FORMULA = ("=", "+", "-", "@", "'")


def visible(words: str, keep: str = "") -> str:
    r"""Text for a screen: control, format and undecodable characters as escapes, all else as it is.

    A terminal obeys escape sequences, and some characters turn the direction of what follows or are not seen at all.

    Args:
        words: Any text.
        keep: Control characters to leave, such as a newline.

    Example:
        >>> visible("a\x1b[31m\nb\u202e"), visible("caf\udce9"), visible("straße")
        ('a\\x1b[31m\\nb\\u202e', 'caf\\udce9', 'straße')
    """
    if words.isascii() and words.isprintable():
        return words
    return "".join(_escaped(sign) if _is_hidden(sign) and sign not in keep else sign for sign in words)


def markdown(words: str) -> str:
    r"""Text for a Markdown table or paragraph: no HTML, cell, link, code or emphasis begins or ends in it.

    Example:
        >>> print(markdown("<script>a|b</script> [x](y)"))
        &#60;script&#62;a&#124;b&#60;/script&#62; [x]&#40;y)
    """
    return visible(words).translate(_ENTITIES).replace("](", "]&#40;")


def figure(words: str) -> str:
    r"""Text for a figure: a dollar sign begins no formula, and a leading underscore hides no entry of a legend.

    Example:
        >>> print(figure(r"a$\frac$"))
        a\$\frac\$
    """
    shown = visible(words).replace("$", r"\$")
    return f" {shown}" if shown.startswith("_") else shown


def cell(value: object) -> object:
    """A value for CSV: `visible` text, with ' before what a spreadsheet would compute; numbers stay.

    Example:
        >>> cell("=1+1"), cell("-0.5"), cell(-0.5), cell("'=")
        ("'=1+1", '-0.5', -0.5, "''=")
    """
    if not isinstance(value, str):
        return value
    shown = visible(value)
    return f"'{shown}" if shown.startswith(_FORMULA) and not _is_number(shown) else shown


def from_cell(words: str) -> str:
    """The text that `cell` was given, as `visible` has it.

    Example:
        >>> from_cell("'=1+1"), from_cell("pgd")
        ('=1+1', 'pgd')
    """
    return words[1:] if words.startswith("'") and words[1:2] in _FORMULA and len(words) > 1 else words


def listed(names: Sequence[str], most: int = 5) -> str:
    """The first of many names, and how many more there are.

    Example:
        >>> listed(["a", "b", "c"], most=2)
        'a, b and 1 more'
    """
    more = f" and {len(names) - most:,} more" if len(names) > most else ""
    return ", ".join(map(visible, names[:most])) + more


def _is_hidden(sign: str) -> bool:
    return unicodedata.category(sign) in _HIDDEN


def _escaped(sign: str) -> str:
    return sign.encode("unicode_escape").decode()


def _is_number(words: str) -> bool:
    try:
        float(words)
    except ValueError:
        return False
    return True
