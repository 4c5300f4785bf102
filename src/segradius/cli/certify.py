"""``segradius certify``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from segradius.core import text
from segradius.core.errors import InputError

if TYPE_CHECKING:
    from segradius.evaluation import CrossChecking

Number = float | str


def certify(
    data: str,
    model: str | None = None,
    target: str | None = None,
    sigma: Number = 0.25,
    n0: int = 100,
    n: int = 1000,
    alpha: Number = 0.001,
    tau: Number = 0.75,
    correction: str = "holm",
    k: int = 1,
    radii: Literal["none", "one", "two"] = "none",
    hierarchy: str | list[Any] | dict[str, Any] | None = None,
    gap: float | None = None,
    early_stop: float | None = None,
    clamp: bool = False,
    precision: Literal["float32", "bfloat16"] = "float32",
    region: str | None = None,
    attack: str | None = None,
    steps: int | None = None,
    samples: int | None = None,
    share: float | None = None,
    weakest: str | int | list[int] | None = None,
    check_copies: int | None = None,
    out: str = "segradius-certified",
    weights: str | None = None,
    num_classes: int | None = None,
    normalisation: str | dict[str, Any] | None = None,
    outputs: Literal["logits", "probabilities", "scores", "labels"] | None = None,
    answers: str | None = None,
    input: str | None = None,
    split: str | None = None,
    limit: int | None = None,
    stride: int = 1,
    size: str | None = None,
    protocol: str | None = None,
    seed: int = 0,
    device: str = "auto",
    batch_size: int | None = None,
    budget: int | None = None,
    checkpoint_seconds: float = 30.0,
    figures: int = 2,
    overwrite: bool = False,
) -> int:
    """Certify a segmentation model by randomized smoothing over the images of a data set.

    The model votes on noisy copies of each image; a pixel whose class is likelier than tau under noise, by a test with
    error rate alpha over all pixels of the image, is certified: no change of an l2 length below sigma·Φ⁻¹(tau) changes
    the smoothed model's class there. The others are abstained from. Prints a table and writes into a folder:
    results.json, per_image.csv, table.md, figure.png, radius.png, maps/ with the certified classes of every image and
    certificates/ with all of them as arrays. Started again, the same command goes on where it was stopped.

    Args:
        data: Images: scenes, voc:PATH, cityscapes:PATH, ade20k:PATH, camvid:PATH or folder:PATH.
        model: Network: demo, torchvision:NAME, smp:NAME, hf:NAME, package.module:callable, each with ,key=value
            arguments, or the path of a YAML card.
        target: In place of a model, what is asked for scores only: onnx:FILE, oip:http://HOST:PORT/v2/models/NAME, each
            with ,key=value options, or anything that model takes.
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
        attack: Put the certificate to the test: white-box attacks, commas between them, as in cr_pgd,sea, on the
            smoothed model inside the certified radius; counts the certified pixels that flip.
        steps: Steps of those attacks. Default: 10.
        samples: Noisy copies behind each of their gradients. Default: 8.
        share: Of the certified radius that they may use, below 1. Default: 0.99.
        weakest: Beside all certified pixels, attack the so many that are nearest to flipping. Default:
            1,10.
        check_copies: Fresh noisy copies that judge what they found. Default: 1000.
        out: Folder of the report.
        weights: File with the network's weights, .safetensors or a checkpoint that holds tensors only.
        num_classes: Number of classes, where the model does not tell.
        normalisation: imagenet, none, or a mapping of mean and std; inside the model, never done to the data.
        outputs: What the network returns, where it is not logits, or a served target, where it is not probabilities.
        answers: Make the target's answers as a deployed one's: digits=3 (rounded), top=2 (only the two best classes),
            labels, or several with commas.
        input: Make of the images what a deployed target would: uint8, jpeg=90.
        split: Part of the data set; its evaluation part by default.
        limit: Only the first so many images.
        stride: Only every stride-th image, as neighbouring frames of a video look alike.
        size: Resize to height x width, as in 240x320.
        protocol: Named preparation of images, instead of size.
        seed: Seed of all random numbers, which are drawn for each image by its id.
        device: auto, cpu, cuda or cuda:N.
        batch_size: Noisy copies in a pass; changes no result. Default: 4 on a CPU, 32 elsewhere.
        budget: Images that a target may answer in all, earlier runs in the folder included. Default: no limit.
        checkpoint_seconds: Seconds between checkpoints of an image's votes; 0 for one every pass.
        figures: Number of images in the picture.
        overwrite: Replace what another experiment left in the folder.

    Returns:
        The exit status.
    """
    import torch

    from segradius.cli.certify_files import read_hierarchy, read_region
    from segradius.cli.certifying import CertifyPlace, carry_out_certification
    from segradius.cli.opening import Asked, open_seen
    from segradius.cli.running import warn
    from segradius.cli.workflow import doubts
    from segradius.data import open_data
    from segradius.evaluation import Certification, DataChoice, Smoothing, digest

    if gap is not None and hierarchy is None:
        raise InputError("gap is for --hierarchy, which was not given")
    at = CertifyPlace(Path(out), overwrite, batch_size, figures, checkpoint_seconds)
    mask = read_region(region)
    smoothing = Smoothing(
        text.number("sigma", sigma),
        n0,
        n,
        text.number("alpha", alpha),
        text.number("tau", tau),
        correction,
        k,
        radii,
        read_hierarchy(hierarchy),
        0.9 if gap is None else gap,
        early_stop,
        clamp,
        precision,
        None if mask is None else digest((), mask),
    )
    images = DataChoice(data, split, text.size(size), protocol, limit, stride)
    asked = Asked(model, target, weights, num_classes, normalisation, outputs, answers, input, budget)
    opened = open_data(data, split=split, size=images.size, protocol=protocol, limit=limit, stride=stride)
    asked.check(opened.classes.names)
    torch.manual_seed(seed)  # a network without weights is at least the same one each time
    seen, chosen = open_seen(asked, device)
    for warning in doubts(asked.text, weights, seen.num_classes, len(opened.classes)):
        warn(warning)
    given: dict[str, Any] = {"steps": steps, "samples": samples, "share": share, "copies": check_copies}
    given["weakest"] = None if weakest is None else tuple(text.counts(weakest) or ())
    checking = _checking(attack, {name: value for name, value in given.items() if value is not None})
    if smoothing.sigma > 1:
        warn(f"sigma is {smoothing.sigma:g} for images in [0, 1]: was {smoothing.sigma:g}/255 meant?")
    carry_out_certification(Certification(chosen, images, smoothing, seed, checking), seen, opened, mask, at)
    return 0


def _checking(attack: str | None, options: Mapping[str, Any]) -> CrossChecking | None:
    from segradius.evaluation import CrossChecking

    if attack is not None:
        return CrossChecking(tuple(text.names(attack)), **options)
    for name in options:
        raise InputError(f"{'check_copies' if name == 'copies' else name} is for --attack, which was not given")
    return None
