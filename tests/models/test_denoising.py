"""A model behind a denoiser: the same contract as any model, nothing left changed, and errors that name it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import segradius as sr
from segradius.evaluation.certify_options import Smoothing
from segradius.models import DENOISERS, doubts, fingerprint, load_model, tiled, wrap
from segradius.models.denoiser_loading import load_denoiser
from segradius.models.denoisers import Blur, ResidualDenoiser
from segradius.models.denoising import DenoisedNetwork, check_sigma
from tiny import CLASSES, batch, network


class Halving(nn.Module):
    """Halves images and has a batch norm and a dropout that do nothing in evaluation mode."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(0.5))
        self.norm, self.dropout = nn.BatchNorm2d(3), nn.Dropout(0.5)

    def forward(self, images: Tensor) -> Tensor:
        return self.weight * self.dropout(images)


def base(size: dict[str, int] | None = None) -> sr.Segmenter:
    return wrap(network(dtype=torch.float32), normalisation="imagenet", size=size, name="net")


@pytest.mark.parametrize("size", [None, {"multiple_of": 8}, {"exact": [8, 12]}])
def test_the_logits_are_those_of_the_denoised_images(size):
    model, images = base(size), batch(2, dtype=torch.float32)[0][..., :7]
    behind = sr.denoised(model, Halving())
    assert torch.equal(behind.logits(images), model.logits(0.5 * images))
    assert torch.equal(behind.top_class(images)[1], model.top_class(0.5 * images)[1])
    assert (behind.num_classes, behind.bands, behind.offers) == (model.num_classes, model.bands, model.offers)
    behind.check(images)


def test_both_are_left_as_they_were_found():
    denoiser, model = Halving().train(), base()
    state = [each.clone() for part in (denoiser, model.network) for each in part.state_dict().values()]
    images = batch(2, dtype=torch.float32)[0].requires_grad_()
    sr.denoised(model, denoiser).logits(images).sum().backward()
    assert all(part.training for each in (denoiser, model.network) for part in each.modules())
    assert all(p.requires_grad and p.grad is None for each in (denoiser, model.network) for p in each.parameters())
    now = [each for part in (denoiser, model.network) for each in part.state_dict().values()]
    assert all(map(torch.equal, state, now))


def test_the_gradient_goes_through_the_denoiser():
    model, images = wrap(network()), batch()[0]
    plain, halved = images.clone().requires_grad_(), images.clone().requires_grad_()
    model.logits(0.5 * plain).square().sum().backward()
    sr.denoised(model, lambda x: 0.5 * x).logits(halved).square().sum().backward()
    torch.testing.assert_close(halved.grad, plain.grad)


def test_images_of_a_batch_do_not_mix():
    behind, images = sr.denoised(base(), ResidualDenoiser(widths=(4, 4, 4))), batch(3, dtype=torch.float32)[0]
    nn.init.normal_(behind.network.denoiser.leave[-1].weight)
    alone = torch.cat([behind.logits(image[None]) for image in images])
    torch.testing.assert_close(behind.logits(images), alone, atol=1e-4, rtol=1e-4)


def test_a_denoiser_is_part_of_what_a_model_is_known_by():
    model, residual = base(), ResidualDenoiser(widths=(4, 4, 4))
    seen = [model, *(sr.denoised(model, Blur(width)) for width in (1.0, 2.0)), sr.denoised(model, residual)]
    seen.append(sr.denoised(base({"multiple_of": 8}), residual))
    marks = [fingerprint(each) for each in seen]
    with torch.no_grad():
        residual.leave[-1].bias.add_(0.1)
    assert len({*marks, fingerprint(seen[3])}) == 6
    assert fingerprint(sr.denoised(wrap(lambda x: x.repeat(1, 2, 1, 1), num_classes=6), residual)) == ""


def test_cheaper_forms_say_the_same_and_notice_another_denoiser():
    model, images = sr.denoised(base(), ResidualDenoiser(widths=(4, 4, 4))), batch(2, dtype=torch.float32)[0]
    quick = sr.sped_up(model, images, "exact")
    attack = sr.attacks.pgd(norm="l2", eps=1.0, steps=2)
    labels = model.logits(images).argmax(1)
    found = attack(quick, images, labels)
    assert torch.equal(found.prediction, model.logits(found.adversarial).argmax(1))
    if quick.twins is not None:
        with torch.no_grad():
            model.network.denoiser.enter[0].bias.add_(1.0)
        with pytest.raises(sr.InputError, match="changed since"):
            attack(quick, images, labels)


