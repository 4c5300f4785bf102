"""Options of ``segradius train`` for what is trained, and on which images."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated

from segradius.cli.options import NetworkOptions
from segradius.core import text
from segradius.core.declared import (
    Images,
    Part,
    Range,
)
from segradius.core.errors import InputError, must
from segradius.core.screen import note, warn

if TYPE_CHECKING:
    from segradius.data import SegmentationData
    from segradius.models import Segmenter
    from segradius.training import Augmentation

Scale = str | list[float]


@dataclass(frozen=True)
class PupilOptions:
    """The model.

    Args:
        model: Network, as for segradius attack: pspnet_light,num_classes=11, say; package.module:callable runs that
            code; see segradius list models.
        network: See `NetworkOptions`.
        backbone: ImageNet weights for its trunk instead: a file, torchvision:NAME or timm:NAME, say timm:hrnet_w48.
    """

    model: str
    network: NetworkOptions = field(default_factory=NetworkOptions)
    backbone: str | None = None

    def __post_init__(self) -> None:
        weights = self.network.weights
        if weights is not None and self.backbone is not None:
            raise InputError(f"weights {weights!r} and backbone {self.backbone!r} exclude each other: give one")

    def load(self, seed: int) -> Segmenter:
        """The model with its first weights, random ones by ``seed``; what is probably a mistake is told."""
        import torch

        from segradius.models import doubts, load_model
        from segradius.models.backbones import load_backbone

        torch.manual_seed(seed)
        loaded = load_model(self.model, **vars(self.network))
        for doubt in doubts(loaded):
            if doubt.name != "weights":  # a training begins without
                warn(str(doubt))
        if self.backbone is not None:
            allowed = self.network.allow_download
            print(load_backbone(loaded.network, self.backbone, allow_download=allowed))
        return loaded


@dataclass(frozen=True)
class LessonOptions:
    """The images.

    Args:
        data: Images and labels: scenes, or NAME:PATH as camvid:PATH; see segradius list data.
        split: Part of the data set that is learnt.
        held_out: Part that is evaluated.
        held_out_limit: Only so many images of it, spread over it.
        size: Resize images to height x width first, as in 240x320.
        crop: Random crop, height x width. Default: the size.
        scale: Range of the random scale, as 0.5,2.0; or null.
        rotate: Largest rotation in degrees, of half the images.
        blur: Probability of a blur.
        flip: Probability of a mirror image.
        colour: Strength of a random change of brightness, contrast and saturation, as 0.4; not in the public recipes.
    """

    data: str
    split: str = "train"
    held_out: str = "val"
    held_out_limit: Images | None = None
    size: str | None = None
    crop: str | None = None
    scale: Scale | None = "0.5,2.0"
    rotate: Annotated[float, Range("[0, 180]")] = 10.0
    blur: Part = 0.5
    flip: Part = 0.5
    colour: Part = 0.0

    def open(self) -> tuple[SegmentationData, SegmentationData]:
        """What is learnt, and what is evaluated."""
        from segradius.data import counted, open_data

        size = text.size(self.size)
        learnt, judged = (open_data(self.data, split=split, size=size) for split in (self.split, self.held_out))
        limit = self.held_out_limit
        if limit is not None:
            judged = open_data(self.data, split=self.held_out, size=size, stride=-(-len(judged) // limit))
        note(f"training: {counted(learnt)}")
        note(f"held out: {counted(judged)}")
        return learnt, judged

    def augmentation(self) -> Augmentation:
        """Random change of every image and label that is learnt."""
        from segradius.training import Augmentation

        cut, rotated = text.size(self.crop) or text.size(self.size), 0.5 if self.rotate else 0.0
        return Augmentation(cut, _range(self.scale), self.rotate, rotated, self.blur, self.flip, colour=self.colour)


def _range(given: Scale | None) -> tuple[float, float] | None:
    """Two numbers, as in 0.5,2.0; null for none."""
    if given is None or given == "null":
        return None
    parts = given.split(",") if isinstance(given, str) else given
    must(len(parts) == 2, "scale", given, "two numbers, as in 0.5,2.0, or null")
    low, high = (text.number("scale", part) for part in parts)
    return low, high
