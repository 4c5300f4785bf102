"""How many bands a network takes: found, said or refused; never guessed where it cannot be told."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import segradius as sr
from segradius.core.errors import InputError
from segradius.models.bands import likely_bands
from segradius.models.cards import entries_of
from segradius.models.doubts import doubts
from segradius.models.loading import load_model
from segradius.models.preprocessing import Normalisation, measured
from segradius.models.tiling import Tiling, tiled


def convolution(bands: int, classes: int = 4) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(bands, 6, 3, padding=1), nn.ReLU(), nn.Conv2d(6, classes, 1)).eval()


class HeadFirst(nn.Module):
    """A network that has its last convolution first among its modules."""

    def __init__(self) -> None:
        super().__init__()
        self.head, self.stem = nn.Conv2d(6, 4, 1), nn.Conv2d(3, 6, 1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(self.stem(images))


class Repeats(nn.Module):
    """A network that makes three bands of one."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = convolution(3)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.inner(images.repeat(1, 3, 1, 1))


@pytest.mark.parametrize("bands", [1, 2, 3, 4, 7, 13])
@pytest.mark.parametrize("classes", [None, 4])
def test_bands_are_those_of_the_first_convolution(bands: int, classes: int | None) -> None:
    model = sr.wrap(convolution(bands), num_classes=classes)
    assert (model.bands, model.num_classes) == (bands, 4)
    assert model.logits(torch.rand(2, bands, 8, 8)).shape == (2, 4, 8, 8)
    assert sr.wrap(model).bands == bands


@pytest.mark.parametrize(
    ("network", "classes", "expected"),
    [
        (HeadFirst(), None, None),  # 6 is taken by its first module and not by it
        (HeadFirst(), 4, None),
        (Repeats(), None, 1),
        (lambda x: x.mean(1, keepdim=True).repeat(1, 4, 1, 1), None, None),
        (lambda x: x.new_zeros(len(x), 4, *x.shape[2:]) + x[:, :1], 4, None),
    ],
)
def test_what_a_first_convolution_does_not_tell_is_tried_or_left_open(network, classes, expected) -> None:
    model = sr.wrap(network, num_classes=classes)
    assert model.bands == expected
    assert model.logits(torch.rand(1, expected or 3, 8, 8)).shape == (1, 4, 8, 8)


def test_bands_that_are_said_go_before_what_a_convolution_shows() -> None:
    model = sr.wrap(Repeats(), num_classes=4, bands=1)
    assert model.bands == 1
    with pytest.raises(InputError, match=r"bands=0: expected a whole number"):
        sr.wrap(Repeats(), bands=0)
    with pytest.raises(InputError, match="with a grey image"):
        sr.wrap(convolution(3), bands=2)


@pytest.mark.parametrize(
    ("wanted", "given", "way"), [(1, 3, "colours must be made grey first"), (3, 1, "bands: 3 in"), (4, 2, "of 4 bands")]
)
def test_other_images_are_refused_with_both_numbers_and_the_way_out(wanted: int, given: int, way: str) -> None:
    model, images = sr.wrap(convolution(wanted), num_classes=4), torch.rand(1, given, 8, 8)
    labels = torch.zeros(1, 8, 8, dtype=torch.int64)
    message = rf"takes {wanted} bands? and the images have {given}: .*{way}.* bands={given} \(bands: {given} in"
    for act in (model.check, model.logits, lambda x: sr.make_attack("fgsm")(model, x, labels)):
        with pytest.raises(InputError, match=message) as told:
            act(images)
        assert "\n" not in str(told.value)
    with pytest.raises(InputError, match=message):
        sr.evaluate(model, (images, labels), "fgsm", quiet=True)


