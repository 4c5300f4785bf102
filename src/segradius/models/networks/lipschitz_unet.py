"""A 1-Lipschitz U-Net: residual layers that contract, orthonormal 1×1 convolutions, and halves that wait aside."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from segradius.core.errors import is_whole, must
from segradius.models.networks.hrnet import check_sizes

#: Share of a step's mean in the running one.
MOMENTUM = 0.05


class Orthogonal(nn.Module):
    """A 1 × 1 convolution whose matrix has orthonormal rows or columns: the Q of a QR decomposition.

    Args:
        inputs: Channels that it takes.
        outputs: Channels that it gives. Distances stay where there are no fewer of them, and shrink otherwise.

    Example:
        >>> layer = Orthogonal(3, 5)
        >>> torch.allclose(layer.matrix().T @ layer.matrix(), torch.eye(3), atol=1e-5)
        True
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.plain = False
        self.weight = nn.Parameter(nn.init.orthogonal_(torch.empty(outputs, inputs)))
        self.bias = nn.Parameter(torch.zeros(outputs))

    def matrix(self) -> Tensor:
        """The matrix (outputs, inputs)."""
        if self.plain:
            return self.weight
        wide = self.weight.shape[0] < self.weight.shape[1]
        q, r = torch.linalg.qr(self.weight.T if wide else self.weight)
        matrix: Tensor = q * torch.where(r.diagonal() < 0, -1.0, 1.0).to(q)  # it moves with the weight without a jump
        return matrix.T if wide else matrix

    def forward(self, x: Tensor) -> Tensor:
        """(N, outputs, h, w) of (N, inputs, h, w)."""
        return functional.conv2d(x, self.matrix()[:, :, None, None], self.bias)


class Spectrum(nn.Module):
    """The cosine transform of blocks of pixels and of their bands, each coefficient times a learnt gain of at most 1.

    Colours of natural images differ by far more from one block to the next than what is in a block does, and a network
    that must not amplify learns slowly from what is a hundredth of the rest. So gains start such that no coefficient is
    usually larger than ``level``: large ones are made smaller, which is as Lipschitz as leaving them.

    Args:
        bands: B.
        side: Of a block.
        level: Standard deviation at most, about, of a coefficient of natural images in [0, 1], at the start; all are
            divided by it.

    Example:
        >>> layer = Spectrum(3, 4, level=0.15)
        >>> bool(torch.linalg.matrix_norm(layer.matrix(), 2) <= 1 / 0.15)
        True
    """

    def __init__(self, bands: int, side: int, level: float) -> None:
        super().__init__()
        self.level = level
        parts = torch.kron(_cosines(bands), torch.kron(_cosines(side), _cosines(side)))
        self.waves: Tensor
        self.register_buffer("waves", parts.float())
        down, across = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
        far = (down**2 + across**2).flatten().sqrt()
        # Of the mean of the bands, and a tenth of it of their differences: about those of photographs of streets.
        usual = torch.where(far == 0, torch.tensor(0.5 * side), side / 16 / far.clamp_min(1))
        usual = torch.cat([usual, *[0.1 * usual] * (bands - 1)]) * math.sqrt(bands / 3)
        self.gain = nn.Parameter(torch.logit((level / usual).clamp(max=0.95)))

    def matrix(self) -> Tensor:
        """The matrix of the coefficients of a block (B·side², B·side²), of norm at most 1/level."""
        return self.gain.sigmoid()[:, None] * self.waves / self.level

    def forward(self, x: Tensor) -> Tensor:
        """(N, B·side², h, w) of a space-to-depth."""
        return functional.conv2d(x, self.matrix()[:, :, None, None])


def _cosines(side: int) -> Tensor:
    """The orthonormal cosine transform (side, side), float64."""
    at = torch.arange(side, dtype=torch.float64)
    waves = torch.cos(math.pi * (at + 0.5) * at[:, None] / side) * math.sqrt(2 / side)
    waves[0] *= math.sqrt(0.5)
    return waves


