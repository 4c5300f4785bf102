"""What a certification runs: its options, the tests that follow from them, and what they promise in words."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from segradius.certification import Adaptive, Certificate, Hierarchy, Noise, PixelRadii, Sampling, SegCertify, Votes
from segradius.core.errors import InputError
from segradius.evaluation.crosschecking import CrossChecking
from segradius.evaluation.experiment import TARGET_ONLY, DataChoice, ModelChoice
from segradius.evaluation.identity import conflict, fingerprint_of, plain

#: From the votes of an image to its certificate.
Certify = Callable[[Votes], Certificate]

Groupings = tuple[Mapping[str, Sequence[str]], ...]

PRECISIONS = {"float32": torch.float32, "bfloat16": torch.bfloat16}


@dataclass(frozen=True)
class Smoothing:
    """How every image is certified. Nothing that changes no number, as the copies in a pass, is part of it.

    Args:
        sigma: σ of the noise.
        n0: Copies that name the class of each pixel.
        n: Copies that test it; the most that are drawn with ``early_stop``.
        alpha: Promised error rate for an image.
        tau: Probability that is tested for.
        correction: For the number of pixels; see `segradius.certification.CORRECTIONS`.
        k: Of the correction ``kfwer``.
        radii: A radius of its own for each pixel, from a bound on the guess (``"one"``), or on its rivals too
            (``"two"``).
        hierarchy: Ever coarser groupings of class names; none for single classes only.
        gap: Of `segradius.certification.Adaptive`.
        early_stop: Share of pixels that may be left undecided when sampling stops early; None to draw all copies.
        clamp: Whether noisy copies are clamped to [0, 1].
        precision: In which the network runs: ``"float32"`` or ``"bfloat16"``.
        region: Fingerprint of the mask that noise is confined to; None for the whole image.

    Raises:
        InputError: For a value out of range, or options that exclude each other.
    """

    sigma: float = 0.25
    n0: int = 100
    n: int = 1000
    alpha: float = 0.001
    tau: float = 0.75
    correction: str = "holm"
    k: int = 1
    radii: Literal["none", "one", "two"] = "none"
    hierarchy: Groupings = ()
    gap: float = 0.9
    early_stop: float | None = None
    clamp: bool = False
    precision: str = "float32"
    region: str | None = None

    def __post_init__(self) -> None:
        self.sampling()  # checks σ, n₀ and n
        if self.precision not in PRECISIONS:
            raise InputError(f"precision is {self.precision!r}; expected {' or '.join(PRECISIONS)}")
        if self.radii not in ("none", "one", "two"):
            raise InputError(f"radii is {self.radii!r}; expected none, one or two")
        if self.early_stop is not None and not 0 <= self.early_stop < 1:
            raise InputError(f"early_stop is {self.early_stop}; expected a share of pixels, 0 or more and below 1")
        if self.early_stop is not None and self.radii != "none":
            raise InputError("radii of pixels need a number of copies that was fixed before: leave out --early-stop")

    @property
    def test(self) -> SegCertify:
        """The test behind the common radius."""
        return SegCertify(self.tau, self.alpha, self.correction, self.k)

    def sampling(self, where: Tensor | None = None, together: int | None = None) -> Sampling:
        """How copies are drawn.

        Args:
            where: (H, W) bool, the pixels that noise falls on; None for all.
            together: Copies in one pass.
        """
        enough = None if self.early_stop is None else self.test.decided(self.n, self.early_stop)
        return Sampling(Noise(self.sigma, self.clamp, where), self.n0, self.n, together, enough)

    def certificates(self, names: Sequence[str]) -> dict[str, Certify]:
        """The certificates of an image, by name: ``segcertify``, and ``adaptive`` and ``radii`` where asked for.

        Args:
            names: Of the model's classes.

        Raises:
            InputError: For a hierarchy with other classes.
        """
        found: dict[str, Certify] = {"segcertify": self.test}
        if self.hierarchy:
            found["adaptive"] = Adaptive(self.test, Hierarchy.of(names, self.hierarchy), self.gap)
        if self.radii != "none":
            found["radii"] = PixelRadii(self.alpha, self.radii, simultaneous=self.correction != "none")
        return found


@dataclass(frozen=True)
class Certification:
    """Certificates of a model over images. Batch size, device and output folder are not part of it.

    Example:
        >>> one = Certification(ModelChoice("demo"), DataChoice("scenes", limit=3), Smoothing(0.25))
        >>> other = Certification(ModelChoice("demo"), DataChoice("scenes"), Smoothing(0.5))
        >>> other.extends(one.as_dict())
        'smoothing.sigma is 0.5, and 0.25 in the earlier run'
    """

    model: ModelChoice
    data: DataChoice
    smoothing: Smoothing
    seed: int = 0
    crosscheck: CrossChecking | None = None

    def __post_init__(self) -> None:
        if self.crosscheck is not None:
            self.crosscheck.check_correction(self.smoothing.correction)

    def as_dict(self) -> dict[str, Any]:
        """The experiment as plain numbers, strings, lists and dicts."""
        described: dict[str, Any] = plain(asdict(self))
        described["model"] = {k: v for k, v in described["model"].items() if v or k not in TARGET_ONLY}
        return {name: part for name, part in described.items() if name != "crosscheck" or part is not None}

    @property
    def identity(self) -> str:
        """A hash of everything that determines the results as a whole, equal on every machine."""
        return fingerprint_of(self.as_dict())

    @property
    def key(self) -> str:
        """A hash of everything that determines the result of an image of a given id."""
        described = self.as_dict()
        del described["data"]["limit"], described["data"]["stride"]
        if self.model.fingerprint:
            del described["model"]["weights"]
        return fingerprint_of(described)

    def extends(self, earlier: Mapping[str, Any]) -> str | None:
        """What keeps this experiment from going on with an earlier one; None where nothing does, as with more images.

        Args:
            earlier: `as_dict` of the earlier experiment.
        """
        return conflict(self.as_dict(), earlier)
