"""What opens a door to others is kept nowhere: no message, table, card or store holds a token, key or password."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

HIDDEN = "***"
#: Names of options and entries whose values are secrets; of a variable of the environment only the name is ever given.
NAME = (
    r"(?:[\w-]*(?:auth|access|api|hf|hub|secret|private|client|bearer|session|refresh|service|account)[_-]?(?:token|key|secret)"
    r"|(?:[\w-]*_)?password|passwd|pwd|(?:use_auth_|hub_)?token|secret|authorization|credentials?)"
)
SIGNED = r"[\w-]*(?:key|sig|signature|token|credential|password|secret)[\w-]*"
VALUE = r"(?:'[^']*'|\"[^\"]*\"|(?:bearer |basic )?[^\s'\",;&)\]}]+)"
PATTERNS = (
    # name=value and 'name': value, as options, tuples of arguments, YAML and headers have it
    (re.compile(rf"(?i)(?<![\w-])({NAME}['\"]?\s*[=:]\s*){VALUE}"), rf"\1{HIDDEN}"),
    # user:password@ and token@ in an address
    (re.compile(r"(://)[^\s/@'\"]+@"), rf"\1{HIDDEN}@"),
    # a signed address
    (
        re.compile(r"(?i)([?&](?:[\w-]*(?:key|sig|signature|token|credential|password|secret)[\w-]*)=)[^&\s'\"]+"),
        rf"\1{HIDDEN}",
    ),
    (re.compile(r"(?i)\b(bearer|basic)\s+[\w.~+/-]{8,}=*"), rf"\1 {HIDDEN}"),
    # tokens that tell by their beginning what they are
    (re.compile(r"\b(?:hf_|gh[opsu]_|github_pat_|glpat-|xox[abp]-|sk-|AKIA|ASIA)[A-Za-z0-9_-]{12,}"), HIDDEN),
    (re.compile(r"\beyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]*"), HIDDEN),
)


def redacted(text: str) -> str:
    """A text with `HIDDEN` in place of every value that is a secret by its name, its place or its form.

    Example:
        >>> redacted("hf:team/net,token=abc,revision=main"), redacted("https://me:word@host/net.pth?sig=x1&size=3")
        ('hf:team/net,token=***,revision=main', 'https://***@host/net.pth?sig=***&size=3')
    """
    for pattern, hidden in PATTERNS:
        text = pattern.sub(hidden, text)
    return text


def is_secret(name: str) -> bool:
    """Whether an option of this name holds a secret.

    Example:
        >>> is_secret("token"), is_secret("api_key"), is_secret("token_env"), is_secret("with_cls_token")
        (True, True, False, False)
    """
    return re.fullmatch(NAME, name, re.I) is not None


def without_secrets(value: Any) -> Any:
    """A value as it may be kept: texts `redacted`, entries of mappings left out that are secrets by their name.

    Example:
        >>> without_secrets({"model": "hf:team/net", "arguments": {"token": "abc", "revision": "main"}})
        {'model': 'hf:team/net', 'arguments': {'revision': 'main'}}
    """
    if isinstance(value, str):
        return redacted(value)
    if isinstance(value, Mapping):
        return {key: without_secrets(inner) for key, inner in value.items() if not is_secret(str(key))}
    if isinstance(value, list | tuple):
        return type(value)(map(without_secrets, value))
    return value
