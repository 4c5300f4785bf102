"""How keys and values are called in tables and figures: the paper's names for the networks, data and options it has."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

#: Of options, the paper's signs.
SIGNS: Mapping[str, str] = {
    "eps": "ε",
    "samples": "M",
    "sigma": "σ",
    "steps": "T",
    "every": "INT",
    "gamma": "γ",
    "alpha": "α",
}
#: Of values, by key.
NAMES: Mapping[str, Mapping[str, str]] = {
    "norm": {"l1": "ℓ₁", "l2": "ℓ₂", "linf": "ℓ∞"},
    "family": {"pspnet": "PSPNet", "psanet": "PSANet", "hrnet_ocr": "HRNet-OCR"},
    "data": {"voc": "Pascal VOC", "cityscapes": "Cityscapes", "ade20k": "ADE20K", "camvid": "CamVid"},
    "role": {
        "plain": "undefended",
        "fast_adt": "FastADT",
        "cr_fast_adt": "CR-FastADT",
        "cr_pgd_at": "trained on CR-PGD",
        "pgd_at": "trained on PGD",
        "clean_more": "trained longer, clean",
        "gaussian": "trained with noise",
    },
}  # fmt: skip


def word(key: str) -> str:
    """What a key is called.

    Example:
        >>> word("eps"), word("noise_copies")
        ('ε', 'noise copies')
    """
    return SIGNS.get(key, key.replace("_", " "))


def told(value: Any, key: str = "") -> str:
    """A value of a key in words.

    Example:
        >>> told("l2", "norm"), told(0.006), told(None), told(True), told("psanet", "family")
        ('ℓ₂', '0.006', '–', 'yes', 'PSANet')
    """
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:g}"
    return "–" if value is None else NAMES.get(key, {}).get(str(value), str(value))


def several(keys: Sequence[str], values: Sequence[Any], between: str = ", ") -> str:
    """Values of several keys in words, numbers with their sign, without those that are not there.

    Example:
        >>> several(("attack", "norm", "eps"), ("PGD", "l2", 1.5)), several(("attack", "norm"), ("clean", None))
        ('PGD, ℓ₂, ε = 1.5', 'clean')
    """
    return between.join(_one(key, value) for key, value in zip(keys, values, strict=True) if value is not None)


def _one(key: str, value: Any) -> str:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return f"{word(key)} = {told(value)}" if number or key in SIGNS else told(value, key)
