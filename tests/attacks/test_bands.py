"""Every registered attack on images of other bands than RGB's, and with a weight for each band."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest
import test_black_box_invariants as black
import test_invariants as white
import torch

import segradius as sr
from segradius.attacks import ATTACKS
from segradius.core.errors import InputError
from segradius.threats.threat import NORMS
from tiny import CLASSES, ScoresOnly, batch, network

W = (0.5, 2.0, 1.0, math.inf)
EPS = white.EPS


def every() -> Iterator[tuple[str, str]]:
    yield from white.attacks()
    yield from black.attacks()


def made(name: str, norm: str, **options: object) -> sr.Attack:
    return (white if name.removeprefix("cr_") in ATTACKS else black).made(name, norm, **options)


def attacked(name: str, norm: str, bands: int, **options: object) -> tuple[torch.Tensor, sr.attacks.Result]:
    images, labels = batch(count=2, dtype=torch.float32, bands=bands)
    model = sr.wrap(network(dtype=torch.float32, bands=bands))
    assert model.bands == bands
    asked = model if name.removeprefix("cr_") in ATTACKS else ScoresOnly(model)
    return images, made(name, norm, **options)(asked, images, labels)  # type: ignore[arg-type]


PLAIN = [each for each in every() if not each[0].startswith("cr_")]
#: Of attacks whose iterates leave the ball: steps so short that no value nears the box.
SHORT = {"dag_alg3": {"alpha": 0.01}, "ddn": {"alpha": 0.005, "radius": 0.02}, "fmn": {"alpha": 0.005}}


@pytest.mark.parametrize(
    ("name", "norm", "bands"), [(*each, 1) for each in every()] + [(*each, bands) for each in PLAIN for bands in (2, 4)]
)
def test_perturbations_of_any_bands_stay_in_ball_and_box(name: str, norm: str, bands: int) -> None:
    images, found = attacked(name, norm, bands)
    assert found.delta.shape == images.shape
    assert (NORMS[norm].length(found.delta.double()) <= EPS[norm] * (1 + 1e-6)).all()
    assert found.adversarial.min() >= 0
    assert found.adversarial.max() <= 1
    assert torch.equal(found.adversarial, (images + found.delta).clamp(0, 1))


@pytest.mark.parametrize(("name", "norm"), list(every()))
def test_weights_hold_and_a_band_of_weight_inf_is_left_as_it_is(name: str, norm: str) -> None:
    images, found = attacked(name, norm, 4, band_weights=W)
    assert torch.equal(found.adversarial[:, 3], images[:, 3])
    assert (found.delta[:, 3] == 0).all()
    u = found.delta[:, :3].double() * torch.tensor(W[:3], dtype=torch.float64).view(3, 1, 1)
    assert (NORMS[norm].length(u) <= EPS[norm] * (1 + 2e-6)).all()
    assert found.adversarial.min() >= 0
    assert found.adversarial.max() <= 1
    assert torch.equal(found.adversarial, (images + found.delta).clamp(0, 1))


class Scaled(torch.nn.Module):
    """A network that is given images times a factor a band."""

    def __init__(self, inner: torch.nn.Module, factors: torch.Tensor) -> None:
        super().__init__()
        self.inner, self.factors = inner, factors

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.inner(images * self.factors)


@pytest.mark.parametrize(("name", "norm"), [(name, norm) for name, norm in PLAIN if name not in ("ddn", "fmn")])
def test_weights_are_a_change_of_variables(name: str, norm: str) -> None:
    """An attack with weights w on f is, up to rounding, one without on z → f(z / w), where no value nears the box.

    The radius (cr_) is of noise on the image itself and is left out; ddn and fmn, which search far outside the ball,
    do near the box.
    """
    w = torch.tensor([0.5, 2.0, 0.25], dtype=torch.float64).view(3, 1, 1)  # powers of two: dividing rounds nothing
    drawn = torch.rand(2, 3, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    images = (0.45 + 0.1 * drawn) * torch.tensor([1.0, 0.5, 1.0]).view(3, 1, 1)
    inner = network()
    labels = sr.wrap(inner, num_classes=CLASSES).logits(images).argmax(1)
    options = {} if name in ATTACKS else {"queries": 21}
    eps = {"l1": 0.02, "l2": 0.02, "linf": 0.02}[norm]
    one = sr.wrap(inner, num_classes=CLASSES)
    other = sr.wrap(Scaled(inner, 1 / w), num_classes=CLASSES, bands=3)
    if name not in ATTACKS:
        one, other = ScoresOnly(one), ScoresOnly(other)  # type: ignore[assignment]
    given = {"norm": norm, "eps": eps, **options, **({} if name in ATTACKS else black.SMALL.get(name, {}))}
    given |= {"steps": 4} if name in ATTACKS and not name.endswith("fgsm") else {}
    given |= {"keep": "last"} if "keep" in sr.attacks.attack_options(name) else {}
    given |= SHORT.get(name, {})
    weighted = sr.make_attack(name, band_weights=w.flatten().tolist(), **given)(one, images, labels)
    plain = sr.make_attack(name, **given)(other, images * w, labels)
    assert plain.delta.flatten(1).any(1).all()
    torch.testing.assert_close(weighted.delta * w, plain.delta, rtol=1e-6, atol=1e-9)
    assert torch.equal(weighted.prediction, plain.prediction)


def test_weights_of_another_number_of_bands_are_refused() -> None:
    images, labels = batch(dtype=torch.float32)
    model = sr.wrap(network(dtype=torch.float32))
    for attack in ("pgd", "square", "dag_alg3", "sea"):
        norm = "linf" if attack == "dag_alg3" else "l2"
        with pytest.raises(InputError, match=r"band_weights has 2 numbers \(1,2\) for images of 3 bands"):
            sr.make_attack(attack, norm=norm, band_weights=[1, 2])(model, images, labels)
