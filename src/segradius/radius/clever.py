"""CLEVER for segmentation: pixel-wise radius from an extreme-value estimate of the local Lipschitz constant.

Weng et al. (2018), "Evaluating the robustness of neural networks: an extreme value theory approach", for every pixel:
the end of a reverse Weibull distribution is fitted to the largest gradients sampled in a ball. The radius is an
*estimate, never a certificate*: no number of samples bounds the largest gradient from above.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from segradius.core.contracts import LogitModel
from segradius.core.declared import Count, Positive, Whole, check_fields
from segradius.core.ledger import Ledger
from segradius.core.prediction import predict
from segradius.core.randomness import Randomness
from segradius.radius.jacobians import derivative, differences, gradient_norms, plane_distances
from segradius.threats.threat import L2

#: Ends that are tried, as distances beyond the largest sample in units of the samples' range.
REACH = (1e-3, 4.0)
_ENDS = 24
_NEWTON = 3
_FLAT = 1e-6
_COLUMNS = 1 << 14  # columns at a time: the work then stays in the cache


@dataclass(frozen=True)
class Ball:
    """Where and how often CLEVER looks at gradients.

    Args:
        radius: R of the l2 ball around an image, in pixel units; no pixel's radius is estimated as larger.
        batches: N_b, batches of samples, each of which gives one maximum; the fit needs 3, for fewer the largest is
            taken.
        samples: N_s, samples of a batch.
        probes: K, random directions from which the length of all pixels' gradients is estimated at a sample; 0 for
            exact lengths, a backward pass for each pixel and class, for tiny images only.
    """

    radius: Positive = 1.5
    batches: Count = 10
    samples: Count = 32
    probes: Whole = 4

    def __post_init__(self) -> None:
        check_fields(self)

    def point(self, images: Tensor, randomness: Randomness, place: str, step: int) -> Tensor:
        """One point of each image's ball, uniform, not clamped; (N, B, H, W)."""
        return images + self.radius * L2().sample_ball(images, randomness.spawn(f"clever/{place}"), step)


@dataclass(frozen=True)
class CleverMap:
    """CLEVER's radius of each pixel.

    Attributes:
        radius: (N, H, W) in pixel units, in [0, R]; an l2 length over the image.
        prediction: (N, H, W) the class that it is about.
        rival: (N, H, W) the class that is nearest by this estimate.
        reach: R.
    """

    radius: Tensor
    prediction: Tensor
    rival: Tensor
    reach: float

    @property
    def normalised(self) -> Tensor:
        """Radius over R, in [0, 1]."""
        return self.radius / self.reach


@torch.no_grad()
def clever_radius(
    model: LogitModel,
    images: Tensor,
    randomness: Randomness,
    ball: Ball | None = None,
    *,
    step: int = 0,
    ledger: Ledger | None = None,
) -> CleverMap:
    """min_j min(g_ij(x) / L_ij, R) of every pixel i, an estimate and never a certificate.

    g_ij = z_ic − z_ij is the margin of the predicted class c over class j. L_ij estimates its largest gradient (l2) in
    the ball: the location of a reverse Weibull distribution fitted to N_b maxima of ‖∇g_ij‖ over N_s uniform samples.
    Nothing makes it an upper bound; see `segradius.radius.jacobians` for where it must be, and is, exact.

    A gradient for each pixel and class would take C·H·W backward passes a sample. With probes v ~ N(0, I),

        E (v·∇g_ij)² = ∇g_ijᵀ E[v vᵀ] ∇g_ij = ‖∇g_ij‖²,

    and J v gives v·∇g_ij for all pixels and all classes at once, so that a sample costs K passes whatever C is. The
    mean of K squares has a relative standard deviation of √(2/K). The K probes of an image are the same at every
    sample: the maximum is then one over gradients, not over the luck of the probes, and for a gradient that is constant
    in the ball the squared estimate stays unbiased, whatever N_b and N_s.

    Args:
        model: Anything with ``.logits(images)``; differentiable if ``probes`` is 0.
        images: (N, B, H, W) in [0, 1].
        randomness: Keys of the N images.
        ball: R, N_b, N_s and K; `Ball()` if None.
        step: Attack step, part of the samples' key.
        ledger: Where the passes are entered, as ``radius``: one forward, and for each of the N_b·N_s samples 2K forward
            (a pass with its tangent counts as two) or, for exact lengths, one forward and C·H·W backward.

    Example:
        >>> import segradius as sr
        >>> model = sr.wrap(torch.nn.Conv2d(3, 4, 1), num_classes=4)
        >>> found = clever_radius(model, torch.rand(2, 3, 8, 8), Randomness(0, ("a", "b")), Ball(samples=2))
        >>> found.radius.shape, bool((found.radius >= 0).all())
        (torch.Size([2, 8, 8]), True)
    """
    ball = ball or Ball()
    logits = model.logits(images)
    classes = predict(logits)[1]
    maxima = gradient_maxima(model, images, classes, randomness, ball, step)
    if ledger is not None:
        enter(ledger, ball, logits[0].numel())
    radius, rival = least_ratio(differences(logits, classes), maxima, classes)
    return CleverMap(radius.clamp_max(ball.radius), classes, rival, ball.radius)


