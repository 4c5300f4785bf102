"""Bounds from above on the l2 norms of convolutions and of separable resamplings, in float64."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

#: Multiplications that one more squaring, and all that is done on a grid of frequencies, may cost; squarings at most.
WORK, GRID_WORK, SQUARINGS = 4e8, 1e10, 4
#: What a grid may lose, and a bound that is as near to a value that is reached that no grid is asked.
LOSS, NEAR = 0.004, 1.001
#: Covers the rounding of float64 in what is computed here, which is below 1e-10 for any kernel that fits into memory.
SLACK = 1 + 1e-9


def matrix_norm(matrix: Tensor) -> float:
    """The largest singular value of (…, m, n) matrices, the largest of all of them, rounded up."""
    return SLACK * float(torch.linalg.matrix_norm(matrix.double(), 2).amax())


def convolution_norm(
    kernel: Tensor, stride: tuple[int, int] = (1, 1), groups: int = 1, *, enough: float = 0.0
) -> float:
    """A bound on the l2 norm of a convolution with zeros around the image, whatever its size and padding.

    It bounds the convolution of an infinite image, of which that of an image with zeros around it is a part, as is the
    circular one of a size that ``stride`` divides. Dilation does not change it while the stride is 1. A stride s is a
    space-to-depth by s and a convolution of stride 1, whose kernel is the same one regrouped. The smallest counts of

    - Gram iteration (Delattre et al., "Efficient Bound of Lipschitz Constant for Convolutional Layers by Gram
      Iteration", ICML 2023, and its form for zero padding, 2024): ‖K‖ ≤ (Σ_τ ‖G_τ‖₂)^(1/2^t) with G the kernel of
      (K*K)^(2^(t−1)), exact for orthogonal kernels;
    - Schur's test of Σ_τ |G_τ|, by which almost-orthogonal layers are scaled (Prach and Lampert, ECCV 2022);
    - the norms of the transfer matrix K̂ at N × N frequencies, over cos(π(h−1)/2N)·cos(π(w−1)/2N): a trigonometric
      polynomial of degree d is at least cos(dφ) of its maximum at an angle φ away from it (M. Riesz, 1914).

    Args:
        kernel: (O, I/groups, h, w), as of ``conv2d``; of a transposed convolution its own weight, which is the kernel
            of the convolution that it is the transpose of. Dilation written out where the stride is not 1.
        stride: Down and across.
        groups: As of ``conv2d``.
        enough: A bound as small as this is not made smaller.

    Returns:
        A number that is at least the norm.

    Example:
        >>> round(convolution_norm(torch.ones(1, 1, 3, 3) / 9), 6)  # of a mean, which leaves a constant as it is
        1.0
        >>> round(convolution_norm(torch.eye(8).view(8, 2, 2, 2), stride=(2, 2)), 6)  # orthogonal
        1.0
    """
    k = _regrouped(kernel.double(), stride)
    k = k.reshape(groups, k.shape[0] // groups, *k.shape[1:])
    scale = float(k.abs().amax())
    if scale == 0:
        return 0.0
    k = k / scale
    if k.shape[1] < k.shape[2]:  # the transpose has the same norm, and a smaller Gram matrix
        k = k.transpose(1, 2).flip(-2, -1)
    if k.shape[-2:] == (1, 1):
        return scale * matrix_norm(k[..., 0, 0])
    bound, reached = min(_by_schur(k), _by_gram(k, enough / (scale * SLACK))), _largest_at(k, (4, 4))
    if bound > max(NEAR * reached, enough / (scale * SLACK)):
        bound = min(bound, _by_grid(k))
    return scale * SLACK * bound


def _regrouped(kernel: Tensor, stride: tuple[int, int]) -> Tensor:
    """The kernel (O, I·s², h/s, w/s) that does after a space-to-depth what a kernel does with a stride."""
    if stride == (1, 1):
        return kernel
    out, inputs, h, w = kernel.shape
    down, across = stride
    k = functional.pad(kernel, (0, -w % across, 0, -h % down))
    k = k.reshape(out, inputs, k.shape[2] // down, down, k.shape[3] // across, across)
    return k.permute(0, 1, 3, 5, 2, 4).reshape(out, inputs * down * across, k.shape[2], k.shape[4])


def _by_gram(k: Tensor, enough: float) -> float:
    """The bound of Gram iteration for kernels (groups, O, I, h, w), O ≥ I, of values of at most 1."""
    gram = _product(k.transpose(1, 2).flip(-2, -1), k)
    best, log, power = math.inf, 0.0, 2
    for _ in range(SQUARINGS):
        # ‖K‖^power ≤ exp(log)·‖gram‖; scaled, so that the powers do not overflow.
        bound = min(_sum_of_norms(gram), _schur(gram))
        best = min(best, math.sqrt(bound) if power == 2 else bound ** (1 / power) * math.exp(log / power))
        side = (2 * gram.shape[-1] - 1) * (2 * gram.shape[-2] - 1)
        if best <= enough or side * gram.shape[0] * gram.shape[1] ** 3 > WORK:
            break
        largest = float(gram.abs().amax())
        gram, log, power = _product(gram / largest, gram / largest), 2 * (log + math.log(largest)), 2 * power
    return best


def _by_grid(k: Tensor) -> float:
    """The bound of a grid of frequencies for the same kernels."""
    degrees = [side - 1 for side in k.shape[-2:]]
    wanted = [max(1, math.ceil(math.pi / 2 * d / math.sqrt(LOSS))) for d in degrees]
    most = GRID_WORK / (k.shape[0] * k.shape[2] ** 3 * 10)
    share = min(1.0, math.sqrt(most / (wanted[0] * wanted[1])))
    grid = [max(d + 1, math.ceil(share * n)) for d, n in zip(degrees, wanted, strict=True)]
    loss = math.prod(math.cos(math.pi * d / (2 * n)) for d, n in zip(degrees, grid, strict=True))
    return _largest_at(k, (grid[0], grid[1])) / loss


def _largest_at(k: Tensor, grid: tuple[int, int]) -> float:
    """The largest norm of the transfer matrices of kernels (groups, O, I, h, w) at a grid of frequencies."""
    columns = grid[1] // 2 + 1  # the others are conjugates
    rows, found = max(1, int(2e6 / (columns * math.prod(k.shape[:3])))), 0.0
    down = torch.fft.fft(_wrapped(k, -2, grid[0]), dim=-2)
    for at in range(0, grid[0], rows):
        part = torch.fft.fft(_wrapped(down[..., at : at + rows, :], -1, grid[1]))[..., :columns]
        transfer = part.movedim((1, 2), (-2, -1))
        found = max(found, float(torch.linalg.eigvalsh(transfer.mH @ transfer).amax()))
    return math.sqrt(max(found, 0.0))


def _wrapped(k: Tensor, dim: int, n: int) -> Tensor:
    """Of length n along an axis: zeros added, or what is beyond added to what it stands for at n frequencies."""
    side = k.shape[dim]
    parts = [k.narrow(dim, at, min(n, side - at)) for at in range(0, side, n)]
    pads = ((0, n - part.shape[dim]) if dim == -1 else (0, 0, 0, n - part.shape[dim]) for part in parts)
    return torch.stack([functional.pad(part, pad) for part, pad in zip(parts, pads, strict=True)]).sum(0)


def _product(a: Tensor, b: Tensor) -> Tensor:
    """The kernel (…, h + h' − 1, w + w' − 1) of two convolutions one after the other, ``b`` first."""
    size = (a.shape[-2] + b.shape[-2] - 1, a.shape[-1] + b.shape[-1] - 1)
    left, right = (torch.fft.rfft2(x, size).movedim((1, 2), (-2, -1)) for x in (a, b))
    product: Tensor = torch.fft.irfft2((left @ right).movedim((-2, -1), (1, 2)), size)
    return product


def _sum_of_norms(gram: Tensor) -> float:
    """Σ_τ ‖G_τ‖₂, each bounded by the smaller of Frobenius' norm and √(‖·‖₁‖·‖∞); the largest of the groups."""
    size = gram.abs()
    frobenius = gram.square().sum((1, 2)).sqrt()
    mixed = (size.sum(1).amax(1) * size.sum(2).amax(1)).sqrt()
    return float(torch.minimum(frobenius, mixed).sum((-2, -1)).amax())


def _schur(gram: Tensor) -> float:
    """The norm of A = Σ_τ |G_τ|, symmetric: |⟨u, Gv⟩| ≤ ⟨|u|, A|v|⟩ at every frequency. Schur's test at its best."""
    return float(torch.linalg.matrix_norm(gram.abs().sum((-2, -1)), 2).amax())


def _by_schur(k: Tensor) -> float:
    """The bound that rows are scaled by in almost-orthogonal layers, of the larger side of K."""
    return math.sqrt(_schur(_product(k, k.transpose(1, 2).flip(-2, -1))))


def least_norm(linear: Callable[[Tensor], Tensor], shape: tuple[int, ...], steps: int = 5) -> float:
    """A number that is at most the l2 norm of a linear map, by power iteration from a random start.

    Args:
        linear: Of a float64 tensor of ``shape``; an added constant does not matter.
        shape: Of what it takes.
        steps: Of the iteration; two passes each.
    """
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = 0.0
    nothing = linear(torch.zeros_like(x))
    for _ in range(steps):
        x = (x / x.norm().clamp_min(1e-300)).requires_grad_()
        with torch.enable_grad():
            y = linear(x) - nothing.detach()
            (back,) = torch.autograd.grad(y, x, y.detach())
        found, x = max(found, float(y.detach().norm())), back
    return found


def separable_norm(resample: Callable[[Tensor], Tensor], size: tuple[int, int]) -> float:
    """The l2 norm of a linear resampling that treats rows and columns apart, channel by channel: pooling, resizing.

    Args:
        resample: Of a float64 tensor (1, n, h, w).
        size: Height and width of what it is given.

    Returns:
        The norm, the product of those of one column and one row, rounded up.

    Example:
        >>> round(separable_norm(lambda x: functional.interpolate(x, scale_factor=2), (4, 6)), 6)  # each pixel 4 times
        2.0
    """
    height, width = size
    down = torch.eye(height, dtype=torch.float64).view(1, height, height, 1).expand(-1, -1, -1, width)
    across = torch.eye(width, dtype=torch.float64).view(1, width, 1, width).expand(-1, -1, height, -1)
    zero = resample(torch.zeros(1, 1, height, width, dtype=torch.float64))
    # What is constant along the other axis: its weights sum up to one number at the middle, by which it is divided.
    whole = resample(torch.ones(1, 1, height, width, dtype=torch.float64)) - zero
    place = int(whole.abs().flatten().argmax())
    row, column = place // whole.shape[-1], place % whole.shape[-1]
    total = whole[0, 0, row, column]
    ups = (resample(down) - zero)[0, :, :, column]
    acrosses = (resample(across) - zero)[0, :, row, :]
    return matrix_norm(ups) * matrix_norm(acrosses) / abs(float(total))
