"""The library in a page: data, model, radius, attack.

Run: python examples/python_api.py
"""

from __future__ import annotations

import torch

import segradius as sr
from segradius.metrics import count, pooled_accuracy


def main(limit: int = 4, steps: int = 20) -> int:
    """Attack the built-in network on drawn scenes; 0 if pixels of small radius were the first to fall."""
    data = sr.open_data("scenes:96x128", split="test", limit=limit)
    samples = [data[i] for i in range(len(data))]
    images, labels = torch.stack([s.image for s in samples]), torch.stack([s.label for s in samples])
    ids, void = data.ids, data.classes.ignore_index

    model = sr.load_model("demo")
    radius = sr.pixel_radius(model, images, sr.Randomness(0, tuple(ids)), sigma=0.01, samples=16)

    attack = sr.make_attack("cr_pgd", norm="l2", eps=2.0, steps=steps)
    result = attack(model, images, labels, ids=ids, seed=0, ignore_index=void)
    left = pooled_accuracy(count(result.prediction, labels, model.num_classes, void))
    print(f"PixAcc after CR-PGD: {left:.3f}; passes over all images: {result.ledger.by_purpose()}")

    right = (radius.prediction == labels) & (labels != void)
    fell = right & (result.prediction != labels)
    lost, kept = radius.radius[fell].mean().item(), radius.radius[right & ~fell].mean().item()
    print(f"mean radius before the attack: {lost:.4f} where it succeeded, {kept:.4f} where it did not")
    return 0 if lost < kept else 1


if __name__ == "__main__":
    raise SystemExit(main())