def test_windows_see_the_denoised_image():
    model, images = base(), batch(1, size=12, dtype=torch.float32)[0]
    behind = sr.denoised(tiled(model, crop=(8, 8)), Blur(0.7))
    torch.testing.assert_close(behind.logits(images), tiled(model, crop=(8, 8)).logits(Blur(0.7)(images)))


@pytest.mark.parametrize(
    ("denoiser", "said"),
    [
        (lambda x: x[..., 1:], "denoiser .* gave torch.float32 .*; expected floating"),
        (lambda x: x.long(), "gave torch.int64"),
        (lambda x: {"x": x}, "gave dict"),
        (lambda x: 1 / 0, "denoiser .* failed on images .* ZeroDivisionError"),
        (lambda x: x * float("nan"), "gave NaN or infinity"),
    ],
)
def test_what_a_denoiser_may_not_give_is_named(denoiser, said):
    images = batch(1, dtype=torch.float32)[0]
    with pytest.raises(sr.SegradiusError, match=said):
        sr.denoised(base(), denoiser).check(images)


def test_what_is_no_model_or_denoiser_is_refused():
    with pytest.raises(sr.InputError, match="denoised takes a Segmenter"):
        sr.denoised(network(), Blur(1.0))
    with pytest.raises(sr.InputError, match="a denoiser is a function of a batch"):
        sr.denoised(base(), 3)


def test_the_blur_is_a_gaussian_and_keeps_the_mean():
    point = torch.zeros(1, 1, 21, 21, dtype=torch.float64)
    point[..., 10, 10] = 1
    seen = Blur(1.5)(point)
    at = torch.arange(21.0, dtype=torch.float64) - 10
    assert seen.sum().item() == pytest.approx(1)
    assert (seen[0, 0].sum(0) * at**2).sum().item() == pytest.approx(1.5**2, rel=0.03)


@pytest.mark.parametrize("text", ["residual", "residual,widths=[4;4;4]", "blur,width=2"])
def test_denoisers_by_name(text):
    made, trained = load_denoiser(text.replace(";", ","))
    images = torch.rand(1, 3, 9, 14)
    assert made(images).shape == images.shape
    assert trained is (False if "residual" in text else None)


def test_every_denoiser_without_needs_of_its_own_is_made_by_its_name():
    for name in DENOISERS:
        if name != "diffusion":
            assert callable(DENOISERS[name]())


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("nowhere", "unknown denoiser 'nowhere'"),
        ("blur,wide=2", "unknown option of denoiser blur 'wide'"),
        ("blur,width=-1", "width is -1"),
        ("residual,bands=0", "bands is 0"),
        ("residual,widths=[1,2]", "expected three whole numbers"),
        ("torch.nn:Nowhere", "object in torch.nn"),
        ("math:pi", "is a float; expected a denoiser"),
    ],
)
def test_texts_of_no_denoiser_are_refused(text, said):
    with pytest.raises(sr.InputError, match=said):
        load_denoiser(text)


def test_a_card_may_name_a_denoiser_beside_it(tmp_path):
    (tmp_path / "deep").mkdir()
    (tmp_path / "deep" / "blur.yaml").write_text("model: blur,width=0.5\n")
    (tmp_path / "net.yaml").write_text("model: demo\ndenoiser: deep/blur.yaml\n")
    (tmp_path / "plain.yaml").write_text("model: demo\n")
    images = torch.rand(1, 3, 24, 32)
    behind = load_model(str(tmp_path / "net.yaml"))
    torch.testing.assert_close(behind.logits(images), load_model("demo").logits(Blur(0.5)(images)))
    given = load_model(str(tmp_path / "plain.yaml"), denoiser=str(tmp_path / "deep" / "blur.yaml"))
    assert torch.equal(given.logits(images), behind.logits(images))
    assert load_model(str(tmp_path / "net.yaml"), denoiser="blur,width=3").network.denoiser == Blur(3.0)


def test_an_untrained_denoiser_is_doubted():
    (found,) = doubts(load_model("demo", denoiser="residual"))
    assert "denoiser ResidualDenoiser before demo has no weights" in str(found)
    assert doubts(load_model("demo", denoiser="blur")) == []


def test_a_denoiser_of_one_sigma_is_for_no_other():
    denoiser = Halving()
    denoiser.sigma = 0.25
    check_sigma(sr.denoised(base(), denoiser), 0.25)
    check_sigma(base(), 0.5)
    with pytest.raises(sr.InputError, match=r"sigma is 0.5, and the denoiser Halving is for 0.25 alone"):
        Smoothing(0.5).check(sr.denoised(base(), denoiser))
    assert isinstance(sr.denoised(base(), denoiser).network, DenoisedNetwork)
    assert base().num_classes == CLASSES
