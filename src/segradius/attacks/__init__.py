"""Attacks on segmentation models: one loop with gradients, one with queries, many objectives and steps.

Every attack is a function here, ``pgd(norm="l2", eps=1.5, steps=50)``, and a name for `make_attack`. What they are made
of is here too: `Iterative` runs a step on an objective inside a threat, `Queried` a strategy within a budget of
queries, and `guided` adds the certified radius to either.
"""

import importlib
import pkgutil
from typing import Any

from segradius.attacks.apgd import Apgd, SparseApgd, apgd, flip_apgd
from segradius.attacks.asma import Adaptive, asma
from segradius.attacks.auto import auto
from segradius.attacks.bandit import Ascent, Averaged, Bandit, nes, opge, pbgd, zoo
from segradius.attacks.base import ATTACKS, BLACK_BOX, Attack, Method, Result, Task, Trace
from segradius.attacks.dag import DagAlgorithm3, Dense, dag, dag_alg3
from segradius.attacks.ensemble import Ensemble, ensemble
from segradius.attacks.flips import flips
from segradius.attacks.footprint import Footprint, footprint
from segradius.attacks.fspgd import Features, fspgd
from segradius.attacks.input_diversity import Diverse, di_fgsm
from segradius.attacks.local_pbgd import Listening, local_pbgd
from segradius.attacks.local_search import LocalSearch, local_search
from segradius.attacks.loop import Iterative, Look, Observation, Room, Step, StepSize, Straight
from segradius.attacks.make import attack_options, black_box, default_eps, guided, guided_by, make_attack, white_box
from segradius.attacks.pgd import Momentum, Steepest, cospgd, fgsm, flip_pgd, mi_fgsm, ni_fgsm, pgd, segpgd
from segradius.attacks.presets import PRESETS, preset_options
from segradius.attacks.queries import Queried, Rounds
from segradius.attacks.restarts import Restarts
from segradius.attacks.sea import ShrinkingBudget, sea
from segradius.attacks.settings import QuerySettings, Settings
from segradius.attacks.simba import Simba, simba
from segradius.attacks.square import Square, square
from segradius.attacks.strategy import Question, Strategy, Turn
from segradius.attacks.transegpgd import transegpgd
from segradius.attacks.transfer import mi_di_ti_fgsm
from segradius.attacks.translation import Smoothed, ti_fgsm

# Files that are not named above, so that adding an attack is adding a file. They are imported now, as a later import
# would put the module in the place of the attack after which it is named.
for _file in pkgutil.iter_modules(__path__):
    _found = vars(importlib.import_module(f"{__name__}.{_file.name}"))
    if _file.name in _found:
        globals()[_file.name] = _found[_file.name]


def __getattr__(name: str) -> Any:
    for registry in (ATTACKS, BLACK_BOX):
        if not name.startswith("_") and name in registry:
            return registry.facts(name)["function"]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(name for name in {*globals(), *ATTACKS, *BLACK_BOX} if not name.startswith("_"))


__all__ = [
    "ATTACKS",
    "BLACK_BOX",
    "PRESETS",
    "Adaptive",
    "Apgd",
    "Ascent",
    "Attack",
    "Averaged",
    "Bandit",
    "DagAlgorithm3",
    "Dense",
    "Diverse",
    "Ensemble",
    "Falling",
    "Features",
    "Footprint",
    "Iterative",
    "Listening",
    "LocalSearch",
    "Look",
    "Method",
    "Momentum",
    "Observation",
    "Queried",
    "QuerySettings",
    "Question",
    "Restarts",
    "Result",
    "Room",
    "Rounds",
    "Settings",
    "ShrinkingBudget",
    "Simba",
    "Smoothed",
    "SparseApgd",
    "Square",
    "Steepest",
    "Step",
    "StepSize",
    "Straight",
    "Strategy",
    "Task",
    "Trace",
    "Turn",
    "apgd",
    "asma",
    "attack_options",
    "auto",
    "black_box",
    "cospgd",
    "dag",
    "dag_alg3",
    "default_eps",
    "di_fgsm",
    "ensemble",
    "falling_pgd",
    "fgsm",
    "flip_apgd",
    "flip_pgd",
    "flips",
    "footprint",
    "fspgd",
    "guided",
    "guided_by",
    "local_pbgd",
    "local_search",
    "make_attack",
    "mi_di_ti_fgsm",
    "mi_fgsm",
    "nes",
    "ni_fgsm",
    "opge",
    "pbgd",
    "pgd",
    "preset_options",
    "sea",
    "segpgd",
    "simba",
    "square",
    "ti_fgsm",
    "transegpgd",
    "white_box",
    "zoo",
]