class ConvexPotential(nn.Module):
    """x − 2Kᵀ relu(Kx + b) with a convolution ‖K‖ ≤ 1, which is 1-Lipschitz: I − 2KᵀDK is between −I and I.

    Meunier et al., "A Dynamical System Perspective for Lipschitz Neural Networks" (ICML 2022), with the scaling of
    Araujo et al., "A Unified Algebraic Perspective on Lipschitz Neural Networks" (ICLR 2023): row i of the kernel is
    divided by √(Σ_j |KKᵀ|_ij q_j/q_i), |KKᵀ| summed over all shifts, with q = exp(``scale``) learnt. Zeros are around
    the image. Kx is taken less its mean over the batch in training, and less a running one, a constant, in evaluation,
    so that each row is bent at about half of the pixels.

    Args:
        channels: That it takes and gives.
        hidden: Rows of K; as many as channels where None.
        kernel_size: Side of the kernel, odd.

    Example:
        >>> layer = ConvexPotential(4)
        >>> x, y = torch.randn(2, 1, 4, 8, 8)
        >>> bool((layer(x) - layer(y)).norm() <= (x - y).norm())
        True
    """

    def __init__(self, channels: int, hidden: int | None = None, kernel_size: int = 3) -> None:
        super().__init__()
        rows = channels if hidden is None else hidden
        self.plain = False
        self.weight = nn.Parameter(_near_orthogonal(rows, channels, kernel_size))
        self.scale = nn.Parameter(torch.zeros(rows))
        self.bias = nn.Parameter(torch.zeros(rows))
        self.mean: Tensor
        self.register_buffer("mean", torch.zeros(rows))

    def kernel(self) -> Tensor:
        """The kernel (hidden, channels, k, k) of a convolution of norm at most 1."""
        if self.plain:
            return self.weight
        k, q = self.weight, self.scale.exp()
        down, across = k.shape[-2] - 1, k.shape[-1] - 1
        # Shifts up are the transposes of those down, and are not computed.
        gram = functional.conv2d(functional.pad(k, (across, across, 0, down)), k).abs()
        half = gram[:, :, 1:].sum((2, 3))
        rows = gram[:, :, 0].sum(2) + half + half.T
        return k * (rows @ q / q).clamp_min(1e-12).rsqrt()[:, None, None, None]

    def forward(self, x: Tensor) -> Tensor:
        """(N, channels, h, w) of the same."""
        k = self.kernel()
        around = k.shape[-1] // 2
        hidden = functional.conv2d(x, k, padding=around)
        mean = self.mean
        if self.training:
            mean = hidden.mean((0, 2, 3))
            self.mean.lerp_(mean.detach().to(self.mean), MOMENTUM)
        hidden = functional.relu(hidden + (self.bias - mean)[:, None, None])
        return x - 2 * functional.conv_transpose2d(hidden, k, padding=around)


