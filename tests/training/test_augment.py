"""Augmentation: image and label move together, void is only outside, and chance is what it says and repeats."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from torch.nn import functional
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as reference

from segradius.core.errors import InputError
from segradius.training.augment import IMAGENET_MEAN, Augmentation, Window, coloured, gaussian_blur, resized, rotated

CLASSES = 5
FILL = (0.485, 0.456, 0.406)
VOID = 255


@pytest.fixture(autouse=True)
def _same_images():
    torch.manual_seed(0)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def painted(height: int = 60, width: int = 90, seed: int = 0):
    """A label of large patches, and an image whose colour is the class: c / CLASSES, 1 - c / CLASSES, c / CLASSES."""
    patches = torch.randint(0, CLASSES, (1, 1, height // 30, width // 30), generator=seeded(seed)).float()
    label = functional.interpolate(patches, size=(height, width), mode="nearest")[0, 0].long()
    value = label / CLASSES
    return torch.stack([value, 1 - value, value]), label


def far_from_borders(label, margin: int = 6):
    """Pixels with one label all around them, at least ``margin`` from the edge of the picture."""
    x = functional.pad(label[None, None].float(), (margin,) * 4, value=-1)
    side = 2 * margin + 1
    return (functional.max_pool2d(x, side, 1) == -functional.max_pool2d(-x, side, 1))[0, 0]


def full(height: int, width: int) -> Window:
    return Window(0, 0, height, width)


settings_of_augmentation = st.builds(
    Augmentation,
    crop=st.none() | st.tuples(st.integers(1, 90), st.integers(1, 90)),
    scale=st.none() | st.tuples(st.floats(0.3, 1.0), st.floats(1.0, 2.0)),
    rotate=st.floats(0, 180),
    rotate_p=st.sampled_from([0.0, 0.5, 1.0]),
    blur_p=st.sampled_from([0.0, 0.5, 1.0]),
    flip_p=st.sampled_from([0.0, 0.5, 1.0]),
)


def test_off_is_identity():
    image, label = painted()
    for augment in (Augmentation.none(), Augmentation(scale=(1.0, 1.0), rotate=0.0, blur_p=0.0, flip_p=0.0)):
        got = augment(image, label, seeded())
        assert got[0] is image
        assert got[1] is label


def test_a_flip_mirrors_and_two_flips_give_the_image_back():
    flip = Augmentation(scale=None, rotate_p=0.0, blur_p=0.0, flip_p=1.0)
    image, label = torch.rand(3, 7, 10), torch.randint(0, 9, (7, 10))
    once = flip(image, label, seeded())
    assert torch.equal(once[0], image[:, :, torch.arange(9, -1, -1)])
    assert torch.equal(once[1], label[:, torch.arange(9, -1, -1)])
    twice = flip(*once, seeded())
    assert torch.equal(twice[0], image)
    assert torch.equal(twice[1], label)


@given(augment=settings_of_augmentation, seed=st.integers(0, 10**6))
@settings(max_examples=150, deadline=None)
def test_the_label_moves_with_the_image_and_void_is_mean_coloured(augment, seed):
    image, label = painted(seed=seed)
    before = image.clone(), label.clone()
    x, y = augment(image, label, seeded(seed))
    assert torch.equal(image, before[0])
    assert torch.equal(label, before[1])
    assert x.dtype == image.dtype
    assert y.dtype == torch.int64
    assert x.shape[1:] == y.shape
    if augment.crop is not None:
        assert tuple(y.shape) == augment.crop
    assert x.min() >= 0
    assert x.max() <= 1
    assert bool(((y == VOID) | (y < CLASSES)).all())

    clear = far_from_borders(y)
    classes = clear & (y != VOID)
    assert torch.equal((x[0][classes] * CLASSES).round().long(), y[classes])
    assert torch.allclose(x[0][classes], y[classes] / CLASSES, atol=1e-5)
    void = clear & (y == VOID)
    assert torch.allclose(x[:, void], torch.tensor(FILL).unsqueeze(1), atol=1e-5)


@given(augment=settings_of_augmentation, seed=st.integers(0, 10**6))
@settings(max_examples=40, deadline=None)
def test_same_seed_same_result_and_as_many_random_numbers_whatever_is_on(augment, seed):
    image, label = painted()
    one, two, off = seeded(seed), seeded(seed), seeded(seed)
    a, b = augment(image, label, one), augment(image, label, two)
    Augmentation.none()(image, label, off)
    assert torch.equal(a[0], b[0])
    assert torch.equal(a[1], b[1])
    assert torch.equal(one.get_state(), two.get_state())
    assert torch.equal(one.get_state(), off.get_state())


def test_padding_is_centred_exactly_mean_coloured_and_void_and_nothing_else_is():
    image, label = torch.rand(3, 5, 6), torch.randint(0, 9, (5, 6))
    x, y = Augmentation(crop=(9, 7), scale=None, rotate_p=0.0, blur_p=1.0, flip_p=0.0)(image, label, seeded())
    expected = torch.full((9, 7), VOID)
    expected[2:7, 0:6] = label
    assert torch.equal(y, expected)
    assert torch.equal(x[:, 2:7, 0:6], gaussian_blur(image).clamp(0, 1))
    assert torch.equal(x[:, y == VOID], torch.tensor(FILL).unsqueeze(1).expand(3, 9 * 7 - 30))


def test_another_void_label_and_colour():
    image, label = torch.rand(3, 3, 3), torch.zeros(3, 3, dtype=torch.int64)
    augment = Augmentation(crop=(5, 5), scale=None, rotate=45.0, rotate_p=1.0, fill=(1.0, 0.0, 0.5))
    x, y = augment(image, label, seeded(), ignore_index=-1)
    assert set(y.unique().tolist()) == {-1, 0}
    assert x[:, 0, 0].tolist() == [1.0, 0.0, 0.5]


def test_a_crop_is_the_same_part_of_the_whole_result():
    image, label = torch.rand(3, 40, 50), torch.randint(0, 9, (40, 50))
    for seed in range(60):
        whole = Augmentation(rotate=90.0)(image, label, seeded(seed))
        part = Augmentation(crop=(13, 11), rotate=90.0)(image, label, seeded(seed))
        windows = whole[1].unfold(0, 13, 1).unfold(1, 11, 1)
        rows, columns = (windows == part[1]).flatten(2).all(-1).nonzero(as_tuple=True)
        near = [(whole[0][:, i : i + 13, j : j + 11] - part[0]).abs().max() for i, j in zip(rows, columns, strict=True)]
        assert near, seed
        assert min(near) < 1e-5, seed


@pytest.mark.parametrize("angle", [-10.0, 3.0, 90.0, 135.0])
def test_rotation_equals_torchvisions_inside_and_void_is_what_comes_from_outside(angle):
    height, width = 31, 45
    image, label = torch.rand(3, height, width), torch.randint(0, 9, (height, width))
    x, y = rotated(image, label, angle, full(height, width), FILL, VOID)
    inside = reference.rotate(torch.ones(1, height, width), angle, InterpolationMode.BILINEAR)[0] > 0.999
    expected = reference.rotate(image, angle, InterpolationMode.BILINEAR)
    assert torch.allclose(x[:, inside], expected[:, inside], atol=1e-4)
    nearest = reference.rotate(label[None].float(), angle, InterpolationMode.NEAREST, fill=[float(VOID)])[0].long()
    assert (y == nearest).float().mean() > 0.998  # a pixel half-way between two may fall either way
    cos, sin = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    for i in range(height):
        for j in range(width):
            dy, dx = i + 0.5 - height / 2, j + 0.5 - width / 2
            row, column = sin * dx + cos * dy + height / 2, cos * dx - sin * dy + width / 2
            beyond = max(-row, row - height, -column, column - width)
            if abs(beyond) > 1e-4:
                assert (y[i, j] == VOID) == (beyond > 0), (i, j)
            if beyond > 0.501:
                assert torch.allclose(x[:, i, j], torch.tensor(FILL), atol=1e-6)


def test_the_border_of_a_rotated_image_blends_with_the_colour_outside():
    white = torch.ones(3, 20, 20)
    x, _ = rotated(white, torch.zeros(20, 20, dtype=torch.int64), 30.0, full(20, 20), FILL, VOID)
    share = reference.rotate(white[:1], 30.0, InterpolationMode.BILINEAR)
    colour = torch.tensor(FILL).view(3, 1, 1)
    assert torch.allclose(x, share + (1 - share) * colour, atol=1e-5)


def test_blur_equals_torchvisions_convolution():
    for height, width in ((9, 14), (3, 5)):
        image = torch.rand(3, height, width)
        assert torch.allclose(gaussian_blur(image), reference.gaussian_blur(image, [5, 5], [1.1, 1.1]), atol=1e-6)
    assert torch.allclose(gaussian_blur(torch.full((3, 1, 2), 0.7)), torch.tensor(0.7))


@given(height=st.integers(1, 50), width=st.integers(1, 50), factor=st.floats(0.3, 2.5))
@settings(max_examples=60, deadline=None)
def test_labels_are_resized_as_torch_does(height, width, factor):
    size = (max(1, round(height * factor)), max(1, round(width * factor)))
    label = torch.randint(0, 256, (height, width))
    expected = functional.interpolate(label[None, None].float(), size=size, mode="nearest-exact")[0, 0].long()
    image, got = resized(torch.rand(3, height, width), label, size)
    assert image.shape == (3, *size)
    # Half-way between two pixels, floating-point numbers may take either.
    clear = [(2 * torch.arange(new) + 1) * old % (2 * new) != 0 for new, old in zip(size, (height, width), strict=True)]
    assert torch.equal(got[clear[0]][:, clear[1]], expected[clear[0]][:, clear[1]])


def test_flips_come_with_their_probability():
    image, label = torch.zeros(3, 1, 2), torch.tensor([[0, 1]])
    generator = seeded()
    for p in (0.5, 0.2):
        augment = Augmentation(scale=None, rotate_p=0.0, blur_p=0.0, flip_p=p)
        flipped = sum(int(augment(image, label, generator)[1][0, 0]) for _ in range(1500))
        assert stats.binomtest(flipped, 1500, p).pvalue > 1e-3


def test_rotations_and_blurs_come_with_their_probabilities():
    image, label = torch.rand(3, 6, 6), torch.arange(36).view(6, 6)
    generator = seeded(1)
    turn = Augmentation(scale=None, rotate=180.0, rotate_p=0.3, blur_p=0.0, flip_p=0.0)
    turned = sum(not torch.equal(turn(image, label, generator)[0], image) for _ in range(500))
    assert stats.binomtest(turned, 500, 0.3).pvalue > 1e-3
    smooth = Augmentation(scale=None, rotate_p=0.0, blur_p=0.6, flip_p=0.0)
    blurred = sum(not torch.equal(smooth(image, label, generator)[0], image) for _ in range(500))
    assert stats.binomtest(blurred, 500, 0.6).pvalue > 1e-3


def test_rotation_blur_and_flip_are_independent():
    image, label = torch.rand(3, 6, 6), torch.arange(36).view(6, 6)
    augment = Augmentation(scale=None, rotate=0.1)  # turns so little that everything can still be told apart
    counts = torch.zeros(2, 2, 2)
    generator = seeded(5)
    for _ in range(800):
        x, y = augment(image, label, generator)
        flipped = not torch.equal(y, label)
        x = x.flip(-1) if flipped else x
        blurred = not torch.allclose(x, image, atol=0.02)
        turned = not torch.equal(x, gaussian_blur(image) if blurred else image)
        counts[int(flipped), int(blurred), int(turned)] += 1
    assert stats.chisquare(counts.flatten().numpy()).pvalue > 1e-3


def test_scales_are_uniform_and_the_same_for_both_sides():
    image, label = torch.zeros(3, 2000, 2), torch.zeros(2000, 2, dtype=torch.int64)
    augment = Augmentation(scale=(0.5, 2.0), rotate_p=0.0, blur_p=0.0, flip_p=0.0)
    generator = seeded(2)
    factors = []
    for _ in range(300):
        height, width = augment(image, label, generator)[1].shape
        factors.append(height / 2000)
        assert abs(width - 2 * height / 2000) < 0.502  # both are rounded
    assert stats.kstest(factors, stats.uniform(0.5, 1.5).cdf).pvalue > 1e-3


def test_angles_are_uniform_on_both_sides_of_zero():
    # A bright point on the horizontal axis, far from the centre: its place gives the angle.
    image, label = torch.zeros(3, 201, 201), torch.zeros(201, 201, dtype=torch.int64)
    image[:, 100, 195:198] = 1.0
    augment = Augmentation(scale=None, rotate=30.0, rotate_p=1.0, blur_p=0.0, flip_p=0.0, fill=(0.0, 0.0, 0.0))
    generator = seeded(3)
    rows = torch.arange(201.0).view(-1, 1) - 100
    columns = torch.arange(201.0) - 100
    angles = []
    for _ in range(200):
        point = augment(image, label, generator)[0][0]
        angles.append(math.degrees(math.atan2(-(point * rows).sum(), (point * columns).sum())))
    assert stats.kstest(angles, stats.uniform(-30, 60).cdf).pvalue > 1e-3


def test_crops_lie_anywhere_with_equal_probability():
    image, label = torch.zeros(3, 5, 4), torch.arange(20).view(5, 4)
    augment = Augmentation(crop=(3, 2), scale=None, rotate_p=0.0, blur_p=0.0, flip_p=0.0)
    generator = seeded(4)
    corners = torch.stack([augment(image, label, generator)[1][0, 0] for _ in range(1800)])
    counts = torch.bincount(corners, minlength=20).view(5, 4)
    assert counts[3:].sum() == 0
    assert counts[:, 3].sum() == 0
    assert stats.chisquare(counts[:3, :3].flatten().numpy()).pvalue > 1e-3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"crop": (0, 4)}, r"crop=\(0, 4\); expected \(height, width\)"),
        ({"crop": (4.0, 4)}, "crop is "),
        ({"crop": (4, 4, 3)}, "crop is "),
        ({"scale": (0.0, 1.0)}, "0 < low <= high"),
        ({"scale": (2.0, 1.0)}, "0 < low <= high"),
        ({"scale": (1.0, math.inf)}, "scale is "),
        ({"rotate": -1.0}, "rotate is -1.0"),
        ({"rotate_p": 1.5}, "rotate_p is 1.5; expected a number"),
        ({"blur_p": math.nan}, "blur_p is nan"),
        ({"flip_p": -0.1}, "flip_p is -0.1"),
        ({"fill": (124.0, 116.0, 104.0)}, r"expected a number in \[0, 1\] for each band"),
    ],
)
def test_bad_values_are_named(arguments, message):
    with pytest.raises(InputError, match=message):
        Augmentation(**arguments)


@pytest.mark.parametrize(
    ("image", "label"),
    [
        (torch.rand(3, 4, 4), torch.zeros(4, 5, dtype=torch.int64)),
        (torch.rand(4, 4), torch.zeros(4, 4, dtype=torch.int64)),
        (torch.zeros(3, 4, 4, dtype=torch.uint8), torch.zeros(4, 4, dtype=torch.int64)),
    ],
)
def test_images_that_do_not_fit_are_named(image, label):
    with pytest.raises(InputError, match=r"expected floating \(B, H, W\) and \(H, W\)"):
        Augmentation()(image, label, seeded())


def test_colour_is_brightness_contrast_and_saturation_by_torchvision_within_bounds() -> None:
    image, label = torch.rand(3, 6, 8, generator=seeded(1)), torch.zeros(6, 8, dtype=torch.int64)
    changed, same = replace(Augmentation.none(), colour=0.5)(image, label, seeded(2))
    numbers = seeded(2)
    torch.rand(7, generator=numbers, dtype=torch.float64)  # those of the other changes
    factors = 0.5 + torch.rand(3, generator=numbers, dtype=torch.float64)
    expected = image
    for name, factor in zip(("brightness", "contrast", "saturation"), factors.tolist(), strict=True):
        expected = getattr(reference, f"adjust_{name}")(expected, factor)
    torch.testing.assert_close(changed, expected.clamp(0, 1))
    assert torch.equal(same, label)
    assert not torch.equal(changed, image)


def test_colour_leaves_the_padding_alone() -> None:
    image, label = torch.rand(3, 4, 4, generator=seeded(1)), torch.zeros(4, 4, dtype=torch.int64)
    changed, where = replace(Augmentation.none(), colour=0.5, crop=(8, 8))(image, label, seeded(2))
    mean = torch.tensor((0.485, 0.456, 0.406)).view(3, 1)
    assert torch.equal(changed[:, where == 255], mean.expand(3, 48))


@pytest.mark.parametrize("bands", [1, 2, 4, 7])
def test_images_of_any_bands_are_cut_turned_and_blurred_like_rgb(bands: int) -> None:
    everything = Augmentation((12, 14), rotate_p=1.0, blur_p=1.0, flip_p=1.0, fill=(0.5,) * 3)
    image, label = torch.rand(1, 9, 11, generator=seeded(1)), torch.zeros(9, 11, dtype=torch.int64)
    expected, void = everything(image.expand(3, -1, -1), label, seeded(7))
    found, same = replace(everything, fill=(0.5,) * bands)(image.expand(bands, -1, -1), label, seeded(7))
    assert torch.equal(same, void)
    torch.testing.assert_close(found, expected[:1].expand(bands, -1, -1), rtol=0, atol=1e-6)


def test_colour_of_other_bands_is_brightness_and_contrast_about_the_mean_of_all() -> None:
    image, strength = 0.25 + 0.5 * torch.rand(4, 6, 8, generator=seeded(1)), 0.2
    brightness, contrast, _ = (
        1 + strength * (2 * torch.rand(3, generator=seeded(3), dtype=torch.float64) - 1)
    ).tolist()
    bright = image * brightness
    expected = (bright.mean() + contrast * (bright - bright.mean())).clamp(0, 1)
    torch.testing.assert_close(coloured(image, strength, seeded(3)), expected)
    grey = image[:1]  # of which torchvision, too, has no saturation and takes its own mean
    torch.testing.assert_close(
        coloured(grey, strength, seeded(3)),
        reference.adjust_contrast(reference.adjust_brightness(grey, brightness), contrast),
    )


def test_outside_of_other_bands_is_the_mean_of_the_usual_colour_unless_one_is_given() -> None:
    image, label = torch.rand(2, 2, 2), torch.zeros(2, 2, dtype=torch.int64)
    still = Augmentation(None, None, 0.0, 0.0, 0.0, 0.0)
    padded = replace(still, crop=(4, 4))(image, label, seeded())[0]
    torch.testing.assert_close(padded[:, 0, 0], torch.full((2,), sum(IMAGENET_MEAN) / 3))
    padded = replace(still, crop=(4, 4), fill=(0.25, 0.75))(image, label, seeded())[0]
    assert padded[:, 0, 0].tolist() == [0.25, 0.75]
    with pytest.raises(InputError, match=r"fill=\(0.1, 0.2\) for images of 4 bands"):
        replace(still, crop=(4, 4), fill=(0.1, 0.2))(torch.rand(4, 2, 2), label, seeded())
