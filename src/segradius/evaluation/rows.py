"""What came out of a job for the images of a batch, by value: numbers by image, and what is kept beside them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from torch import Tensor

from segradius.evaluation.trace import ImageTrace
from segradius.metrics.counts import Pixels

CLEAN = "clean"
"""The key under which the judgement of the unattacked images is stored."""


@dataclass(frozen=True)
class ImageResult:
    """What one job found of one image; all counts are over labelled pixels.

    Args:
        image: Id of the image.
        pixels: Counts by class after the attack, or of what is certified.
        members: For an ensemble, those of each member that stayed valid.
        hit: Eligible pixels that reached the goal.
        eligible: Pixels that could: right before the attack, or for a targeted attack all that have a target.
        l1: ‖δ‖₁ over all B·H·W values; of w ⊙ δ where bands have weights, like the next two.
        l2: ‖δ‖₂.
        linf: ‖δ‖∞.
        outside: How far any adversarial value lies outside [0, 1]; 0 is right.
        disagreement: Pixels whose prediction differs when the adversarial image is judged again by itself; None where
            it was not, as each judging has its price.
        passes: ``{purpose: [forward, backward]}`` over this image.
        valid: False where NaN or infinite logits were met.
        seconds: Wall time of its batch, shared equally.
    """

    image: str
    pixels: Pixels
    members: Mapping[str, Pixels] = field(default_factory=dict)
    hit: int = 0
    eligible: int = 0
    l1: float = 0.0
    l2: float = 0.0
    linf: float = 0.0
    outside: float = 0.0
    disagreement: int | None = 0
    passes: Mapping[str, Sequence[int]] = field(default_factory=dict)
    valid: bool = True
    seconds: float = 0.0


@dataclass(frozen=True)
class Rounded:
    """What a model saw in an adversarial image of which 8 bits a value were kept; all counts over labelled pixels.

    Args:
        pixels: Counts by class.
        hit: Eligible pixels that reached the goal.
        l1: ‖δ‖₁ of the rounded image, of w ⊙ δ where bands have weights, like the next two.
        l2: ‖δ‖₂.
        linf: ‖δ‖∞.
        passes: Forward passes that it took.
        valid: False where NaN or infinite logits were met.
    """

    pixels: Pixels
    hit: int = 0
    l1: float = 0.0
    l2: float = 0.0
    linf: float = 0.0
    passes: int = 1
    valid: bool = True


@dataclass(frozen=True)
class Exhibit:
    """What the gallery has of an image beside its adversarial image and what was seen in that.

    Args:
        remaining: What the attack left of it, as `segradius.evaluation.share_left` has it.
        before: What the model saw in it unattacked, (H, W) int64.
    """

    remaining: float
    before: Tensor


@dataclass(frozen=True)
class Kept:
    """What is kept of a batch beside the numbers, each by image id.

    Args:
        adversarial: Adversarial images (B, H, W), float32.
        predictions: What the model saw in them, (H, W) int64.
        traces: How a black-box attack went.
        records: What else there is to say of an image, packed by the job's task: certificates, verdicts on them.
        confusions: Labels and what they were taken for, as `segradius.metrics.confusion.confusions` counts them.
        rounded: What was seen in the adversarial image after rounding to 8 bits.
        gallery: Of images that are kept because none, or all others, were hurt more; others that are, have no entry.
    """

    adversarial: Mapping[str, Tensor] = field(default_factory=dict)
    predictions: Mapping[str, Tensor] = field(default_factory=dict)
    traces: Mapping[str, ImageTrace] = field(default_factory=dict)
    records: Mapping[str, bytes] = field(default_factory=dict)
    confusions: Mapping[str, Tensor] = field(default_factory=dict)
    rounded: Mapping[str, Rounded] = field(default_factory=dict)
    gallery: Mapping[str, Exhibit] = field(default_factory=dict)


@dataclass(frozen=True)
class Rows:
    """What came out of a job for a batch, by value.

    Args:
        key: `Job.key`.
        results: One for each image.
        kept: What to keep beside them.
        set_aside: By id, why an image could not be used.
        journal: Name of the journal that is no longer needed once this is stored.
        failed: By id, why the model failed on an image, in a line.
        lost: Queries that a target answered in vain, as what they were asked for failed and begins anew.
        abandoned: Names of the journals of such attempts.
    """

    key: str
    results: Sequence[ImageResult] = ()
    kept: Kept = Kept()
    set_aside: Mapping[str, str] = field(default_factory=dict)
    journal: str | None = None
    failed: Mapping[str, str] = field(default_factory=dict)
    lost: int = 0
    abandoned: Sequence[str] = ()


def ledger(passes: Iterable[Mapping[str, Sequence[int]]]) -> dict[str, dict[str, int]]:
    """``{purpose: {"forward": …, "backward": …}}`` summed over images, from the ``passes`` of each.

    Example:
        >>> ledger([{"judging": (1, 0)}, {"judging": (1, 0), "attack": (3, 2)}])
        {'judging': {'forward': 2, 'backward': 0}, 'attack': {'forward': 3, 'backward': 2}}
    """
    book: dict[str, dict[str, int]] = {}
    for each in passes:
        for purpose, (forward, backward) in each.items():
            entry = book.setdefault(purpose, {"forward": 0, "backward": 0})
            entry["forward"] += forward
            entry["backward"] += backward
    return book
