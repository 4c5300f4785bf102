r"""Do certificates hold? Images whose smoothed probabilities are known, and a linear model whose radii are.

    python studies/coverage.py simulate --out docs/data/certification/coverage.json
    python studies/coverage.py linear --out docs/data/certification/linear.json

``simulate`` draws votes of images with known probabilities, half of the pixels exactly at the threshold, which is the
hardest case, and counts the images in which a certificate errs. ``linear`` certifies a linear pixel classifier of two
classes, whose smoothed radius is its distance to the plane, and compares.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from jsonargparse import auto_cli
from scipy import stats
from torch import Tensor

import segradius as sr
from segradius.certification import Noise, PixelRadii, Sampling, SegCertify, Votes, vote
from segradius.radius import exact_radius
from segradius.report import Cells

CORRECTIONS = (("none", 1), ("bonferroni", 1), ("holm", 1), ("kfwer", 10), ("by", 1))


@dataclass
class Errors:
    """What a certificate did over images: see `Errors.row`."""

    images: int = 0
    wrong: int = 0  # images in which the promise was broken
    share: float = 0.0  # summed share of wrong pixels among those certified
    found: int = 0  # certified pixels among those that could rightly be
    possible: int = 0
    copies: int = 0

    def add(self, certified: Tensor, true: Tensor, allowed: int, copies: int) -> None:
        """Count an image: ``true`` are the pixels of which the certificate would be right."""
        false = int((certified & ~true).sum())
        self.images += 1
        self.wrong += false > allowed
        self.share += false / max(int(certified.sum()), 1)
        self.found += int((certified & true).sum())
        self.possible += int(true.sum())
        self.copies += copies

    def row(self) -> dict[str, float]:
        """Error rate with its exact 95 % interval, share of errors, power and mean copies."""
        ends = stats.binomtest(self.wrong, self.images).proportion_ci(0.95)
        return {
            "error": self.wrong / self.images,
            "low": float(ends.low),
            "high": float(ends.high),
            "false_share": self.share / self.images,
            "power": self.found / self.possible,
            "copies": self.copies / self.images,
        }


def simulate(
    out: Path,
    images: int = 2000,
    pixels: int = 500,
    n0: int = 10,
    n: int = 200,
    tau: float = 0.75,
    alpha: float = 0.05,
    shared: str = "0,0.9",
    seed: int = 0,
) -> None:
    """Error rates and power of every correction, fixed and stopped early, and of radii.

    Args:
        out: JSON file.
        images: Simulated images.
        pixels: Pixels of each.
        n0: Votes that choose the class.
        n: Votes that test it.
        tau: Threshold.
        alpha: Promised error rate.
        shared: Shares of the noise that all pixels have in common, commas between them.
        seed: Seed.
    """
    rows = []
    for rho in (float(text) for text in shared.split(",")):
        generator = torch.Generator().manual_seed(seed)
        book: dict[str, Errors] = {}
        for _ in range(images):
            p = _probabilities(pixels, tau, generator)
            first, second = (_draws(p, count, rho, generator) for count in (n0, n))
            _image(book, p, first, second, tau, alpha)
        rows += [{"shared": rho, "certificate": name, **errors.row()} for name, errors in book.items()]
    facts = {"images": images, "pixels": pixels, "n0": n0, "n": n, "tau": tau, "alpha": alpha, "seed": seed}
    out.write_text(json.dumps(facts | {"rows": rows}, indent=1) + "\n")
    line = "{shared:g}|{certificate}|{error:.4f}|[{low:.4f}, {high:.4f}]|{false_share:.5f}|{power:.3f}|{copies:.0f}"
    header = ("shared noise", "certificate", "error rate", "95 %", "false share", "power", "copies")
    print(Cells(f"{images} images", header, [line.format(**row).split("|") for row in rows]).markdown())


def linear(
    out: Path, side: int = 32, n0: int = 100, n: int = 100_000, sigma: float = 0.25, alpha: float = 0.001, seed: int = 0
) -> None:
    """Certified against exact radii of a linear pixel classifier.

    Args:
        out: JSON file.
        side: Height and width of the image.
        n0: Noisy copies that choose the class.
        n: Noisy copies that test it.
        sigma: Standard deviation of the noise.
        alpha: Error rate promised for the image.
        seed: Seed.
    """
    weight = torch.tensor([[0.6, -0.3, 0.2], [-0.6, 0.3, -0.2]])
    network = torch.nn.Conv2d(3, 2, 1, bias=False)
    network.weight.data = weight.view(2, 3, 1, 1)
    model = sr.wrap(network, num_classes=2)
    # Radii spread evenly over 0.45σ … 3.2σ, half of the pixels on either side of the plane.
    slope = (weight[0] - weight[1]).double()
    radius = torch.linspace(0.45, 3.2, side * side, dtype=torch.float64).mul(sigma)
    side_of_plane = torch.where(torch.arange(side * side) % 2 == 0, 1.0, -1.0).double()
    image = (0.5 * torch.ones(3).double() - slope * (slope.sum() * 0.5) / slope.square().sum()).view(3, 1)
    image = (image + (slope / slope.norm()).view(3, 1) * radius * side_of_plane).view(3, side, side).float()
    exact = _tiles(model, image)
    rows = []
    votes = vote(model.logits, image, 2, Sampling(Noise(sigma), n0, n, 256), sr.Randomness(seed, ("linear",)))
    for name, certificate in (
        ("one class", PixelRadii(alpha)(votes)),
        ("two classes", PixelRadii(alpha, "two")(votes)),
        ("one class, pixel by pixel", PixelRadii(alpha, simultaneous=False)(votes)),
        ("SegCertify, Holm", SegCertify(alpha=alpha)(votes)),
    ):
        ratio = (certificate.radius / exact)[certificate.certified]
        rows.append({
            "certificate": name,
            "certified": float(certificate.certified.double().mean()),
            "above": int((ratio > 1).sum()),
            "least": float(ratio.min()),
            "median": float(ratio.median()),
            "largest": float(ratio.max()),
            "within_5_percent": float((ratio >= 0.95).double().mean()),
            "band": _band(ratio, exact[certificate.certified] / sigma),
        })  # fmt: skip
    facts = {"pixels": side * side, "n0": n0, "n": n, "sigma": sigma, "alpha": alpha, "seed": seed}
    out.write_text(json.dumps(facts | {"rows": rows}, indent=1) + "\n")
    line = "{certificate}|{certified:.3f}|{above}|{least:.4f}|{median:.4f}|{largest:.4f}|{within_5_percent:.3f}"
    bands = ["none" if row["band"] is None else "{:.2f}, {:.2f}".format(*row["band"]) for row in rows]
    columns = "certificate", "certified", "above the exact", "certified/exact: least", "median", "largest"
    cells = [(*line.format(**row).split("|"), band) for row, band in zip(rows, bands, strict=True)]
    print(Cells(f"{side * side} pixels", (*columns, "within 5 %", "all of them from, to (σ)"), cells).markdown())


def _band(ratio: Tensor, exact: Tensor) -> tuple[float, float] | None:
    """Between the misses on either side of the median: the exact radii, in σ, that are all certified to within 5 %."""
    missed, middle = exact[ratio < 0.95], exact.median()
    low, high = missed[missed <= middle], missed[missed > middle]
    inside = exact[(exact > (low.max() if len(low) else 0)) & (exact < (high.min() if len(high) else torch.inf))]
    return (float(inside.min()), float(inside.max())) if len(inside) else None


def _tiles(model: sr.Segmenter, image: Tensor, side: int = 8) -> Tensor:
    """Exact radii, tile by tile, as the pixels of a 1×1 convolution do not touch."""
    tiles = image.unfold(1, side, side).unfold(2, side, side)  # (3, R, C, side, side)
    flat = tiles.permute(1, 2, 0, 3, 4).reshape(-1, 3, side, side)
    found = exact_radius(model, flat).view(*tiles.shape[1:3], side, side)
    return found.permute(0, 2, 1, 3).reshape(image.shape[1:])


def _probabilities(pixels: int, tau: float, generator: torch.Generator) -> Tensor:
    """Of class 0: half of the pixels exactly τ, the others anywhere above."""
    above = tau + (1 - tau) * torch.rand(pixels, generator=generator, dtype=torch.float64)
    return torch.where(torch.arange(pixels) % 2 == 0, tau, above)


def _draws(p: Tensor, count: int, shared: float, generator: torch.Generator) -> Tensor:
    """Votes for class 0 in ``count`` copies whose noise the pixels share in part, one after the other: (count, N)."""
    common = torch.randn(count, 1, generator=generator)
    own = torch.randn(count, len(p), generator=generator)
    noise = shared**0.5 * common + (1 - shared) ** 0.5 * own
    return noise < torch.special.ndtri(p).float()


def _image(book: dict[str, Errors], p: Tensor, first: Tensor, second: Tensor, tau: float, alpha: float) -> None:
    n = len(second)
    fixed = _votes(first, second, looks=False)
    chosen = torch.where(fixed.guess[0] == 0, p, 1 - p)
    for correction, k in CORRECTIONS:
        name = f"kfwer, k = {k}" if k > 1 else correction
        test = SegCertify(tau, alpha, correction, k)
        book.setdefault(f"{name}", Errors()).add(test(fixed).certified[0], chosen > tau, k - 1, n)
        if correction in ("bonferroni", "holm"):
            enough = test.decided(n, 0.02)
            for seen in range(20, n + 1, 20):
                looked = _votes(first, second[:seen], looks=True)
                if enough(looked):
                    break
            early = book.setdefault(f"{name}, stopped early", Errors())
            early.add(test(looked).certified[0], chosen > tau, 0, looked.n)
    truth = torch.special.ndtri(chosen)
    for form in ("one", "two"):
        found = PixelRadii(alpha, form)(fixed)
        book.setdefault(f"radii, {form} class{'es' * (form == 'two')}", Errors()).add(
            found.certified[0], (truth > 0) & (found.radius[0] <= truth), 0, n
        )


def _votes(first: Tensor, second: Tensor, *, looks: bool) -> Votes:
    counts = [torch.stack([lot.sum(0), (~lot).sum(0)]).int().unsqueeze(1) for lot in (first, second)]
    return Votes(counts[0], counts[1], len(first), len(second), 1.0, looks=looks)


def main(arguments: list[str] | None = None) -> Any:
    """Run one of the studies."""
    return auto_cli({"simulate": simulate, "linear": linear}, args=arguments, as_positional=False)


if __name__ == "__main__":
    main()
