"""Object-contextual representations: each pixel looks at one feature vector per class.

After Yuan, Chen and Wang, "Object-Contextual Representations for Semantic Segmentation" (ECCV 2020). Names in the state
dict are those of the public implementation (HRNet/HRNet-Semantic-Segmentation, branch HRNet-OCR).
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


def spatial_gather(features: Tensor, logits: Tensor) -> Tensor:
    """One feature vector per class: the mean of the features, weighted by a softmax of that class over positions.

    Args:
        features: (N, D, H, W).
        logits: Coarse class scores, (N, C, H, W).

    Returns:
        (N, D, C, 1).

    Example:
        >>> features = torch.tensor([[[[1.0, 3.0]]]])
        >>> logits = torch.tensor([[[[0.0, 0.0]], [[100.0, 0.0]]]])  # of no preference; of the first pixel
        >>> spatial_gather(features, logits).flatten().tolist()
        [2.0, 1.0]
    """
    weights = logits.flatten(2).softmax(2)
    return (weights @ features.flatten(2).mT).mT.unsqueeze(3)


class ObjectAttention(nn.Module):
    """Attention of pixels to classes, scaled by key^-½.

    Args:
        channels: D, channels of the features.
        key: Channels of queries, keys and values.

    Example:
        >>> ObjectAttention(6, 4)(torch.rand(2, 6, 5, 7), torch.rand(2, 6, 3, 1)).shape
        torch.Size([2, 6, 5, 7])
    """

    def __init__(self, channels: int, key: int) -> None:
        super().__init__()
        self.scale = key**-0.5
        self.f_pixel = nn.Sequential(*_projection(channels, key), *_projection(key, key))
        self.f_object = nn.Sequential(*_projection(channels, key), *_projection(key, key))
        self.f_down = nn.Sequential(*_projection(channels, key))
        self.f_up = nn.Sequential(*_projection(key, channels))

    def forward(self, features: Tensor, context: Tensor) -> Tensor:
        """For every pixel, the mixture of the classes' vectors that it attends to.

        Args:
            features: (N, D, H, W).
            context: One vector per class, (N, D, C, 1).

        Returns:
            (N, D, H, W).
        """
        query = self.f_pixel(features).flatten(2).mT
        similarity = self.scale * query @ self.f_object(context).flatten(2)
        mixture = similarity.softmax(2) @ self.f_down(context).flatten(2).mT
        return self.f_up(mixture.mT.unflatten(2, features.shape[2:]))  # type: ignore[no-any-return]


class SpatialOCR(nn.Module):
    """Features joined with their object context by a 1×1 convolution, batch normalisation, ReLU and dropout.

    Args:
        channels: D, channels of features and output.
        key: Channels of the attention.
        dropout: Probability with which a channel is dropped in training, in [0, 1).

    Example:
        >>> SpatialOCR(6, 4)(torch.rand(2, 6, 5, 7), torch.rand(2, 6, 3, 1)).shape
        torch.Size([2, 6, 5, 7])
    """

    def __init__(self, channels: int, key: int, dropout: float = 0.05) -> None:
        super().__init__()
        self.object_context_block = ObjectAttention(channels, key)
        self.conv_bn_dropout = nn.Sequential(*_projection(2 * channels, channels), nn.Dropout2d(dropout))

    def forward(self, features: Tensor, context: Tensor) -> Tensor:
        """Features with their object context.

        Args:
            features: (N, D, H, W).
            context: One vector per class, (N, D, C, 1).

        Returns:
            (N, D, H, W).
        """
        attended = self.object_context_block(features, context)
        return self.conv_bn_dropout(torch.cat([attended, features], 1))  # type: ignore[no-any-return]


def _projection(inputs: int, outputs: int) -> tuple[nn.Module, nn.Module]:
    """1×1 convolution, and batch normalisation with ReLU as one entry, which the names in checkpoints ask for."""
    activation = nn.Sequential(nn.BatchNorm2d(outputs), nn.ReLU(inplace=True))
    return nn.Conv2d(inputs, outputs, 1, bias=False), activation
