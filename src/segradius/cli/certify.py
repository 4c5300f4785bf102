"""``segradius certify``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from segradius.cli.options import DataOptions, ModelOptions, RunOptions
from segradius.core import text
from segradius.core.errors import InputError

if TYPE_CHECKING:
    from torch import Tensor

    from segradius.evaluation import CrossChecking, Smoothing

Number = float | str


@dataclass(frozen=True)
class SmoothingOptions:
    """The certificate.

    Args:
        sigma: Standard deviation of the noise, images being in [0, 1]. Larger: larger radii, fewer certified pixels.
        n0: Noisy copies that name the class of each pixel.
        n: Noisy copies that test it; with early-stop the most that are drawn.
        alpha: Error rate that is promised for each image.
        tau: Probability that is tested for, at least 0.5. Larger: a larger radius, fewer certified pixels.
        correction: For the number of pixels tested: none, bonferroni, holm, kfwer or by. See segradius list
            corrections.
        k: Errors that kfwer keeps an image below.
        radii: A radius of its own for each pixel too, from the votes for its class (one) or for its rivals as well
            (two).
        hierarchy: YAML file with groups of classes, by which a pixel in doubt may be certified: a mapping from a
            group's name to its classes, or a list of those from fine to coarse.
        gap: Share of the first copies by which a group must lead for a pixel to be tested at its
            level. Default: 0.9.
        early_stop: Stop sampling an image when at most this share of its pixels is undecided, as in 0.01; the test is
            then one that holds at any time. Default: draw all copies.
        clamp: Clamp noisy copies to [0, 1] before the model sees them; another smoothed model.
        precision: Of the network: float32 or bfloat16.
        region: Mask image: noise falls where it is not 0, and the certificate is about changes inside it only; all
            pixels of the image are certified.
    """

    sigma: Number = 0.25
    n0: int = 100
    n: int = 1000
    alpha: Number = 0.001
    tau: Number = 0.75
    correction: str = "holm"
    k: int = 1
    radii: Literal["none", "one", "two"] = "none"
    hierarchy: str | list[Any] | dict[str, Any] | None = None
    gap: float | None = None
    early_stop: float | None = None
    clamp: bool = False
    precision: Literal["float32", "bfloat16"] = "float32"
    region: str | None = None

    def __post_init__(self) -> None:
        if self.gap is not None and self.hierarchy is None:
            raise InputError("gap is for --hierarchy, which was not given")

    def smoothing(self) -> tuple[Smoothing, Tensor | None]:
        """How every image is certified, and the mask that noise is confined to.

        Raises:
            InputError: For a value out of range, or a file that cannot be read.
        """
        from segradius.cli.certify_files import read_hierarchy, read_region
        from segradius.evaluation import Smoothing, digest

        mask = read_region(self.region)
        given: dict[str, Any] = {name: text.number(name, getattr(self, name)) for name in ("sigma", "alpha", "tau")}
        given |= {"hierarchy": read_hierarchy(self.hierarchy), "gap": 0.9 if self.gap is None else self.gap}
        return Smoothing(**vars(self) | given | {"region": None if mask is None else digest((), mask)}), mask


@dataclass(frozen=True)
class CheckOptions:
    """Attacks on the certificate.

    Args:
        attack: Put the certificate to the test: white-box attacks, commas between them, as in cr_pgd,sea, on the
            smoothed model inside the certified radius; counts the certified pixels that flip.
        steps: Steps of those attacks. Default: 10.
        samples: Noisy copies behind each of their gradients. Default: 8.
        share: Of the certified radius that they may use, below 1. Default: 0.99.
        weakest: Beside all certified pixels, attack the so many that are nearest to flipping. Default:
            1,10.
        check_copies: Fresh noisy copies that judge what they found. Default: 1000.
    """

    attack: str | None = None
    steps: int | None = None
    samples: int | None = None
    share: float | None = None
    weakest: str | int | list[int] | None = None
    check_copies: int | None = None

    def checking(self) -> CrossChecking | None:
        """How certificates are attacked; None if they are not.

        Raises:
            InputError: For a value out of range, an unknown attack, or options without one.
        """
        from segradius.evaluation import CrossChecking

        given = {name: value for name, value in vars(self).items() if value is not None}
        if self.attack is None:
            for name in given:
                raise InputError(f"{name} is for --attack, which was not given")
            return None
        named: dict[str, Any] = {"attacks": tuple(text.names(given.pop("attack")))}
        if "weakest" in given:
            named["weakest"] = tuple(text.counts(given.pop("weakest")) or ())
        if "check_copies" in given:
            named["copies"] = given.pop("check_copies")
        return CrossChecking(**given, **named)


#: Where the report goes unless said otherwise.
RUN = RunOptions("segradius-certified")


def certify(
    data: DataOptions, model: ModelOptions, smoothing: SmoothingOptions, check: CheckOptions, run: RunOptions = RUN
) -> int:
    """Certify a segmentation model by randomized smoothing over the images of a data set.

    The model votes on noisy copies of each image; a pixel whose class is likelier than tau under noise, by a test with
    error rate alpha over all pixels of the image, is certified: no change of an l2 length below sigma·Φ⁻¹(tau) changes
    the smoothed model's class there. The others are abstained from. Prints a table and writes into a folder:
    results.json, per_image.csv, table.md, figure.png, radius.png, maps/ with the certified classes of every image and
    certificates/ with all of them as arrays. Started again, the same command goes on where it was stopped.
    """
    from segradius.cli.certifying import CertifyPlace, carry_out_certification
    from segradius.cli.running import warn
    from segradius.evaluation import Certification

    at = CertifyPlace(run.folder, run.overwrite, run.batch_size, run.figures, run.checkpoint_seconds)
    test, mask = smoothing.smoothing()
    choice, opened = data.choice, data.open()
    seen, chosen = model.open(opened, run.device, run.seed)
    checking = check.checking()
    if test.sigma > 1:
        warn(f"sigma is {test.sigma:g} for images in [0, 1]: was {test.sigma:g}/255 meant?")
    carry_out_certification(Certification(chosen, choice, test, run.seed, checking), seen, opened, mask, at)
    return 0
