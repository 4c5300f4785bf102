"""A diffusion model as a denoiser, in one step from the time at which its noise is that of the images."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Literal

import torch
from torch import Tensor, nn

from segradius.core.declared import Count, Range, Sigma, read
from segradius.core.errors import InputError, one_of
from segradius.core.modules import construct, imported, object_in, working_folder
from segradius.core.text import parse_spec
from segradius.models.denoising import DENOISERS
from segradius.models.preprocessing import SizeLike, SizeRule, as_size_rule

#: A variance of the noise that one step adds.
Beta = Annotated[float, Range("(0, 1)")]
Schedule = Literal["linear", "cosine"]


def linear_schedule(steps: int = 1000, first: float = 1e-4, last: float = 0.02) -> tuple[float, ...]:
    """ᾱ_t = Π(1 − β_s), s ≤ t, with β from ``first`` to ``last`` in equal steps (Ho et al. 2020), largest first.

    Args:
        steps: T, at least 1.
        first: β of the first step, in (0, 1).
        last: β of the last, likewise.

    Example:
        >>> [round(each, 4) for each in linear_schedule(3, 0.1, 0.3)]
        [0.9, 0.72, 0.504]
    """
    betas = torch.linspace(first, last, steps, dtype=torch.float64)
    return tuple((1 - betas).cumprod(0).tolist())


def cosine_schedule(steps: int = 1000) -> tuple[float, ...]:
    """ᾱ_t by the squared cosine of Nichol and Dhariwal (2021), with s = 0.008 and β_t at most 0.999.

    Args:
        steps: T, at least 1.

    Example:
        >>> [round(each, 4) for each in cosine_schedule(2)]
        [0.4938, 0.0005]
    """

    def level(share: float) -> float:
        return math.cos((share + 0.008) / 1.008 * math.pi / 2) ** 2

    found, product = list[float](), 1.0
    for step in range(steps):
        product *= 1 - min(1 - level((step + 1) / steps) / level(step / steps), 0.999)
        found.append(product)
    return tuple(found)


class OneShotDiffusion(nn.Module):
    """The clean image that a diffusion model sees in a noisy one, in one pass (Carlini et al., Laousy et al. 2023).

    With x in [0, 1] and y = x + N(0, σ²), 2y − 1 is 2x − 1, an image in [−1, 1] as such models know them, plus noise of
    2σ. Theirs at time t is √ᾱ_t x₀ + √(1−ᾱ_t) ε, whose noise is √(1−ᾱ_t)/√ᾱ_t times the image: t is chosen so that this
    is 2σ. Then x_t = √ᾱ_t (2y − 1), and x̂₀ = (x_t − √(1−ᾱ_t) ε̂(x_t, t)) / √ᾱ_t, back in [0, 1] as (x̂₀ + 1)/2.

    Args:
        eps: From x_t (N, B, h, w) and t (N,) to the noise ε̂, or to what has it under ``sample``. Of twice the channels,
            as models that learn their variance give, the first half is the noise.
        sigma: σ of the smoothing, images being in [0, 1].
        alphas: ᾱ_t of t = 0, 1, …, each in (0, 1), falling.
        time: ``"nearest"``: the whole t whose noise is nearest 2σ by its logarithm, and its ᾱ_t; ``"between"``: t with
            a fraction, given as floating, between whole ones as log noise is, and ᾱ = 1/(1 + 4σ²).
        size: What sizes ``eps`` takes, as a network's. Images that are resized have no white noise of σ any more: pad
            them (``multiple_of``) where you can.
        clamp: Whether x̂₀ is clamped to [−1, 1].

    Raises:
        InputError: 2σ is noisier or less noisy than all of the times, a value is outside its range, or ``eps`` gives
            another shape.

    Example:
        >>> adapter = OneShotDiffusion(lambda x, t: torch.zeros_like(x), sigma=0.25)
        >>> adapter.t, round(adapter.alpha, 3), adapter(torch.full((1, 3, 4, 4), 0.5)).unique().item()
        (144, 0.8, 0.5)
    """

    def __init__(
        self,
        eps: Callable[[Tensor, Tensor], Any],
        sigma: float,
        alphas: Sequence[float] | Tensor | None = None,
        *,
        time: Literal["nearest", "between"] = "nearest",
        size: SizeLike = None,
        clamp: bool = True,
    ) -> None:
        super().__init__()
        one_of(("nearest", "between"), time=time)
        self.eps, self.sigma, self.clamp = eps, read("sigma", Sigma, sigma), clamp
        self.size = SizeRule() if size is None else as_size_rule(size)
        self.t, self.alpha = time_of(self.sigma, linear_schedule() if alphas is None else alphas, time)

    def extra_repr(self) -> str:
        """σ, t, ᾱ and the rest."""
        return f"sigma={self.sigma:g}, t={self.t:g}, alpha={self.alpha:.6g}, size={self.size}, clamp={self.clamp}"

    def forward(self, images: Tensor) -> Tensor:
        """Denoised images (N, B, H, W)."""
        scale, noise = math.sqrt(self.alpha), math.sqrt(1 - self.alpha)
        x = scale * self.size.fit(2 * images - 1)
        whole = isinstance(self.t, int)
        found = self.eps(x, torch.full((len(x),), self.t, device=x.device, dtype=torch.int64 if whole else x.dtype))
        found = getattr(found, "sample", found)
        if not isinstance(found, Tensor) or found.ndim != 4 or found.shape[1] not in (x.shape[1], 2 * x.shape[1]):
            shape = f"{tuple(found.shape)}" if isinstance(found, Tensor) else f"a {type(found).__name__}"
            raise InputError(f"eps gave {shape} for {tuple(x.shape)}; expected as many channels, or twice as many")
        clean = (x - noise * found[:, : x.shape[1]]) / scale
        clean = clean.clamp(-1, 1) if self.clamp else clean
        return (self.size.undo(clean, images.shape[-2], images.shape[-1]) + 1) / 2


def time_of(sigma: float, alphas: Sequence[float] | Tensor, time: str = "nearest") -> tuple[float, float]:
    """Time t and its ᾱ at which √(1−ᾱ)/√ᾱ is 2σ, as `OneShotDiffusion` takes them.

    Raises:
        InputError: The times end before that, or ``alphas`` do not fall between 1 and 0.

    Example:
        >>> time_of(0.5, (0.8, 0.5, 0.2)), time_of(0.75, (0.8, 0.5, 0.2), "between")[0]
        ((1, 0.5), 1.584962500721156)
    """
    level = torch.as_tensor(alphas, dtype=torch.float64).flatten()
    if not len(level) or not ((level > 0) & (level < 1)).all() or not (level.diff() < 0).all():
        raise InputError(f"alphas are {len(level)} numbers; expected at least one, falling, each between 0 and 1")
    noise = 0.5 * (torch.log1p(-level) - level.log())
    wanted = math.log(2 * sigma)
    if not noise[0] - 1e-9 <= wanted <= noise[-1] + 1e-9:
        least, most = (float(end.exp()) / 2 for end in (noise[0], noise[-1]))
        raise InputError(f"sigma is {sigma:g}; the times of the diffusion model are for {least:.4g} to {most:.4g}")
    if time == "nearest":
        t = int((noise - wanted).abs().argmin())
        return t, float(level[t])
    above = int(torch.searchsorted(noise, wanted).clamp(1, max(1, len(level) - 1)))
    low, high = float(noise[above - 1]), float(noise[min(above, len(level) - 1)])
    return above - 1 + ((wanted - low) / (high - low) if high > low else 0.0), 1 / (1 + 4 * sigma**2)


@DENOISERS.register("diffusion", trained=False)
def diffusion(
    eps: str,
    sigma: float,
    schedule: Schedule = "linear",
    steps: Count = 1000,
    first: Beta = 1e-4,
    last: Beta = 0.02,
    time: Literal["nearest", "between"] = "nearest",
    size: SizeLike = None,
    clamp: bool = True,
) -> OneShotDiffusion:
    """A diffusion model of your own in one step, eps=package.module:NAME,sigma=0.25, which runs that code.

    Args:
        eps: A module that predicts the noise from (x_t, t), or a function without arguments that makes one.
        sigma: σ of the smoothing, and of no other.
        schedule: How its noise grows: ``linear`` in β from ``first`` to ``last``, or ``cosine``.
        steps: T.
        first: β of the first step; of a linear schedule.
        last: β of the last step; likewise.
        time: See `OneShotDiffusion`.
        size: What sizes it takes, as {multiple_of: 32}.
        clamp: Whether what it makes is clamped to [0, 1].
    """
    one_of(("linear", "cosine"), schedule=schedule)
    spec = parse_spec(eps)
    with working_folder():
        thing: Any = object_in(imported(spec.source, "module of a diffusion model", ()), spec.name)
        if not isinstance(thing, nn.Module):
            thing = construct(str(spec), thing, spec.arguments, "a diffusion model")
    count, ends = read("steps", Count, steps), (read("first", Beta, first), read("last", Beta, last))
    alphas = cosine_schedule(count) if schedule == "cosine" else linear_schedule(count, *ends)
    return OneShotDiffusion(thing, sigma, alphas, time=time, size=size, clamp=clamp)