def _near_orthogonal(rows: int, channels: int, side: int) -> Tensor:
    """A kernel of which scaling takes little off: of random numbers it leaves a norm of a third, which does little."""
    kernel = 0.1 / math.sqrt(channels * side**2) * torch.randn(rows, channels, side, side)
    kernel[..., side // 2, side // 2] += nn.init.orthogonal_(torch.empty(rows, channels))
    return kernel


class MaxMin(nn.Module):
    """The larger and the smaller of channels c and c + C/2: distances stay, and so do lengths of gradients.

    Anil, Lucas and Grosse, "Sorting out Lipschitz function approximation" (ICML 2019).

    Example:
        >>> MaxMin()(torch.tensor([1.0, 5.0, 2.0, 3.0]).view(1, 4, 1, 1)).flatten()
        tensor([2., 5., 1., 3.])
    """

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, h, w) of the same, C even."""
        one, other = x.chunk(2, 1)
        return torch.cat([torch.maximum(one, other), torch.minimum(one, other)], 1)


class Placed(nn.Module):
    """A learnt smooth function of the place is added, which is the same for all images: it moves no distance.

    Args:
        channels: That it is added to.
        order: Highest frequency, in half waves over a side.

    Example:
        >>> Placed(4)(torch.zeros(1, 4, 3, 5)).shape
        torch.Size([1, 4, 3, 5])
    """

    def __init__(self, channels: int, order: int = 3) -> None:
        super().__init__()
        self.order = order
        self.weight = nn.Parameter(torch.zeros(channels, 4 * order + 4 * order**2))

    def forward(self, x: Tensor) -> Tensor:
        """(N, channels, h, w) of the same."""
        down, across = (_waves(side, self.order, x) for side in x.shape[-2:])
        h, w = x.shape[-2:]
        both = (down[:, None, :, None] * across[None, :, None, :]).flatten(0, 1)
        waves = torch.cat([down[:, :, None].expand(-1, h, w), across[:, None].expand(-1, h, w), both])
        return x + torch.einsum("cn,nhw->chw", self.weight, waves)


def _waves(side: int, order: int, like: Tensor) -> Tensor:
    """Sines and cosines (2·order, side) of pixel centres."""
    place = (torch.arange(side, dtype=like.dtype, device=like.device) + 0.5) / side
    angle = math.pi * torch.arange(1, order + 1, dtype=like.dtype, device=like.device)[:, None] * place
    return torch.cat([angle.sin(), angle.cos()])


class Aside(nn.Module):
    """The first channels wait while the others go through an inner network, and join them again.

    It is as Lipschitz as the inner network, and at least 1, where skips that are copied would make it √2 times that.

    Args:
        keep: Channels that wait.
        inner: What the others go through; it gives their size back.

    Example:
        >>> Aside(2, nn.ReLU())(-torch.ones(1, 3, 1, 1)).flatten()
        tensor([-1., -1.,  0.])
    """

    def __init__(self, keep: int, inner: nn.Module) -> None:
        super().__init__()
        self.keep, self.inner = keep, inner

    def forward(self, x: Tensor) -> Tensor:
        """What waited, and what came back."""
        return torch.cat([x[:, : self.keep], self.inner(x[:, self.keep :])], 1)


class LipschitzUNet(nn.Module):
    """A segmentation network whose logits move by no more than its images do, in l2, by construction.

    Takes images (N, B, H, W) in [0, 1], not normalised, of any size, around which it puts zeros up to multiples of its
    `stride`; gives logits (N, num_classes, H, W). Space-to-depth keeps distances, residual layers are
    `ConvexPotential`, channels change by `Orthogonal`, and half of the channels of each level wait aside while the
    others go to the next one, of half the resolution. Biases that depend on the place cost nothing.

    Args:
        num_classes: C, at least 2.
        bands: B.
        first: Side of the first space-to-depth.
        widths: Channels of the levels, each even.
        blocks: Residual layers of each level, on the way down and as many on the way up.
        order: Of `Placed`.
        level: Of a `Spectrum` at its beginning; None for none. All is 1/level as large within as at the ends, so that
            biases learn as they do elsewhere.
        plain: Whether it has the matrices and kernels themselves, as `made_plain` leaves them, for weights of a trained
            network: two to four times as fast on single images, and 1-Lipschitz if those weights are.

    Raises:
        InputError: If a size is not a whole number of at least 1, a width is odd, or there are other numbers of widths
            than of blocks.

    Example:
        >>> network = LipschitzUNet(5, widths=(16, 16), blocks=(1, 1))
        >>> network(torch.rand(2, 3, 24, 32)).shape, network.stride
        (torch.Size([2, 5, 24, 32]), 8)
    """

    def __init__(
        self,
        num_classes: int = 11,
        bands: int = 3,
        *,
        first: int = 4,
        widths: Sequence[int] = (48, 96, 96),
        blocks: Sequence[int] = (2, 2, 2),
        order: int = 3,
        level: float | None = None,
        plain: bool = False,
    ) -> None:
        super().__init__()
        check_sizes({"num_classes": num_classes, "bands": bands, "first": first, "order": order})
        fine = level is None or (isinstance(level, int | float) and 0 < level < math.inf)
        must(fine, "level", level, "a finite number above 0, as 0.15, or none")
        fine = isinstance(widths, Sequence) and all(is_whole(width, 2) and width % 2 == 0 for width in widths)
        must(fine and len(widths) > 0, "widths", widths, "even numbers in a list, one a level")
        fine = isinstance(blocks, Sequence) and len(blocks) == len(widths) and all(map(is_whole, blocks))
        must(fine, "blocks", blocks, f"{len(widths)} whole numbers in a list, one a level")
        self.level = 1.0 if level is None else level
        self.stride = first * 2 ** (len(widths) - 1)
        pixels = first**2
        self.body = nn.Sequential(
            nn.PixelUnshuffle(first),
            *([] if level is None else [Spectrum(bands, first, level)]),
            Orthogonal(bands * pixels, widths[0]),
            *_level(tuple(widths), tuple(blocks), order),
            Orthogonal(widths[0], num_classes * pixels),
            Placed(num_classes * pixels, order),
            nn.PixelShuffle(first),
        )
        if plain:
            self.made_plain()

    @torch.no_grad()
    def made_plain(self) -> LipschitzUNet:
        """Itself with the matrices and kernels as weights, which are not trained any more.

        Example:
            >>> network, x = LipschitzUNet(2, widths=(4,), blocks=(1,)).eval(), torch.rand(1, 3, 8, 8)
            >>> bool((network(x) - network.made_plain()(x)).abs().max() < 1e-6)
            True
        """
        for module in self.modules():
            if isinstance(module, Orthogonal | ConvexPotential):
                module.weight.copy_(module.matrix() if isinstance(module, Orthogonal) else module.kernel())
                module.plain = True
        self.requires_grad_(False)
        return self

    def forward(self, x: Tensor) -> Tensor:
        """Logits at the size of the input."""
        height, width = x.shape[-2], x.shape[-1]
        fitted = functional.pad(x, (0, -width % self.stride, 0, -height % self.stride))
        logits: Tensor = self.body(fitted)[..., :height, :width]
        return self.level * logits


def _level(widths: tuple[int, ...], blocks: tuple[int, ...], order: int) -> list[nn.Module]:
    """The layers of a level and of those below it."""
    width = widths[0]
    down = [Placed(width, order), *(ConvexPotential(width) for _ in range(blocks[0]))]
    if not widths[1:]:
        return down
    inner = nn.Sequential(
        nn.PixelUnshuffle(2),
        Orthogonal(2 * width, widths[1]),
        *_level(widths[1:], blocks[1:], order),
        Orthogonal(widths[1], 2 * width),
        nn.PixelShuffle(2),
    )
    return [*down, Aside(width // 2, inner), *(ConvexPotential(width) for _ in range(blocks[0]))]
