"""Every registered attack on the lattice of 8 bits: what it returns is what a file gives back, inside the ball."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from PIL import Image
from test_bands import PLAIN, made
from test_invariants import EPS
from torch import Tensor

import segradius as sr
from segradius.attacks import ATTACKS
from segradius.core.errors import InputError
from segradius.threats.threat import NORMS
from tiny import CLASSES, VOID, ScoresOnly, batch, network


def through_a_file(image: Tensor) -> Tensor:
    """What a PNG gives back, read as images are."""
    levels = (image * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
    file = io.BytesIO()
    Image.fromarray(levels).save(file, "PNG")
    read = np.asarray(Image.open(file))
    return torch.from_numpy(read.copy()).permute(2, 0, 1).float() / 255


class Looked(torch.nn.Module):
    """A network that remembers whether all it was shown was of whole levels."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.whole = network(dtype=torch.float32), True

    def forward(self, images: Tensor) -> Tensor:
        self.whole &= torch.equal(images.detach(), (images.detach() * 255).round() / 255)
        return self.inner(images)


#: Shown between levels: what is made of the iterate, lies outside of the box by the letter, or is noise for a radius.
BETWEEN = {"di_fgsm", "mi_di_ti_fgsm", "dag_alg3", "ensemble"}


#: Every attack, in one of its norms in turn, and some in all.
ONCE = [
    each for place, each in enumerate(PLAIN) if place % 3 == 0 or each[0] in ("pgd", "flips", "apgd", "local_search")
]
ONCE += [each for each in PLAIN if each[0] not in {name for name, _ in ONCE}]


@pytest.mark.parametrize(("name", "norm"), ONCE)
def test_what_is_returned_is_what_a_file_holds_and_what_was_shown(name: str, norm: str) -> None:
    images, labels = batch(count=2, dtype=torch.float32)
    images = (images * 255).round() / 255
    net = Looked()
    model = sr.wrap(net, num_classes=CLASSES)
    asked = model if name in ATTACKS else ScoresOnly(model)
    found = made(name, norm, lattice=255)(asked, images, labels)  # type: ignore[arg-type]
    assert net.whole or name in BETWEEN
    assert torch.equal(found.adversarial, torch.stack([through_a_file(image) for image in found.adversarial]))
    assert torch.equal(found.prediction, model.logits(found.adversarial).argmax(1))
    wrong = (found.prediction != labels) & (labels != VOID)
    assert torch.equal(found.fooled, wrong.flatten(1).sum(1))
    change = (found.adversarial.double() * 255).round() - (images.double() * 255).round()
    assert (NORMS[norm].length(change / 255) <= EPS[norm] * (1 + 1e-6)).all()
    torch.testing.assert_close(found.delta.double(), change / 255, rtol=0, atol=1e-7)
    assert found.delta.any()


def test_void_and_what_may_not_be_changed_stay_and_images_between_levels_are_brought_onto_them() -> None:
    images, labels = batch(count=2, dtype=torch.float32)
    model = sr.wrap(network(dtype=torch.float32), num_classes=CLASSES)
    fixed = torch.ones_like(labels, dtype=torch.bool)
    fixed[:, :4] = False
    attack = sr.attacks.pgd(norm="l2", eps=0.5, steps=4, start="uniform", lattice=255)
    with pytest.raises(InputError, match="image 0 is not of 255 whole levels at row 0"):
        attack(model, images, labels, changeable=fixed)
    found = attack(model, images, labels)
    assert torch.equal(found.adversarial, (found.adversarial * 255).round() / 255)
    assert (NORMS["l2"].length((found.adversarial - images).double()) <= 0.5 * (1 + 1e-5)).all()
    with pytest.raises(InputError, match="is not of 255 whole levels at row"):  # nor under a patch
        sr.attacks.pgd(norm="linf", eps=0.5, steps=2, lattice=255, patch=0.1, place="centre")(model, images, labels)
    images = (images * 255).round() / 255
    found = attack(model, images, labels, changeable=fixed)
    assert torch.equal(found.adversarial[:, :, :4], images[:, :, :4])
    assert not torch.equal(found.adversarial[:, :, 4:], images[:, :, 4:])
    with pytest.raises(InputError, match="no image of 255 whole levels"):
        sr.attacks.pgd(norm="linf", eps=0.001, steps=4, lattice=255)(model, images + 0.3 / 255 * (images < 0.9), labels)


@pytest.mark.parametrize(("name", "norm"), [("sea", "l2"), ("ensemble", "linf"), ("apgd", "l1"), ("square", "linf")])
def test_a_batch_is_its_images_one_by_one_and_restarts_and_members_stay_on_it(name: str, norm: str) -> None:
    images, labels = batch(count=2, dtype=torch.float32)
    images = (images * 255).round() / 255
    model = sr.wrap(network(dtype=torch.float32), num_classes=CLASSES)
    options = {"restarts": 2} if name == "apgd" else {}
    attack = made(name, norm, lattice=255, **options)
    found = attack(model, images, labels, ids=["a", "b"])
    for i, one in enumerate("ab"):
        alone = attack(model, images[i : i + 1], labels[i : i + 1], ids=[one])
        torch.testing.assert_close(alone.adversarial, found.adversarial[i : i + 1], rtol=0, atol=0)
    for member in found.members.values():
        assert torch.equal(member.adversarial, (member.adversarial * 255).round() / 255)
