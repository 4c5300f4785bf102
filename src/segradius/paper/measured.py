"""What was measured at a scale: a row for each image under each attack of each network, whatever block it is of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Of:
    """What a row is of.

    Attributes:
        block: Name of the block.
        network: Label of the network.
        family: Architecture: pspnet, psanet, hrnet_ocr.
        role: What it was trained as: plain, fast_adt, ….
        seed: That it was trained with.
        data: Label of the images.
        image: Id of the image.
    """

    block: str
    network: str
    family: str
    role: str
    seed: int
    data: str
    image: str


@dataclass(frozen=True)
class Seen(Of):
    """One image under one attack of one network.

    Attributes:
        attack: Label without what is swept; empty of the unattacked image.
        options: Values of the sweeps, by option; ``seed`` among them where the block has several seeds.
        norm: Of the threat; None of the unattacked.
        eps: Its budget, for images in [0, 1]; likewise.
        right: Labelled pixels that are right.
        labelled: All of them; 0 where NaN or infinite logits were met.
        miou: Mean over the image's classes of their IoU, as the paper has it, in [0, 1]; NaN without a labelled pixel.
        reached: Pixels at the aim, of targeted attacks; else None.
        eligible: Pixels that have an aim, likewise.
        forward: Passes over the image.
        backward: Likewise.
        seconds: Wall time of its batch, shared equally.
    """

    attack: str
    options: Mapping[str, Any]
    norm: str | None
    eps: float | None
    right: int
    labelled: int
    miou: float
    reached: int | None
    eligible: int | None
    forward: int
    backward: int
    seconds: float


@dataclass(frozen=True)
class Certified(Of):
    """What was certified of one image of one network.

    Attributes:
        options: What decides it: σ, n, n0, τ and α, by name.
        answer: ``base``, ``smoothed``, or the certificate.
        right: Labelled pixels that are right, of a certificate: and certified.
        labelled: All of them.
        abstained: Of them, about which nothing is said.
        copies: Noisy copies that it took.
    """

    options: Mapping[str, Any]
    answer: str
    right: int
    labelled: int
    abstained: int
    copies: int


@dataclass(frozen=True)
class Traced(Of):
    """A point of how a black-box attack went on one image; of long runs some points, evenly, and the last.

    Attributes:
        attack: As `Seen` has it, like ``options``, ``norm`` and ``eps``.
        queries: About the image so far.
        loss: Mean over the counted pixels.
        pixacc: Share of the labelled pixels that are right, in [0, 1].
        best: The same of the best point so far inside the threat; NaN before the first.
    """

    attack: str
    options: Mapping[str, Any]
    norm: str
    eps: float
    queries: int
    loss: float
    pixacc: float
    best: float


@dataclass(frozen=True)
class Measured:
    """All that was measured of some blocks at a scale.

    Attributes:
        seen: Images under attack, and unattacked.
        computed: What computed blocks gave, by block.
        certified: Certificates.
        traced: How black-box attacks went.
        folders: The study's folder by (block, data), where it is there: not of packed results.
    """

    seen: tuple[Seen, ...] = ()
    computed: Mapping[str, Any] = field(default_factory=dict)
    certified: tuple[Certified, ...] = ()
    traced: tuple[Traced, ...] = ()
    folders: Mapping[tuple[str, str], Path] = field(default_factory=dict)
