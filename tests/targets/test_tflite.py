"""A TFLite file as a target: a network written table by table, its answers against the same convolution in torch."""

from __future__ import annotations

from collections import Counter
from itertools import product
from pathlib import Path

import pytest
import torch
from tflite_files import SCALES, build
from torch import Tensor
from torch.nn import functional

from segradius.core.errors import InputError, TargetError
from segradius.targets import fingerprint, open_target

CLASSES = 4


def weight(channels: int = CLASSES, bands: int = 3) -> Tensor:
    return torch.randn(channels, bands, 3, 3, generator=torch.Generator().manual_seed(0))


def images(count: int = 5, size: tuple[int, int] = (8, 10), bands: int = 3) -> Tensor:
    return torch.rand(count, bands, *size, generator=torch.Generator().manual_seed(1))


def logits(x: Tensor, channels: int = CLASSES) -> Tensor:
    return functional.conv2d(x, weight(channels, x.shape[1]), padding=1)


@pytest.mark.parametrize("kind", ["float32", "int8", "uint8"])
@pytest.mark.parametrize(("batch", "free"), [(1, False), (2, False), (1, True)])
def test_types_and_batches_give_the_probabilities_of_the_network(tmp_path: Path, kind: str, batch: int, free: bool):
    x = images()
    target = open_target(f"tflite:{build(tmp_path / 'net.tflite', weight(), kind=kind, batch=batch, free=free)}")
    signature = target.target.exchange.signature
    assert (signature.layout, signature.batch, signature.num_classes) == ("nhwc", None if free else batch, CLASSES)
    seen = x if kind == "float32" else (x * 255).round() / 255
    step = 0 if kind == "float32" else SCALES[kind][2]  # 1 is one step beyond the end
    torch.testing.assert_close(target.scores(x), logits(seen).softmax(1), rtol=0, atol=step + 1e-5)
    assert target.answered == 5


def test_a_network_of_any_size_takes_one_after_the_other(tmp_path: Path):
    target = open_target(f"tflite:{build(tmp_path / 'net.tflite', weight(), free=True)}")
    for size in ((8, 10), (16, 20), (8, 10)):
        torch.testing.assert_close(
            target.scores(images(2, size)), logits(images(2, size)).softmax(1), rtol=0, atol=1e-5
        )


@pytest.mark.parametrize(
    ("head", "options", "kind"),
    [
        ("LOGISTIC", "outputs=sigmoid", "float32"),
        ("LOGISTIC", "outputs=sigmoid", "int8"),
        ("", "outputs=binary_logit", "float32"),
    ],
)
def test_one_channel_is_background_and_foreground(tmp_path: Path, head: str, options: str, kind: str):
    x, step = images(3, (18, 20), bands=1), 0 if kind == "float32" else SCALES[kind][2]
    path = build(tmp_path / "net.tflite", weight(1, 1), head=head, kind=kind, size=(18, 20))
    with pytest.raises(InputError, match="has 1 channel: give outputs=sigmoid"):
        open_target(f"tflite:{path}")
    target = open_target(f"tflite:{path},{options}")
    p = logits((x * 255).round() / 255 if kind == "int8" else x, 1).sigmoid()
    assert (target.num_classes, target.bands) == (2, 1)
    torch.testing.assert_close(target.scores(x), torch.cat([1 - p, p], 1), rtol=0, atol=step + 1e-5)


#: Head by name: channels, the operator, the options that say so, and the structures that they are of.
TOLD = {
    "softmax": (4, "SOFTMAX", "", 0),
    "logits": (4, "", "outputs=logits", 0),
    "sigmoid": (1, "LOGISTIC", "outputs=sigmoid", 1),
    "binary logit": (1, "", "outputs=binary_logit", 1),
    "multilabel": (2, "LOGISTIC", "outputs=multilabel", 2),
    "multilabel logits": (2, "", "outputs=multilabel_logits", 2),
}


def scored(z: Tensor, structures: int) -> Tensor:
    """Probabilities of the classes, or of the sets of one or two structures."""
    if not structures:
        return z.softmax(1)
    found = torch.ones_like(z[:, :1])
    for p in z.sigmoid().split(1, 1):
        found = torch.cat([found * (1 - p), found * p], 1)
    return found