def gradient_maxima(
    model: LogitModel, images: Tensor, classes: Tensor, randomness: Randomness, ball: Ball, step: int = 0
) -> Tensor:
    """Largest ‖∇g_ij‖ of each batch of samples, (N_b, N, C, H, W); memory does not grow with N_s."""
    found = []
    for batch in range(ball.batches):
        lengths = (
            _lengths(model, classes, ball, randomness, f"{batch}/{s}", step, images) for s in range(ball.samples)
        )
        largest = next(lengths)
        for length in lengths:
            largest = torch.maximum(largest, length, out=largest)
        found.append(largest)
    return torch.stack(found)


def squared_lengths(
    model: LogitModel, points: Tensor, classes: Tensor, randomness: Randomness, probes: int, step: int = 0
) -> Tensor:
    """Unbiased estimate of ‖∇g_ij‖² at given points, (N, C, H, W), from K probes."""
    total: Tensor | None = None
    for probe in range(probes):
        v = randomness.normal(points.shape[1:], f"clever probe/{probe}", step, device=points.device, dtype=points.dtype)
        square = differences(derivative(model, points, v), classes).square_()
        total = square if total is None else total.add_(square)
    assert total is not None
    return total.div_(probes)


def least_ratio(margins: Tensor, maxima: Tensor, classes: Tensor) -> tuple[Tensor, Tensor]:
    """min_j g_ij / L_ij and the class where it is, each (N, H, W), from margins (N, C, H, W) and `gradient_maxima`.

    A location lies between the largest sample and a few ranges beyond it, so most classes are out of the race, and the
    fit, the dear part, is made for the others only.
    """
    location = maxima.amax(0)
    utmost = location + REACH[1] * (location - maxima.amin(0))
    at_most = plane_distances(margins, location, classes).amin(1, keepdim=True)
    at_least = plane_distances(margins, utmost, classes)
    racing = (at_least <= at_most) & at_least.isfinite()
    location[racing] = reverse_weibull_location(maxima[:, racing])
    distances = plane_distances(margins, location, classes)
    least = distances.amin(1)
    return least, predict(-distances)[1]


def enter(ledger: Ledger, ball: Ball, outputs: int) -> None:
    """Enter the passes of one call of `clever_radius` on a model with C·H·W = ``outputs``."""
    count = ball.batches * ball.samples
    if ball.probes:
        ledger.enter("radius", forward=1 + 2 * ball.probes * count)
    else:
        ledger.enter("radius", forward=1 + count, backward=outputs * count)


def _lengths(
    model: LogitModel, classes: Tensor, ball: Ball, randomness: Randomness, place: str, step: int, images: Tensor
) -> Tensor:
    """‖∇g_ij‖ at one sample of the ball, (N, C, H, W)."""
    point = ball.point(images, randomness, place, step)
    if ball.probes:
        return squared_lengths(model, point, classes, randomness, ball.probes, step).sqrt_()
    with torch.enable_grad():
        norms = gradient_norms(model, point, classes)
    return norms.view(*norms.shape[:2], *images.shape[2:])


