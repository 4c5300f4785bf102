"""Bad input to an attack: an error that names what is wrong, before any pass is made."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import segradius as sr
from segradius.attacks import make_attack
from segradius.core.errors import InputError
from tiny import CLASSES, VOID, Counting, batch, network


def broken(**changes: Any) -> tuple[dict[str, Any], Counting]:
    images, labels = batch()
    given = {"images": images, "labels": labels} | changes
    return given, Counting(sr.wrap(network(), num_classes=CLASSES))


IMAGES, LABELS = batch()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"images": (IMAGES * 255).to(torch.uint8)}, "got torch.uint8: divide 8-bit images by 255"),
        ({"images": IMAGES * 255}, r"must lie in \[0, 1\], got \[0, 255\]: .*divide 8-bit images by 255"),
        ({"images": (IMAGES - 0.45) / 0.22}, "before normalisation"),
        ({"images": IMAGES.where(IMAGES < 0.9, torch.nan)}, "image 0 holds NaN"),
        ({"images": IMAGES[:, :1]}, "takes 3 bands and the images have 1: give bands=3 with the data"),
        ({"images": IMAGES[0]}, r"must be \(N, B, H, W\), N ≥ 1 and none of them 0, got \(3, 8, 8\)"),
        ({"images": IMAGES.unsqueeze(2)}, r"got \(4, 3, 1, 8, 8\): a volume \(N, B, D, H, W\) is taken slice by slice"),
        ({"images": IMAGES[:0], "labels": LABELS[:0]}, "N ≥ 1"),
        ({"labels": LABELS[:, :7]}, r"labels \(4, 7, 8\) do not fit images"),
        ({"labels": LABELS.int()}, "labels must be int64, got torch.int32"),
        (
            {"labels": LABELS.clone().index_put_((torch.tensor(2), torch.tensor(3), torch.tensor(5)), torch.tensor(9))},
            "value 9 in image 2 at row 3, column 5; expected 0 to 3, or 255 for void",
        ),
        ({"labels": LABELS.clone().masked_fill(LABELS == VOID, -1)}, "value -1 in image 0 at row 7, column 0"),
        ({"target": LABELS[:2]}, r"target must be \(4, 8, 8\)"),
        ({"target": LABELS * 0 + 4}, "target: value 4"),
        ({"changeable": LABELS}, "changeable must be bool"),
        ({"victims": LABELS[:1] == 0}, r"victims must be bool \(4, 8, 8\)"),
        ({"ids": ("a",)}, "1 ids for 4 images"),
    ],
)
def test_bad_input_is_named_before_any_pass(changes: dict[str, Any], message: str) -> None:
    given, model = broken(**changes)
    with pytest.raises(InputError, match=message):
        make_attack("pgd", norm="l2", eps=0.5)(model, **given)
    assert model.forward == 0


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (network(), "a Sequential must be wrapped first"),
        (
            sr.wrap(network(), num_classes=CLASSES + 1),
            r"gives shape \(4, 4, 8, 8\); expected .* \(4, 5, h, w\)",
        ),
        (sr.wrap(torch.nn.Sequential(network(), torch.nn.Softmax(1)), num_classes=CLASSES), "gives probabilities"),
        (sr.wrap(lambda x: network().eval()(x).detach(), num_classes=CLASSES), "logits have no gradient"),
    ],
)
def test_model_that_cannot_be_attacked_is_named(model: Any, message: str) -> None:
    images, labels = batch()
    with pytest.raises(InputError, match=message):
        make_attack("pgd", norm="l2", eps=0.5, steps=2)(model, images, labels)


def test_numpy_arrays_are_named() -> None:
    given, model = broken(images=IMAGES.numpy())
    with pytest.raises(InputError, match="images must be a torch tensor, got a ndarray"):
        make_attack("pgd", norm="l2", eps=0.5)(model, **given)


def test_one_class_can_be_the_target_of_all() -> None:
    images, labels = batch()
    model, attack = sr.wrap(network(), num_classes=CLASSES), make_attack("pgd", norm="l2", eps=0.5, steps=3)
    everywhere = torch.where(labels == VOID, labels, torch.full_like(labels, 2))
    one = attack(model, images, labels, target=2)
    assert torch.equal(one.delta, attack(model, images, labels, target=everywhere).delta)
    with pytest.raises(InputError, match="target class 4 does not exist"):
        attack(model, images, labels, target=4)


@pytest.mark.parametrize("eps", [0.0, -1.0, float("nan")])
def test_eps_must_be_positive(eps: float) -> None:
    with pytest.raises(InputError, match="not above zero"):
        make_attack("pgd", eps=eps)


def test_linf_eps_in_units_of_255_is_recognised() -> None:
    with pytest.raises(InputError, match="did you mean 8/255"):
        make_attack("pgd", norm="linf", eps=8)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("pdg", {}, "did you mean 'pdpgd' or 'pgd'"),
        ("cr_pdg", {}, "did you mean .*'cr_pgd'"),
        ("pgd", {"step": 5}, "unknown option of pgd 'step'; did you mean 'steps'"),
        ("pgd", {"sigma": 0.1}, "unknown option of pgd 'sigma': sigma is an option of attacks guided .*: cr_pgd$"),
        ("cr_pgd", {"tile": 8}, "unknown option of cr_pgd 'tile': tile is an option of bandits, local_search$"),
        ("fgsm", {"steps": 5}, "fgsm determines steps by itself"),
        ("pgd", {"steps": 0}, "steps is 0; expected a whole number in"),
        ("pgd", {"start": "here"}, "start is 'here'; expected zero or uniform"),
        ("pgd", {"keep": "first"}, "keep is 'first'; expected best or last"),
        ("pgd", {"alpha": -1.0}, "alpha is -1.0; expected a number in"),
        ("pgd", {"restarts": 0}, "restarts is 0; expected a whole number in"),
        ("pgd", {"loss": "cross_entropy"}, "unknown loss 'cross_entropy'"),
        ("pgd", {"norm": "l3"}, "unknown norm 'l3'"),
        ("sea", {"steps": 2}, "too few for 3 phases"),
        ("ensemble", {"members": ()}, "at least one member"),
        ("ensemble", {"members": "pgd+sgd"}, "unknown attack 'sgd'"),
    ],
)
def test_bad_attack_is_named(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        make_attack(name, **options)


def test_image_without_labels_is_returned_clean() -> None:
    images, labels = batch()
    labels[1] = VOID
    found = make_attack("pgd", norm="l2", eps=0.5, steps=3)(sr.wrap(network(), num_classes=CLASSES), images, labels)
    assert (found.delta[1] == 0).all()
    assert found.fooled[1] == 0
    assert found.valid.all()