def test_every_kind_of_file_is_right_where_it_is_told_of_and_refused_where_it_is_not(tmp_path: Path):
    counts = Counter()
    for (name, (channels, head, options, structures)), kind, free, bands in product(
        TOLD.items(), ("float32", "int8", "uint8"), (False, True), (1, 3, 4)
    ):
        x = images(2, (18, 20), bands)
        step = None if head or kind == "float32" else (0.1, 0 if kind == "int8" else 128)
        path = build(
            tmp_path / "net.tflite", weight(channels, bands), kind=kind, head=head, size=(18, 20), free=free, step=step
        )
        z = logits(x if kind == "float32" else (x * 255).round() / 255, channels)
        if step is not None:
            z = ((z / 0.1).round() + step[1]).clamp(*((-128, 127) if kind == "int8" else (0, 255))).sub(step[1]) * 0.1
        found = open_target(f"tflite:{path}{options and ','}{options}").scores(x)
        rounding = 0 if kind == "float32" else 1 / 256 if head else 0.03
        right = (found - scored(z, structures)).abs().amax() < rounding * max(1, structures) + 1e-5
        counts["right" if right else f"wrong {name} {kind}"] += 1
        if options:
            with pytest.raises((InputError, TargetError), match="give outputs="):
                open_target(f"tflite:{path}").scores(x)
            counts["refused"] += 1
    print(f"\nTFLite: {dict(counts)}")
    assert counts == {"right": 108, "refused": 90}


def test_a_network_of_one_size_is_given_images_of_others(tmp_path: Path):
    path, x = build(tmp_path / "net.tflite", weight(), head=""), images(2, (16, 15))
    with pytest.raises(InputError, match=r"images are 16x15 .* takes 8x10 only: .*size=resize"):
        open_target(f"tflite:{path},outputs=logits").scores(x)
    small = functional.interpolate(x, (8, 10), mode="bilinear", align_corners=False)
    z = functional.interpolate(logits(small), (16, 15), mode="bilinear", align_corners=False)
    found = open_target(f"tflite:{path},outputs=logits,size=resize").scores(x)
    torch.testing.assert_close(found, z.softmax(1), rtol=0, atol=1e-5)


def test_numbers_that_stand_for_other_values_than_images_have_need_a_normalisation(tmp_path: Path, monkeypatch):
    monkeypatch.setitem(SCALES, "uint8", (1 / 128, 128, 1 / 256, 0))  # [-1, 1), as MobileNets are trained with
    path, x = build(tmp_path / "net.tflite", weight(), kind="uint8"), images(2)
    with pytest.raises(InputError, match=r"stand for values in \[-1, 0.9922\], .*give the normalisation"):
        open_target(f"tflite:{path}")
    found = open_target(f"tflite:{path}", normalisation=((0.5,) * 3, (0.5,) * 3)).scores(x)
    seen = ((2 * x - 1) * 128).round().clamp(-128, 127) / 128
    torch.testing.assert_close(found, logits(seen).softmax(1), rtol=0, atol=1 / 255)


def test_several_outputs_are_asked_about(tmp_path: Path):
    path, x = build(tmp_path / "net.tflite", weight(), outputs=2), images(1)
    with pytest.raises(InputError, match=r"2 outputs .*output=NAME or its number"):
        open_target(f"tflite:{path}")
    named, numbered = (open_target(f"tflite:{path},output={which}").scores(x) for which in ("p1", 1))
    assert torch.equal(named, numbered)
    torch.testing.assert_close(named, logits(x).softmax(1), rtol=0, atol=1e-5)


def test_a_changed_file_is_noticed_and_threads_are_not(tmp_path: Path):
    path = build(tmp_path / "net.tflite", weight())
    first = fingerprint(open_target(f"tflite:{path}"))
    assert fingerprint(open_target(f"tflite:{path},threads=2,batch=1")) == first
    assert fingerprint(open_target(f"tflite:{build(path, weight() + 1)}")) != first


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "too short|empty"),
        (b"\x89PNG\r\n\x1a\n" + bytes(99), "it is a PNG image"),
        (b"\x1c\0\0\0TFL3" + bytes(99), "cannot be opened as a TFLite model"),
    ],
)
def test_what_is_no_model_is_refused(tmp_path: Path, content: bytes, message: str):
    (tmp_path / "net.tflite").write_bytes(content)
    with pytest.raises(InputError, match=message):
        open_target(f"tflite:{tmp_path / 'net.tflite'}")
    with pytest.raises(InputError, match="is not a file"):
        open_target(f"tflite:{tmp_path / 'other.tflite'}")


def test_what_is_no_image_is_told(tmp_path: Path):
    target = open_target(f"tflite:{build(tmp_path / 'net.tflite', weight())}")
    with pytest.raises((InputError, TargetError), match="takes 3 bands and the images have 1"):
        target.scores(images(1, bands=1))
