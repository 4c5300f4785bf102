"""Segmenter: a vision transformer whose patches are compared with an embedding of each class."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from segradius.core.errors import InputError
from segradius.models.networks.resnet import check_count


class Attention(nn.Module):
    """Self-attention of tokens with several heads.

    Args:
        width: Channels of a token, a multiple of ``heads``.
        heads: How many.
        dropout: Chance of an attention weight or an output to be dropped in training, in [0, 1).
    """

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """(N, tokens, width) → the same shape."""
        images, tokens, width = x.shape
        parts = self.qkv(x).view(images, tokens, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        drop = self.dropout if self.training else 0.0
        mixed = functional.scaled_dot_product_attention(parts[0], parts[1], parts[2], dropout_p=drop)
        mixed = self.proj(mixed.transpose(1, 2).reshape(images, tokens, width))
        return functional.dropout(mixed, self.dropout, self.training)


class Mlp(nn.Module):
    """Two linear layers of each token, four times as wide between.

    Args:
        width: Channels of a token.
        dropout: Chance of a value to be dropped after each layer in training, in [0, 1).
    """

    def __init__(self, width: int, dropout: float) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.dropout = dropout

    def forward(self, x: Tensor) -> Tensor:
        """(N, tokens, width) → the same shape."""
        x = functional.dropout(functional.gelu(self.fc1(x)), self.dropout, self.training)
        return functional.dropout(self.fc2(x), self.dropout, self.training)


class TokenBlock(nn.Module):
    """A transformer's block: attention and `Mlp`, each on normalised tokens and added to them.

    Args:
        width: Channels of a token.
        heads: Of the attention.
        dropout: Of both.
    """

    def __init__(self, width: int, heads: int, dropout: float = 0.0) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attn, self.mlp = Attention(width, heads, dropout), Mlp(width, dropout)

    def forward(self, x: Tensor) -> Tensor:
        """(N, tokens, width) → the same shape."""
        x = x + self.attn(self.norm1(x))
        total: Tensor = x + self.mlp(self.norm2(x))
        return total


class PatchEmbedding(nn.Module):
    """A token of each patch.

    Args:
        patch: Side of a patch, in pixels.
        width: Channels of a token.
    """

    def __init__(self, patch: int, width: int) -> None:
        super().__init__()
        self.proj = nn.Conv2d(3, width, patch, stride=patch)

    def forward(self, x: Tensor) -> Tensor:
        """(N, 3, H, W) → (N, H/patch · W/patch, width), row by row."""
        found: Tensor = self.proj(x).flatten(2).transpose(1, 2)
        return found


class Encoder(nn.Module):
    """A vision transformer (Dosovitskiy et al., ICLR 2021) without its classifier.

    Args:
        grid: Patches along each side of the images that its positions were learnt for; interpolated for others.
        patch: Side of a patch, in pixels.
        width: Channels of a token.
        layers: Blocks.
        heads: Of each attention.
    """

    def __init__(self, grid: int, patch: int, width: int, layers: int, heads: int) -> None:
        super().__init__()
        self.grid, self.patch = grid, patch
        self.patch_embed = PatchEmbedding(patch, width)
        self.cls_token = nn.Parameter(torch.zeros(1, 1, width))
        self.pos_embed = nn.Parameter(torch.zeros(1, grid * grid + 1, width))
        self.blocks = nn.ModuleList(TokenBlock(width, heads) for _ in range(layers))
        self.norm = nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        """Normalised tokens (N, H/patch · W/patch, width) of the patches of images (N, 3, H, W)."""
        rows, columns = (side // self.patch for side in x.shape[-2:])
        patches = self.patch_embed(x)
        x = torch.cat([self.cls_token.expand(patches.shape[0], -1, -1), patches], 1) + self._positions(rows, columns)
        for block in self.blocks:
            x = block(x)
        found: Tensor = self.norm(x)[:, 1:]
        return found

    def _positions(self, rows: int, columns: int) -> Tensor:
        # As in the published code, by the number of patches: 16 × 64 of them keep the positions of 32 × 32.
        if rows * columns == self.grid**2:
            return self.pos_embed
        first, rest = self.pos_embed[:, :1], self.pos_embed[:, 1:]
        square = rest.transpose(1, 2).reshape(1, -1, self.grid, self.grid)
        square = functional.interpolate(square, (rows, columns), mode="bilinear", align_corners=False)
        return torch.cat([first, square.flatten(2).transpose(1, 2)], 1)


class MaskTransformer(nn.Module):
    """The decoder: blocks over tokens of patches and of classes, then the cosine of each patch with each class.

    Args:
        num_classes: C.
        width: Channels of a token.
        layers: Blocks.
        heads: Of each attention.
        dropout: Of each block.
    """

    def __init__(self, num_classes: int, width: int, layers: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.blocks = nn.ModuleList(TokenBlock(width, heads, dropout) for _ in range(layers))
        self.cls_emb = nn.Parameter(torch.zeros(1, num_classes, width))
        self.proj_dec = nn.Linear(width, width)
        self.proj_patch = nn.Parameter(torch.randn(width, width) * width**-0.5)
        self.proj_classes = nn.Parameter(torch.randn(width, width) * width**-0.5)
        self.decoder_norm, self.mask_norm = nn.LayerNorm(width), nn.LayerNorm(num_classes)

    def forward(self, tokens: Tensor) -> Tensor:
        """Logits (N, tokens, C) of tokens (N, tokens, width) of patches."""
        x = torch.cat([self.proj_dec(tokens), self.cls_emb.expand(tokens.shape[0], -1, -1)], 1)
        for block in self.blocks:
            x = block(x)
        x = self.decoder_norm(x)
        patches = functional.normalize(x[:, : -self.num_classes] @ self.proj_patch, dim=-1)
        classes = functional.normalize(x[:, -self.num_classes :] @ self.proj_classes, dim=-1)
        found: Tensor = self.mask_norm(patches @ classes.transpose(1, 2))
        return found


class ViTSegmenter(nn.Module):
    """Segmenter (Strudel et al., ICCV 2021) with a mask transformer: state-dict names of nmndeep/Robust-Segmentation.

    Any size goes in: sides are filled with zeros to a multiple of the patch, at the bottom and right, and logits are
    cropped again, as its authors do. The defaults are SEA's ViT-S/16. The classifier of the encoder's pre-training
    (``encoder.head.…``), which such checkpoints carry, is left out. In training blocks are not dropped at random.

    Args:
        num_classes: C, at least 1.
        side: Of the images that its positions were learnt for, in pixels; it belongs to a checkpoint.
        patch: Side of a patch, in pixels.
        width: Channels of a token.
        layers: Blocks of the encoder.
        heads: Of each attention; a divisor of ``width``.
        decoder_layers: Blocks of the decoder.
        dropout: Of the decoder's blocks in training, in [0, 1).

    Raises:
        InputError: If an argument is outside its range.

    Example:
        >>> network = ViTSegmenter(5, side=64, width=12, layers=1, heads=3, decoder_layers=1)
        >>> network.eval()(torch.rand(2, 3, 50, 70)).shape
        torch.Size([2, 5, 50, 70])
    """

    OPTIONAL: ClassVar[tuple[str, ...]] = ("encoder.head.",)
    IGNORED: ClassVar[tuple[str, ...]] = ()

    def __init__(
        self,
        num_classes: int = 151,
        *,
        side: int = 512,
        patch: int = 16,
        width: int = 384,
        layers: int = 12,
        heads: int = 6,
        decoder_layers: int = 2,
        dropout: float = 0.1,
    ) -> None:
        super().__init__()
        counts = {"num_classes": num_classes, "side": side, "patch": patch, "width": width, "layers": layers}
        for name, number in (counts | {"heads": heads, "decoder_layers": decoder_layers}).items():
            check_count(name, number)
        if side % patch or width % heads:
            raise InputError(
                f"side={side}, patch={patch}, width={width}, heads={heads}: expected a side of whole patches and heads "
                "that divide the width"
            )
        if not 0 <= dropout < 1:
            raise InputError(f"dropout={dropout!r}: expected a probability in [0, 1)")
        self.patch = patch
        self.encoder = Encoder(side // patch, patch, width, layers, heads)
        self.decoder = MaskTransformer(num_classes, width, decoder_layers, heads, dropout)
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.trunc_normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)
        for embedding in (self.encoder.cls_token, self.encoder.pos_embed, self.decoder.cls_emb):
            nn.init.trunc_normal_(embedding, std=0.02)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (N, C, H, W) at the size of images (N, 3, H, W)."""
        height, width = x.shape[-2:]
        x = functional.pad(x, (0, -width % self.patch, 0, -height % self.patch))
        rows, columns = (side // self.patch for side in x.shape[-2:])
        scores = self.decoder(self.encoder(x)).transpose(1, 2)
        coarse = scores.reshape(x.shape[0], -1, rows, columns)
        fine = functional.interpolate(coarse, x.shape[-2:], mode="bilinear", align_corners=False)
        return fine[..., :height, :width]
