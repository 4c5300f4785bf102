"""``segradius certify``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from segradius.cli.certify_lipschitz import NO_CONSTANT, LipschitzOptions
from segradius.cli.certify_patch import NO_PATCH, PatchOptions
from segradius.cli.options import DataOptions, ModelOptions, RunOptions, Subject, open_subject
from segradius.cli.workers import WORKERS, WorkerOptions
from segradius.core import text
from segradius.core.declared import (
    Copies,
    Count,
    Decay,
    Given,
    Inside,
    Majority,
    Part,
    Positive,
    Range,
    Sigma,
    only_with,
)
from segradius.core.errors import InputError
from segradius.core.safe_yaml import read_yaml
from segradius.core.screen import warn

if TYPE_CHECKING:
    from torch import Tensor

    from segradius.cli.run_folder import Planned
    from segradius.evaluation import Attacks, Certification, CrossChecking, Run, Smoothing, Store
    from segradius.evaluation.certify import Way


@dataclass(frozen=True)
class SmoothingOptions:
    """The certificate.

    Args:
        sigma: Standard deviation of the noise, images being in [0, 1]. Larger: larger radii, fewer certified pixels.
        n0: Noisy copies that name the class of each pixel.
        n: Noisy copies that test it; with early-stop or minutes the most that are drawn.
        alpha: Error rate that is promised for each image.
        tau: Probability that is tested for, at least 0.5. Larger: a larger radius, fewer certified pixels.
        correction: For the number of pixels tested: none, bonferroni, holm, kfwer or by. See segradius list
            corrections.
        k: Errors that kfwer keeps an image below.
        radii: A radius of its own for each pixel too, from the votes for its class (one) or for its rivals as well
            (two); or from its mean confidence, for the class of the largest, which is another smoothed model (soft).
        bound: Of mean confidences: betting, bernstein or hoeffding. Default: betting, the tightest.
        hierarchy: YAML file with groups of classes, by which a pixel in doubt may be certified: a mapping from a
            group's name to its classes, or a list of those from fine to coarse.
        gap: Share of the first copies by which a group must lead for a pixel to be tested at its
            level. Default: 0.9.
        early_stop: Stop sampling an image when at most this share of its pixels is undecided, as in 0.01; the test is
            then one that holds at any time. Default: draw all copies.
        minutes: For all images together, of which each has its share: sampling of an image stops when every pixel is
            decided or the share is used up, and n is set by the clock. Default: as long as it takes.
        clamp: Clamp noisy copies to [0, 1] before the model sees them; another smoothed model.
        precision: Of the network: float32 or bfloat16.
        region: Mask image: noise falls where it is not 0, and the certificate is about changes inside it only; all
            pixels of the image are certified.
    """

    sigma: Sigma = 0.25
    n0: Copies = 100
    n: Copies = 1000
    alpha: Inside = 0.001
    tau: Majority = 0.75
    correction: str = "holm"
    k: Annotated[Count, only_with(correction=["kfwer"])] = 1
    radii: Literal["none", "one", "two", "soft"] = "none"
    bound: Annotated[str | None, only_with(radii=["soft"])] = None
    hierarchy: str | list[Any] | dict[str, Any] | None = None
    gap: Annotated[Part | None, only_with(hierarchy=Given())] = None
    early_stop: Decay | None = None
    minutes: Positive | None = None
    clamp: bool = False
    precision: Literal["float32", "bfloat16"] = "float32"
    region: str | None = None

    def smoothing(self) -> tuple[Smoothing, Tensor | None]:
        """How every image is certified, and the mask that noise is confined to.

        Raises:
            InputError: For a value out of range, or a file that cannot be read.
        """
        from segradius.certification.soft import DEFAULT
        from segradius.evaluation import Smoothing, digest

        mask = read_region(self.region)
        given = {"hierarchy": read_hierarchy(self.hierarchy), "gap": 0.9 if self.gap is None else self.gap}
        given["bound"] = self.bound or DEFAULT
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
    steps: Count | None = None
    samples: Count | None = None
    share: Inside | None = None
    weakest: str | int | list[int] | None = None
    check_copies: Annotated[int, Range("[2, 1e7]")] | None = None

    def checking(self, *, certain: bool = False) -> CrossChecking | Attacks | None:
        """How certificates are attacked; None if they are not.

        Args:
            certain: Whether they hold with certainty, so that one contradiction refutes them.

        Raises:
            InputError: For a value out of range, an unknown attack, or options without one.
        """
        from segradius.evaluation import Attacks, CrossChecking

        given = {name: value for name, value in vars(self).items() if value is not None}
        if self.attack is None:
            for name in given:
                raise InputError(f"{name} is for --attack, which was not given")
            return None
        named: dict[str, Any] = {"attacks": tuple(text.names(given.pop("attack")))}
        if certain:
            if unused := [name for name in given if name != "steps"]:
                raise InputError(f"{unused[0]} is for attacks on certificates by noise, and these are certain")
            return Attacks(**given, **named)
        if "weakest" in given:
            named["weakest"] = tuple(text.counts(given.pop("weakest")) or ())
        if "check_copies" in given:
            named["copies"] = given.pop("check_copies")
        return CrossChecking(**given, **named)


#: Where the report goes unless said otherwise.
RUN = RunOptions("segradius-certified")


@dataclass(frozen=True)
class WayOptions:
    """How every image is certified, as it was asked for.

    Attributes:
        smoothing: By noise, unless another way is asked for.
        lipschitz: By a Lipschitz constant.
        patch: By masks, against a patch.
    """

    smoothing: SmoothingOptions = SmoothingOptions()
    lipschitz: LipschitzOptions = NO_CONSTANT
    patch: PatchOptions = NO_PATCH

    @property
    def certain(self) -> bool:
        """Whether the certificates hold with certainty; raises `InputError` for options of two ways."""
        asked = {"lipschitz": self.lipschitz.lipschitz, "patch": self.patch.patch}
        ways = [name for name, value in asked.items() if value is not None]
        if len(ways) > 1:
            raise InputError(f"{' and '.join(ways)} are two ways of certifying; expected one")
        self.lipschitz.check()
        self.patch.way()  # what is wrong is told before anything is opened
        if not ways:
            return False
        for name, value in vars(self.smoothing).items():
            if value != getattr(SmoothingOptions(), name):
                raise InputError(f"{name.replace('_', '-')} is for certificates by noise, and --{ways[0]} draws none")
        return True

    def way(self, of: Subject) -> tuple[Way, Tensor | None]:
        """How images are certified, and the mask that noise is confined to."""
        _ = self.certain
        found = [way for way in (self.lipschitz.way(of), self.patch.way()) if way is not None]
        return (found[0], None) if found else self.smoothing.smoothing()

    def files(self) -> dict[str, str | None]:
        """Files that its numbers depend on."""
        groups = self.smoothing.hierarchy if isinstance(self.smoothing.hierarchy, str) else None
        return {"smoothing.region": self.smoothing.region, "smoothing.hierarchy": groups}


def certify(
    data: DataOptions,
    model: ModelOptions,
    smoothing: SmoothingOptions,
    lipschitz: LipschitzOptions,
    patch: PatchOptions,
    check: CheckOptions,
    run: RunOptions = RUN,
    workers: WorkerOptions = WORKERS,
) -> int:
    """Certify a segmentation model over the images of a data set, by noise, a Lipschitz constant or masks.

    The model votes on noisy copies of each image; a pixel whose class is likelier than tau under noise, by a test with
    error rate alpha over all pixels of the image, is certified: no change of an l2 length below sigma·Φ⁻¹(tau) changes
    the smoothed model's class there. The others are abstained from. With lipschitz no noise is drawn: from one pass an
    image it is certified how many pixels stay right under every change of each length. With patch it is certified which
    pixels stay right, or raise an alarm, whatever is put inside one square. Prints a table and writes into a folder:
    results.json, per_image.csv, table.md, figure.png, radius.png, maps/ with the certified classes of every image and
    certificates/ with all of them as arrays. Started again, the same command goes on where it was stopped.
    """
    from segradius.cli.run_folder import carry_out, status

    ways = WayOptions(smoothing, lipschitz, patch)
    checking = check.checking(certain=ways.certain)
    it = planned_certificates(open_subject(data, model, run), ways, checking, run, hands=workers.workers or 1)
    executor = workers.hired(run.device, allow_download=model.network.allow_download)
    found = carry_out(it.run, run, it.report, it.doubt, it.files, executor)
    return status(found, run)


def planned_certificates(
    of: Subject,
    ways: WayOptions,
    checking: CrossChecking | Attacks | None,
    run: RunOptions,
    name: str = "",
    hands: int = 1,
) -> Planned[Certification]:
    """Certificates of a model over images, as they are run and told.

    Args:
        of: Model and images.
        ways: How they are certified.
        checking: Attacks on the certificates; None for none.
        run: Where.
        name: Of the measurement in its study.
        hands: Images certified at once, among whom minutes are shared out.
    """
    from functools import partial

    from segradius.cli.run_folder import Planned
    from segradius.evaluation import Certification, Run, Smoothing
    from segradius.report import report_certificates

    way, mask = ways.way(of)
    if isinstance(way, Smoothing) and way.sigma > 1:
        warn(f"sigma is {way.sigma:g} for images in [0, 1]: was {way.sigma:g}/255 meant?")
    experiment = Certification(of.model, of.choice, way, run.seed, checking)
    one = Run(experiment, of.seen, of.data, 1, region=mask, together=run.together, hands=hands)
    return Planned(one, run, partial(report_certificates, figures=run.figures), _doubt, ways.files(), name)


def _doubt(run: Run[Certification], store: Store) -> None:
    """Tell by the first image that is still to be certified where no count of votes can certify a pixel.

    A region of another size than the image is told as well, and a precision that is slower than float32.
    """
    from segradius.core.bands import bands_of
    from segradius.data.usable import usable_samples
    from segradius.evaluation import Smoothing, least_copies
    from segradius.evaluation.batch import is_priced
    from segradius.evaluation.certify import slowdown

    left = set(run.missing(run.experiment.jobs[0], store))
    places = (place for place, image in enumerate(run.data.ids) if image in left)
    sample = next(usable_samples(run.data, run.model.num_classes, places, bands=bands_of(run.model)), None)
    if sample is None:
        return
    if run.region is not None and run.region.shape != sample.label.shape:
        mask, image = ("×".join(map(str, tensor.shape)) for tensor in (run.region, sample.label))
        warn(f"the region is {mask} and image {sample.id} is {image}: it is resized to each image (nearest neighbour)")
    it = run.experiment.way
    if not isinstance(it, Smoothing):
        return
    if it.precision != "float32" and not is_priced(run.model):
        times = slowdown(run.model, sample.image[None].to(run.model.device), it.precision)
        if times > 1.1:
            warn(f"a pass takes {times:.1f} times as long in {it.precision} as in float32 here, which is the default")
    least = least_copies(it, sample.label.numel())
    if least is None or it.n < least:
        needed = "no n below a million" if least is None else f"--n {least}"
        told = (
            f"n = {it.n} is too small: even a pixel with all votes is not certified at tau {it.tau:g}, alpha "
            f"{it.alpha:g} and {sample.label.numel()} pixels ({it.correction}); {needed} is the least with which one "
            "can be"
        )
        if it.radii == "none":
            raise InputError(told)
        warn(f"{told}. Radii of pixels need fewer")


def read_hierarchy(given: str | Sequence[Any] | Mapping[str, Any] | None) -> tuple[dict[str, list[str]], ...]:
    """Groupings of classes, from a YAML file or as such a file holds them.

    Raises:
        InputError: The file cannot be read, or is not as said.

    Example:
        >>> read_hierarchy({"ground": ["road", "pavement"]})
        ({'ground': ['road', 'pavement']},)
    """
    if given is None:
        return ()
    where = "hierarchy"
    if isinstance(given, str):
        where = given
        given = read_yaml(where, "the hierarchy")
    levels: list[Any] = given if isinstance(given, list) else [given]
    for level in levels:
        if not isinstance(level, Mapping) or not all(isinstance(names, list) and names for names in level.values()):
            raise InputError(
                f"{where}: expected a mapping from each group to a list of its classes, or a list of such mappings "
                f"from fine to coarse; found {level!r}"
            )
    return tuple({str(group): [str(name) for name in names] for group, names in level.items()} for level in levels)


def read_region(path: str | None) -> Tensor | None:
    """A mask (h, w) bool from an image file, true where a pixel is not 0.

    Raises:
        InputError: It cannot be read, or no pixel is true.
    """
    import torch

    from segradius.data.masks import read_marked

    if path is None:
        return None
    try:
        mask = torch.from_numpy(read_marked(Path(path)).copy())
    except InputError as error:
        raise InputError(f"the region {path}: {error}") from error
    if not bool(mask.any()):
        raise InputError(f"the region {path} is empty: every pixel of it is 0")
    return mask