@torch.no_grad()
def reverse_weibull_location(maxima: Tensor) -> Tensor:
    """Location a (the end point) of the reverse Weibull F(x) = exp(−((a − x)/s)^k), x ≤ a, most likely by each column.

    For a fixed a the numbers a − x follow a two-parameter Weibull distribution, whose scale is in closed form and whose
    shape k is found by Newton steps. The profile likelihood is then compared over a grid of a, in float64, and refined
    by the parabola through its best three points. The shape is held at 1 or more, as the likelihood of three parameters
    has no maximum below, and a at most four ranges of the samples beyond the largest: many samples are most likely
    under the Gumbel distribution, which is the limit a → ∞.

    Args:
        maxima: (B, …), B samples of each column, ≥ 0; the largest gradient of each of B batches, in CLEVER.

    Returns:
        (…), at least the largest sample. It *is* the largest where B < 3, or where all samples are equal to within
        1e-6, as those of an affine model are.

    Example:
        >>> import torch
        >>> reverse_weibull_location(torch.tensor([[2.0], [2.0], [2.0]]))
        tensor([2.])
    """
    if len(maxima) < 3 or maxima.numel() == 0:
        return maxima.amax(0)
    columns = maxima.flatten(1)
    found = [_locations(part.double()) for part in torch.split(columns, _COLUMNS, dim=1)]
    return torch.cat(found).to(maxima.dtype).view(maxima.shape[1:])


def log_likelihood(excess: Tensor, shape: Tensor) -> Tensor:
    """Mean log-density of a two-parameter Weibull distribution at its most likely scale, less a constant.

    Args:
        excess: Logarithms of the samples, (B, M).
        shape: k, (M,).
    """
    mean_power = (shape * excess).logsumexp(0) - math.log(len(excess))
    return shape.log() - mean_power + (shape - 1) * excess.mean(0)


def _locations(maxima: Tensor) -> Tensor:
    """`reverse_weibull_location` of (B, M) in float64."""
    largest = maxima.amax(0)
    spread = largest - maxima.amin(0)
    flat = ~(spread > _FLAT * largest)
    distance = (largest - maxima) / torch.where(flat, 1.0, spread)  # in units of the range: 0 … 1
    low, high = (math.log(reach) for reach in REACH)
    ends = torch.linspace(low, high, _ENDS, dtype=maxima.dtype, device=maxima.device)
    shape, profile = None, []
    for end in ends.exp():
        excess = (distance + end).log()
        shape = _shape(excess, shape)
        profile.append(log_likelihood(excess, shape))
    beyond = _vertex(torch.stack(profile), ends).exp()
    return torch.where(flat, largest, largest + spread * beyond)


def _shape(excess: Tensor, start: Tensor | None) -> Tensor:
    """Most likely shape, at least 1: root of Σ y^k ln y / Σ y^k − mean ln y − 1/k, from the logarithms (B, M)."""
    mean = excess.mean(0)
    shape = (1.2825 / excess.std(0)).clamp_min(1.0) if start is None else start
    for _ in range(_NEWTON if start is not None else 2 * _NEWTON):
        power = (shape * excess).softmax(0)
        slanted = (power * excess).sum(0)
        curvature = (power * excess.square()).sum(0) - slanted.square() + shape.pow(-2)
        step = (slanted - mean - 1 / shape) / curvature
        shape = torch.maximum(shape - step, 0.5 * shape).clamp_min_(1.0)
    return shape


def _vertex(profile: Tensor, ends: Tensor) -> Tensor:
    """Where the parabola through the best of (G, M) values and its two neighbours has its top; the end of the grid."""
    best = profile.argmax(0)
    inner = best.clamp(1, len(ends) - 2)
    left, middle, right = (profile.gather(0, (inner + k).unsqueeze(0))[0] for k in (-1, 0, 1))
    bend = left - 2 * middle + right
    shift = torch.where(bend < 0, 0.5 * (left - right) / bend, 0.0)
    spacing = ends[1] - ends[0]
    return torch.where(best == inner, ends[inner] + spacing * shift, ends[best])
