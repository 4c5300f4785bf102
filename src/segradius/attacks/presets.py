"""Presets: what the paper, and what its published code, set otherwise than this library does by default."""

from __future__ import annotations

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
        miou: Which of the reported means of IoU is meant by MIoU.
        left: What is not set, and why, in sentences.
    """

    white: Mapping[str, Any]
    black: Mapping[str, Any]
    radius: tuple[Mapping[str, Any], Mapping[str, Any]]
    steps: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    miou: str = ""
    left: tuple[str, ...] = ()


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
}


def preset_options(preset: str, attack: str, norm: str | float = "l2") -> dict[str, Any]:
    """Options of an attack under a preset: ``paper``, or ``paper-code`` for the paper's published code.

    Args:
        preset: Its name.
        attack: A registered name, with ``cr_`` before it for the guided form.
        norm: Norm of the threat.

    Raises:
        InputError: For an unknown name.

    Example:
        >>> preset_options("paper", "cr_pgd")
        {'keep': 'last', 'radius_unit': 'pixel', 'clamp': False}
        >>> preset_options("paper-code", "pgd")
        {'keep': 'last', 'projection': 'radial'}
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
    return {option: value for option, value in found.items() if option in _EVERY.keys() | known.keys()}


def differences(preset: str, attack: str, norm: str | float = "l2") -> list[str]:
    """What a preset changes of an attack's defaults, as ``option value (default)``.

    Example:
        >>> differences("paper-code", "cr_pgd", "linf")
        ['keep last (best)', 'projection radial (euclidean)', 'every 5 (its own)']
    """
    defaults = _EVERY | {option: p.default for option, p in attack_options(attack).items()}
    changed = {o: v for o, v in preset_options(preset, attack, norm).items() if v != defaults[o]}
    return [f"{o} {_said(value)} ({_said(defaults[o])})" for o, value in changed.items()]


def _said(value: Any) -> str:
    return "its own" if value is None else str(value).lower() if isinstance(value, bool) else str(value)