def test_normalisation_has_as_many_numbers_as_bands() -> None:
    model = sr.wrap(convolution(2), normalisation=([0.5, 0.25], [0.5, 0.25]))
    images = torch.rand(1, 2, 8, 8)
    expected = torch.cat([(images[:, :1] - 0.5) / 0.5, (images[:, 1:] - 0.25) / 0.25], 1)
    torch.testing.assert_close(model.prepare(images), expected)
    with pytest.raises(InputError, match=r"takes 1 band and its normalisation is imagenet, which is for 3 bands"):
        sr.wrap(convolution(1), normalisation="imagenet")
    with pytest.raises(InputError, match=r"takes 1 band and its normalisation is imagenet, which is for 3 bands"):
        sr.wrap(convolution(1), num_classes=4, normalisation="imagenet")
    with pytest.raises(InputError, match=r"takes 4 bands and its normalisation is of mean \(0.5,\), for 1 band"):
        sr.wrap(convolution(4), normalisation=([0.5], [0.5]))
    with pytest.raises(InputError, match=r"a normalisation of 3 bands was given images \(1, 1, 4, 4\)"):
        Normalisation.imagenet().apply(torch.rand(1, 1, 4, 4))
    for bands in (1, 3, 5):
        same = sr.wrap(convolution(bands), normalisation="none")
        assert (same.bands, same.normalisation) == (bands, Normalisation.none(bands))


def test_normalisation_of_any_bands_is_measured_and_reordered() -> None:
    found = measured(lambda image: image.flip(0) / 127.5 - 1, "mine", bands=4)
    assert found == Normalisation((0.5,) * 4, (0.5,) * 4, (3, 2, 1, 0))
    images = torch.rand(1, 4, 2, 2)
    torch.testing.assert_close(found.apply(images), images.flip(1) * 2 - 1)


def test_sliding_windows_pad_with_what_normalisation_makes_zero_in_every_band() -> None:
    seen = []

    def network(images: torch.Tensor) -> torch.Tensor:
        seen.append(images)
        return images

    model = tiled(sr.wrap(network, num_classes=4, normalisation=([0.1, 0.2, 0.3, 0.4], [0.5] * 4)), Tiling((8, 8)))
    assert model.bands == 4
    model.logits(torch.rand(1, 4, 4, 4))
    assert seen[0].shape == (1, 4, 8, 8)
    assert seen[0][..., :2, :].abs().max() < 1e-6


def test_volumes_are_refused_with_what_is_supported_and_bands_say_otherwise() -> None:
    class Spectral(nn.Module):
        """A network of images whose bands are a third dimension inside."""

        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Conv3d(1, 4, (5, 1, 1))

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return self.inner(images.unsqueeze(1)).squeeze(2)

    with pytest.raises(InputError, match=r"takes volumes \(N, B, D, H, W\); here images are .* neighbouring slices"):
        sr.wrap(nn.Conv3d(1, 4, 3, padding=1))
    model = sr.wrap(Spectral(), bands=5)
    assert model.logits(torch.rand(2, 5, 6, 6)).shape == (2, 4, 6, 6)


def test_a_card_says_the_bands_and_so_does_what_is_written_for_one(tmp_path, monkeypatch) -> None:
    (tmp_path / "mine.py").write_text("import torch\nnet = torch.nn.Sequential(torch.nn.Conv2d(4, 2, 1))\n")
    (tmp_path / "card.yaml").write_text("model: mine:net\nbands: 4\n")
    monkeypatch.chdir(tmp_path)
    model = load_model("card.yaml")
    assert model.bands == 4
    assert entries_of(model) == {"normalisation": "none", "bands": 4}
    assert "bands" not in entries_of(sr.wrap(convolution(3)))
    (tmp_path / "bad.yaml").write_text("model: mine:net\nbands: two\n")
    with pytest.raises(InputError, match="bands='two'"):
        load_model("bad.yaml")


@pytest.mark.parametrize("bands", [1, 4])
def test_smp_networks_of_other_bands_have_no_normalisation_and_that_is_said(bands: int) -> None:
    pytest.importorskip("segmentation_models_pytorch")
    model = load_model(f"smp:Unet,encoder_name=resnet18,in_channels={bands},classes=2")
    assert (model.bands, model.normalisation) == (bands, None)
    told = [doubt.advice for doubt in doubts(model) if doubt.name == "undeclared"]
    assert told == [
        f"give --normalisation '{{mean: […], std: […]}}', a number for each of {bands} band{'s' * (bands > 1)}, "
        "as it was trained with; or none, if that is so"
    ]


def test_likely_bands_look_at_two_dimensions_alone() -> None:
    assert likely_bands(nn.Sequential(nn.Conv1d(2, 3, 1), nn.Conv2d(5, 3, 1))) is None
