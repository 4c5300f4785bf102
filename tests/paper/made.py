"""Measured images made by hand, for tests of what is drawn of them."""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from segradius.paper.measured import Seen


def seen(network: str = "pspnet-0", attack: str = "", right: int = 50, **other: Any) -> Seen:
    """One image of 100 labelled pixels."""
    given: dict[str, Any] = {
        "block": "white-l2", "family": network.rpartition("-")[0] or network, "role": "plain", "seed": 0,
        "data": "camvid", "image": "a", "options": {}, "norm": "l2" if attack else None,
        "eps": 1.0 if attack else None, "labelled": 100, "classes": 4,
        "miou": right / 200, "reached": None, "eligible": None,
        "forward": 51 if attack else 1, "backward": 50 if attack else 0, "seconds": 0.5,
    }  # fmt: skip
    return Seen(network=network, attack=attack, right=right, **given | other)


def swept(
    families: Sequence[str] = ("pspnet",), seeds: int = 1, images: int = 8, attacks: Sequence[str] = ("PGD", "CR-PGD"),
    norm: str = "l2", budgets: Iterable[float] = (0.5, 1.0, 1.5),
    options: Mapping[str, Any] | None = None, **other: Any,
) -> tuple[Seen, ...]:  # fmt: skip
    """Attacks of growing ε on several networks, each weaker than the last, and the images unattacked."""
    draw = random.Random(0)
    found = []
    for family, seed, image in itertools.product(families, range(seeds), range(images)):
        about = {"network": f"{family}-{seed}", "family": family, "seed": seed, "image": f"image-{image}"}
        start = 80 + draw.randrange(15)
        found.append(seen(right=start, **about, **other))
        for (place, attack), eps in itertools.product(enumerate(attacks), budgets):
            left = max(0, start - int(25 * eps) - 3 * place - draw.randrange(8))
            found.append(seen(attack=attack, right=left, norm=norm, eps=eps, options=options or {}, **about, **other))
    return tuple(found)
