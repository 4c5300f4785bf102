"""Presets: what the paper, its published code and the authors of other attacks set otherwise than is done here."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from segradius.attacks.make import WHITE, attack_options, family_of
from segradius.core.errors import unknown_name
from segradius.threats.threat import norm_name

#: Of the threat, which every attack takes beside its own options.
_EVERY = {"projection": "euclidean"}


@dataclass(frozen=True)
class Preset:
    """Options that hold unless others are given, for the attacks that take them.

    Attributes:
        white: Of attacks that follow gradients.
        black: Of those that ask for scores.
        radius: Of the radius that guides either, by family: with gradients, with scores.
        steps: Of guided black-box attacks in these norms.
        own: Of single attacks, by name and norm; "" stands for every norm.
        alphas: Step lengths by ε of single attacks in l∞; between two of them that of the nearer one, to scale.
        miou: Which of the reported means of IoU is meant by MIoU.
        left: What is not set, and why, in sentences.
    """

    white: Mapping[str, Any]
    black: Mapping[str, Any]
    radius: tuple[Mapping[str, Any], Mapping[str, Any]]
    steps: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    own: Mapping[str, Mapping[str, Mapping[str, Any]]] = field(default_factory=dict)
    alphas: Mapping[str, Mapping[float, float]] = field(default_factory=dict)
    miou: str = ""
    left: tuple[str, ...] = ()


#: SemSegBench's: 20 steps, at ε = 8/255 in l∞ and 64/255 in l2.
_BENCH: Mapping[str, Mapping[str, Any]] = {
    "": {"keep": "last", "start": "uniform", "projection": "radial"},
    "l2": {"steps": 20, "alpha": 0.1},
    "linf": {"steps": 20, "alpha": 0.01},
}
#: That of attacks made to transfer, of steps of ε/T.
_TRANSFER: Mapping[str, Mapping[str, Any]] = {"": {"keep": "last"}, "linf": {"steps": 10}}
#: What SEA's authors found best for the attacks that they compare with, by 255·ε (their Table 1).
_TUNED = {0.25: 8e-4, 0.5: 9e-4, 1.0: 1e-3, 2.0: 2e-3, 4.0: 3e-3, 8.0: 5e-3, 12.0: 6e-3}
_LETTER = {"radius_unit": "pixel", "clamp": False}
PRESETS: Mapping[str, Preset] = {
    "paper": Preset(
        white={"keep": "last"},
        black={"keep": "last", "step": "ascent", "form": "paper", "mean": "all"},
        radius=(_LETTER, _LETTER),
        miou="MIoU/image, the mean over images and their classes",
        left=(
            "gamma of black-box attacks, for which the paper has no figure but Theorem 3's, longer than any image "
            "(2 % of eps here)",
            "void pixels in the mean of the loss of other attacks, whose steps have a fixed length and do not see it",
            "the range of the radius, which is cut to [0, 4.61] here: with sigma inside no weight shows it",
            "first=zero of dag_alg3, with which the letter never moves",
        ),
    ),
    "paper-code": Preset(
        white={"keep": "last", "projection": "radial"},
        black={"keep": "best", "judge_every": 1, "directions": "tiles:2", "projection": "radial", "mean": "all"},
        radius=({"every": 5}, {"samples": 16, "every": 100}),
        steps={"l1": {"step": "sign"}, "linf": {"step": "sign"}},
        miou="MIoU, over the data set",
        left=(
            "gamma and alpha of black-box attacks, arguments of that code without a published value; it divides by "
            "gamma, where Eq. 16 has 2 gamma",
            "steps in l∞: its script takes 50 of 2.5 eps/50 in every norm and does not project in l∞, which ends up to "
            "2.5 eps away; the paper's 20 of eps/20 never leave the ball",
            "void pixels in the mean of the loss of other attacks, whose steps have a fixed length and do not see it",
        ),
    ),
    "published": Preset(
        white={},
        black={},
        radius=({}, {}),
        own={
            "pgd": _BENCH,
            "segpgd": _BENCH,
            "cospgd": _BENCH,
            "rp_pgd": {"": {"keep": "last"}, "linf": {"steps": 100, "alpha": 0.01}},
            "eroseg": {"": {"keep": "last"}, "linf": {"steps": 10, "alpha": 0.001}},
            "fspgd": {"": {"keep": "last"}},
            **dict.fromkeys(("mi_fgsm", "ni_fgsm", "di_fgsm", "ti_fgsm", "mi_di_ti_fgsm"), _TRANSFER),
        },
        miou="MIoU, over the data set",
        left=(
            "eps: of pgd, segpgd and cospgd, which are SemSegBench's, 8/255 in l∞ and 64/255 in l2; of rp_pgd 0.03, of "
            "eroseg 8/255",
            "the start of l2 in SemSegBench, drawn from the edge of the ball and not from all of it",
            "every other attack: apgd, sea, asma and transegpgd are by default as published; the rest has no such run",
        ),
    ),
    "published-tuned": Preset(
        white={},
        black={},
        radius=({}, {}),
        own={name: {"linf": {"steps": 300}} for name in ("segpgd", "cospgd")},
        alphas={name: {eps / 255: alpha for eps, alpha in _TUNED.items()} for name in ("segpgd", "cospgd")},
        miou="MIoU, over the data set",
        left=(
            "the start, of which SEA's paper says nothing for the attacks that it compares with",
            "every attack but segpgd and cospgd in l∞; at an ε that SEA's authors did not run, α is the nearest one's, "
            "to scale",
        ),
    ),
}


def preset_options(preset: str, attack: str, norm: str | float = "l2", eps: float | None = None) -> dict[str, Any]:
    """Options of an attack under a preset.

    ``paper`` is what the paper says, ``paper-code`` what its published code does. ``published`` is what the authors of
    each attack ran, for PGD, SegPGD and CosPGD what SemSegBench runs; ``published-tuned`` is SegPGD and CosPGD with 300
    steps of the lengths that SEA's authors found best for them.

    Args:
        preset: Its name.
        attack: A registered name, with ``cr_`` before it for the guided form.
        norm: Norm of the threat.
        eps: Its budget; without it no step length is set that depends on it.

    Raises:
        InputError: For an unknown name.

    Example:
        >>> preset_options("paper", "cr_pgd")
        {'keep': 'last', 'radius_unit': 'pixel', 'clamp': False}
        >>> preset_options("paper-code", "pgd")
        {'keep': 'last', 'projection': 'radial'}
        >>> preset_options("published-tuned", "cospgd", "linf", 8 / 255)
        {'steps': 300, 'alpha': 0.005}
    """
    if preset not in PRESETS:
        raise unknown_name("preset", preset, PRESETS)
    chosen, white, known = PRESETS[preset], family_of(attack) is WHITE, attack_options(attack)
    found = dict(chosen.white if white else chosen.black)
    if "samples" in known and known["samples"].default:  # an attack without noisy samples is none of the paper's
        found |= chosen.radius[0 if white else 1]
        found |= {} if white else chosen.steps.get(norm_name(norm), {})
    if "step" in known and found.get("step", known["step"].default) != "ascent":
        found.pop("mean", None)  # other steps have a length of their own
    found |= _of_one(chosen, attack.removeprefix("cr_"), norm_name(norm), eps)
    return {option: value for option, value in found.items() if option in _EVERY.keys() | known.keys()}


def _of_one(preset: Preset, attack: str, norm: str, eps: float | None) -> dict[str, Any]:
    """What a preset sets of this attack alone."""
    own = preset.own.get(attack, {})
    found = {**own.get("", {}), **own.get(norm, {})}
    alphas = preset.alphas.get(attack, {})
    if norm == "linf" and alphas and eps is not None and 0 < eps < math.inf:
        near = min(alphas, key=lambda each: abs(math.log(each / eps)))
        found["alpha"] = float(f"{alphas[near] * eps / near:.6g}")
    return found


def differences(
    preset: str,
    attack: str,
    norm: str | float = "l2",
    eps: float | None = None,
    used: Mapping[str, Any] | None = None,
) -> list[str]:
    """What a preset changes of an attack's defaults, as ``option value (default)``.

    Args:
        preset: Its name.
        attack: A registered name.
        norm: Norm of the threat.
        eps: ε.
        used: Options that the attack has in the end; what was given in the place of the preset is not told.

    Example:
        >>> differences("paper-code", "cr_pgd", "linf")
        ['keep last (best)', 'projection radial (euclidean)', 'every 5 (its own)']
    """
    defaults = _EVERY | {option: p.default for option, p in attack_options(attack).items()}
    used = used or {}
    held = {o: v for o, v in preset_options(preset, attack, norm, eps).items() if used.get(o, v) == v}
    changed = {o: v for o, v in held.items() if v != defaults[o]}
    return [f"{o} {_said(value)} ({_said(defaults[o])})" for o, value in changed.items()]


def _said(value: Any) -> str:
    return "its own" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
