"""What cannot go together is refused when it is put together, and what does not fit a model before it is asked."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import segradius as sr
from segradius.attacks import ATTACKS, BLACK_BOX, attack_options, make_attack
from segradius.core.contracts import ALL, ANSWERS, LABELS, LABELS_ALONE, LOGITS
from segradius.core.errors import InputError
from segradius.objectives.losses import LOSSES, Loss, losses_for
from segradius.objectives.weightings import WEIGHTINGS
from tiny import CLASSES, Counting, ScoresOnly, batch, network


def two_classes() -> sr.Segmenter:
    return sr.wrap(lambda x: x[:, :2], num_classes=2)


@pytest.mark.parametrize("name", LOSSES)
def test_a_loss_declares_what_it_can(name: str) -> None:
    loss, labels = LOSSES[name](), torch.zeros(1, 2, 2, dtype=torch.long)
    logits = torch.randn(1, 4, 2, 2, generator=torch.Generator().manual_seed(0), requires_grad=True)
    assert hasattr(loss, "of_scores") == (LOGITS not in loss.needs)
    assert loss.needs <= ALL
    if loss.differentiable:
        assert loss(logits, labels, 0.0).requires_grad
        same = torch.equal(loss(logits, labels, 0.0), loss(logits, labels, 1.0))
        assert same != loss.annealed
        few = torch.randn(1, loss.least_classes, 2, 2)
        assert torch.isfinite(loss(few, labels, 0.0)).all()


@pytest.mark.parametrize("base", [n for n in BLACK_BOX if "weighting" in attack_options(n)])
@pytest.mark.parametrize("weighting", [n for n in WEIGHTINGS if LOGITS in WEIGHTINGS[n]().needs])
def test_weights_from_logits_are_refused_where_scores_are_asked(base: str, weighting: str) -> None:
    for product in (weighting, f"cr*{weighting}"):
        with pytest.raises(InputError, match=f"the weighting '{weighting}' needs logits; scores give balanced, cr"):
            make_attack(base, norm="linf", eps=0.1, weighting=product)


@pytest.mark.parametrize("base", [n for n in BLACK_BOX if "loss" in attack_options(n)])
@pytest.mark.parametrize("loss", [n for n in LOSSES if LOGITS in LOSSES[n].needs])
def test_losses_of_logits_are_refused_where_scores_are_asked(base: str, loss: str) -> None:
    with pytest.raises(InputError, match=f"the loss '{loss}' needs logits; scores give ce, flips, hinge"):
        make_attack(base, norm="linf", eps=0.1, loss=loss)


@pytest.mark.parametrize("base", [n for n in ATTACKS if "loss" in attack_options(n)])
@pytest.mark.parametrize("guided", ["", "cr_"])
def test_a_loss_without_gradient_is_refused_where_it_is_followed(base: str, guided: str) -> None:
    refused = r"the loss 'wrong' has no gradient.* ce, dlr, flips|loss is 'wrong'; expected dlr or margin"
    with pytest.raises(InputError, match=refused):
        make_attack(guided + base, norm=ATTACKS.facts(base)["norms"][-1], eps=0.1, loss="wrong")


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("pgd", {"loss": "dlr"}, "the loss 'dlr' needs at least 3 classes, the model has 2: use ce, flips"),
        ("cr_apgd", {"loss": "masked_dlr", "restarts": 2}, "needs at least 3 classes"),
        ("sea", {"class_weights": (1.0, 2.0, 3.0)}, "class weights: 3 given, the model has 2 classes"),
    ],
)
def test_what_does_not_fit_a_model_is_refused_before_a_pass(name: str, options: dict[str, Any], message: str) -> None:
    model, images = Counting(two_classes()), torch.full((1, 3, 4, 4), 0.5)
    attack = make_attack(name, **options)
    with pytest.raises(InputError, match=message):
        attack.check_model(model)
    with pytest.raises(InputError, match=message):
        attack(model, images, torch.zeros(1, 4, 4, dtype=torch.long))
    assert model.forward == 0


@pytest.mark.parametrize("name", [n for n in BLACK_BOX if attack_options(n)["loss"].default != "wrong"])
def test_what_does_not_fit_a_target_is_refused_before_a_query(name: str) -> None:
    images, labels = batch(count=1)
    labels_only = ScoresOnly(sr.wrap(network(), num_classes=CLASSES), labels_only=True)
    with pytest.raises(InputError, match=r"labels only: give the attack the loss wrong \(--options loss=wrong\)"):
        make_attack(name, norm="linf", eps=0.1)(labels_only, images, labels)
    assert labels_only.asked == 0
    make_attack(f"cr_{name}", norm="linf", eps=0.1, loss="wrong").check_model(labels_only)
    assert losses_for(LABELS_ALONE) == [n for n in LOSSES if {LABELS} == LOSSES[n].needs]
    assert set(losses_for(ANSWERS)) > {"ce", "wrong"}


def test_a_loss_of_another_package_is_taken_for_one_of_logits_with_a_gradient() -> None:
    class Plain(Loss):
        def __call__(self, logits: torch.Tensor, labels: torch.Tensor, progress: float = 0.0) -> torch.Tensor:
            return -logits.gather(1, labels.unsqueeze(1)).squeeze(1)

    images, labels = batch(count=1)
    mine = sr.Attack("mine", sr.Iterative(sr.Objective(Plain()), sr.make_threat("l2", 0.5), _step(), steps=2))
    assert mine(sr.wrap(network(), num_classes=CLASSES), images, labels).valid.all()
    with pytest.raises(InputError, match="the loss 'Plain' needs logits"):
        sr.Objective(Plain()).check_scores()


def _step() -> sr.attacks.Steepest:
    return sr.attacks.Steepest(sr.StepSize(per_eps=2.5))
