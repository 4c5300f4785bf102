"""Clean accuracy of networks: one pass, and as public evaluation code has it, mirrored and at several scales.

    python studies/evaluate.py --models runs/pspnet_light_whole/last.yaml --data camvid:PATH --scales 0.75,1,1.25

Prints PixAcc and both MIoUs with 95 % bootstrap intervals over images.
"""

from __future__ import annotations

import time

import torch
from jsonargparse import auto_cli

from segradius.core.text import names
from segradius.core.text import size as parse_size
from segradius.data import open_data
from segradius.metrics.statistics import Statistic, interval, miou, miou_image, pooled_accuracy
from segradius.models import Segmenter, load_model, tiled
from segradius.training import judge

STATISTICS: dict[str, Statistic] = {"PixAcc": pooled_accuracy, "MIoU": miou, "MIoU/image": miou_image}


def main(
    models: str,
    data: str,
    split: str = "test",
    size: str = "240x320",
    scales: str = "",
    stride: int = 1,
    batch_size: int = 4,
) -> None:
    """Evaluate networks.

    Args:
        models: Model texts or cards, with commas between them.
        data: As ``segradius attack`` takes it.
        split: Part of the data set.
        size: Height x width.
        scales: Scales of a mirrored evaluation beside the plain one; empty for none.
        stride: Only every stride-th image.
        batch_size: Images at a time.
    """
    height_width = parse_size(size) or (240, 320)
    images = open_data(data, split=split, size=height_width, stride=stride)
    for name in names(models):
        plain = load_model(name)
        ways: dict[str, Segmenter] = {"one pass": plain, "mirrored": tiled(plain, crop=height_width, flip=True)}
        if scales:
            factors = tuple(float(scale) for scale in names(scales))
            ways[f"mirrored, scales {scales}"] = tiled(plain, crop=height_width, scales=factors, flip=True)
        for way, model in ways.items():
            start = time.perf_counter()
            counts = judge(model, images, torch.device("cpu"), batch_size)
            found = {label: interval(statistic, counts) for label, statistic in STATISTICS.items()}
            figures = ", ".join(
                f"{label} {100 * v.value:.1f} [{100 * v.low:.1f}, {100 * v.high:.1f}]" for label, v in found.items()
            )
            seconds = (time.perf_counter() - start) / len(images)
            print(f"{name}, {way}, n = {len(images)}: {figures} ({seconds:.2f} s an image)", flush=True)


if __name__ == "__main__":
    auto_cli(main, as_positional=False)
