"""A small room of specs: one scale of the network that comes with the library, on scenes, and what a test adds."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

SCALE: dict[str, Any] = {
    "about": "one",
    "data": {"scenes": {"data": "scenes:24x32,4", "limit": 2}},
    "networks": {"a-0": {"family": "a", "role": "plain", "seed": 0, "data": "scenes", "model": "demo"}},
    "values": {"eps": "1,2", "few": 1},
}
BLOCK: dict[str, Any] = {
    "about": "two attacks",
    "networks": {"role": "plain"},
    "study": {
        "budgets": {"eps": "l2=$eps"},
        "attacks": {"PGD": {"attack": "pgd"}, "CR": {"attack": "cr_pgd"}},
        "options": {"steps": 2},
        "sweeps": {"CR.samples": [1, 2]},
    },
}
ELEMENT: dict[str, Any] = {
    "title": "Accuracy", "paper": "Table 3", "section": "5.2", "says": "it falls", "blocks": ["white"],
    "shows": [{"kind": "table", "name": "table-3"}],
}  # fmt: skip
RECIPE: dict[str, Any] = {"all": {"epochs": 2, "batch_size": 4}, "demo": {"epochs": 1}}


def room(folder: Path, **files: Any) -> Path:
    """A room of those four, and of others: ``blocks_white={…}`` for blocks/white.yaml."""
    usual = {"scales_demo": SCALE, "blocks_white": BLOCK, "elements_table-3": ELEMENT, "recipes_plain": RECIPE}
    for name, content in (usual | files).items():
        path = folder / f"{name.replace('_', '/', 1)}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(yaml.safe_dump(content, sort_keys=False), "utf-8")
    return folder
