"""Restarts, red-ε and ensembles: what they keep, and that they are built by composing."""

from __future__ import annotations

import pickle

import pytest
import torch

import segradius as sr
from segradius.attacks import make_attack
from segradius.attacks.ensemble import Ensemble
from segradius.attacks.loop import Iterative
from segradius.attacks.sea import ShrinkingBudget
from segradius.core.contracts import ALL
from segradius.objectives.weightings import CertifiedRadius, Product, StillCorrect
from segradius.threats.threat import NORMS
from tiny import CLASSES, VOID, batch, network


@pytest.fixture
def model() -> sr.Segmenter:
    return sr.wrap(network(), num_classes=CLASSES)


def test_ensemble_keeps_the_worst_member_of_each_image(model: sr.Segmenter) -> None:
    images, labels = batch()
    attack = make_attack("ensemble", norm="l2", eps=0.5, steps=4, members=("pgd", "flip_pgd", "mi_fgsm"))
    found = attack(model, images, labels)
    assert set(found.members) == {"pgd", "flip_pgd", "mi_fgsm"}
    fooled = torch.stack([m.fooled for m in found.members.values()])
    assert torch.equal(found.fooled, fooled.amax(0))
    for i, best in enumerate(fooled.argmax(0).tolist()):
        assert torch.equal(found.delta[i], list(found.members.values())[best].delta[i])


def test_ensemble_ledger_is_the_sum_of_its_members(model: sr.Segmenter) -> None:
    images, labels = batch()
    found = make_attack("sea", norm="linf", eps=0.05, steps=10)(model, images, labels)
    assert found.ledger.forward.tolist() == sum(m.ledger.forward for m in found.members.values()).tolist()
    # Three losses of ten steps in three phases, and a last look after each phase.
    assert found.ledger.by_purpose()["attack"] == {"forward": 120, "backward": 120}
    assert found.ledger.by_purpose()["judging"] == {"forward": 36, "backward": 0}


def test_more_restarts_never_fool_fewer_pixels(model: sr.Segmenter) -> None:
    images, labels = batch()
    fooled = [
        make_attack("pgd", norm="l2", eps=0.3, steps=3, restarts=n)(model, images, labels).fooled for n in (1, 2, 5)
    ]
    assert (fooled[1] >= fooled[0]).all()
    assert (fooled[2] >= fooled[1]).all()
    assert fooled[2].sum() > fooled[0].sum()


def test_red_eps_shrinks_to_the_budget_and_shares_out_its_steps() -> None:
    sea = make_attack("sea", norm="linf", eps=0.05, steps=100).method
    assert isinstance(sea, Ensemble)
    for member in sea.members.values():
        assert isinstance(member, ShrinkingBudget)
        assert member.phase_steps == (30, 30, 40)
        assert member.factors == (2.0, 1.5, 1.0)


def test_red_eps_phases_run_at_their_budgets(model: sr.Segmenter) -> None:
    images, labels = batch()
    seen: list[float] = []

    class Spy:
        num_classes, offers, frozen = CLASSES, ALL, staticmethod(model.frozen)

        @staticmethod
        def logits(x: torch.Tensor, precision: torch.dtype | None = None) -> torch.Tensor:
            seen.append(NORMS["linf"].length(x.detach() - images).amax().item())
            return model.logits(x, precision)

    attack = make_attack("sea", norm="linf", eps=0.05, steps=10)
    attack(Spy(), images, labels)
    first = seen[:13]  # phases of 3, 3 and 4 steps, each with a last look
    assert max(first[:4]) == pytest.approx(0.1)
    assert 0.05 < max(first[4:8]) <= 0.075 + 1e-12
    assert max(first[8:]) <= 0.05 + 1e-12


def test_cr_multiplies_every_objective_and_copies_nothing() -> None:
    guided = make_attack("cr_sea", samples=0).method
    assert isinstance(guided, Ensemble)
    mce = guided.members["mce"]
    assert isinstance(mce, ShrinkingBudget)
    assert mce.attack.objective.weighting == Product((StillCorrect(), CertifiedRadius(samples=0)))
    plain = make_attack("sea").method
    assert isinstance(plain, Ensemble)
    assert isinstance(plain.members["mce"], ShrinkingBudget)
    assert mce.attack.step == plain.members["mce"].attack.step


def test_adaptive_step_of_a_guided_attack_tracks_a_loss_that_does_not_move() -> None:
    guided = make_attack("cr_apgd").method
    assert isinstance(guided, Iterative)
    assert guided.objective.tracks_another
    plain = make_attack("apgd").method
    assert isinstance(plain, Iterative)
    assert not plain.objective.tracks_another
    assert make_attack("apgd", loss="flips").method.objective.tracks_another  # type: ignore[attr-defined]


def test_warm_start_and_uniform_start_respect_ball_box_and_mask(model: sr.Segmenter) -> None:
    images, labels = batch()
    changeable = torch.zeros_like(labels, dtype=torch.bool)
    changeable[:, :4] = True
    attack = make_attack("pgd", norm="l1", eps=3.0, steps=2, start="uniform")
    found = attack(model, images, labels, changeable=changeable)
    assert (NORMS["l1"].length(found.delta) <= 3.0 * (1 + 1e-9)).all()
    assert (found.delta[:, :, 4:] == 0).all()


def test_best_iterate_is_never_worse_than_the_last_or_the_clean_image(model: sr.Segmenter) -> None:
    images, labels = batch()
    best = make_attack("pgd", norm="linf", eps=0.05, steps=6)(model, images, labels)
    last = make_attack("pgd", norm="linf", eps=0.05, steps=6, keep="last")(model, images, labels)
    clean = ((model.logits(images).argmax(1) != labels) & (labels != VOID)).flatten(1).sum(1)
    assert (best.fooled >= last.fooled).all()
    assert (best.fooled >= clean).all()


def test_per_image_budgets(model: sr.Segmenter) -> None:
    from dataclasses import replace

    from segradius.threats.threat import Threat

    images, labels = batch()
    attack = make_attack("pgd", norm="l2", eps=1.0, steps=4)
    assert isinstance(attack.method, Iterative)
    each = replace(attack, method=replace(attack.method, threat=Threat(NORMS["l2"], (0.1, 0.2, 0.3, 0.4))))
    found = each(model, images, labels)
    assert torch.allclose(NORMS["l2"].length(found.delta), torch.tensor([0.1, 0.2, 0.3, 0.4]).double(), rtol=0.02)


def test_a_guided_ensemble_guides_each_member_once() -> None:
    method = make_attack("cr_ensemble", members=("pgd", "cr_pgd")).method
    assert isinstance(method, Ensemble)
    weightings = [m.objective.weighting for m in method.members.values() if isinstance(m, Iterative)]
    assert weightings == [CertifiedRadius(), CertifiedRadius()]


def test_an_attack_can_be_sent_to_another_process() -> None:
    attack = make_attack("cr_sea", norm="linf", eps=0.1)
    assert pickle.loads(pickle.dumps(attack)) == attack


@pytest.mark.parametrize("name", ["ensemble", "cr_ensemble", "sea"])
def test_restarts_of_members_start_anew_and_keep_them(model: sr.Segmenter, name: str) -> None:
    """A second run from zero would repeat the first one."""
    images, labels = batch()
    steps = {"norm": "l2", "eps": 0.3, "steps": 10 if name == "sea" else 3}
    once, thrice = (make_attack(name, **steps, restarts=n)(model, images, labels) for n in (1, 3))  # type: ignore[arg-type]
    assert set(thrice.members) == set(once.members) != set()
    assert (thrice.fooled >= once.fooled).all()
    totals = [sum(int(m.fooled.sum()) for m in found.members.values()) for found in (once, thrice)]
    assert totals[1] > totals[0]
    for member, first in once.members.items():
        assert (thrice.members[member].fooled >= first.fooled).all()
        assert (NORMS["l2"].length(thrice.members[member].delta) <= 0.3 * (1 + 1e-6)).all()
    best = torch.stack([m.fooled for m in thrice.members.values()]).amax(0)
    assert torch.equal(thrice.fooled, best)
    assert (thrice.ledger.forward == 3 * once.ledger.forward).all()
    assert (sum(m.ledger.forward for m in thrice.members.values()) == thrice.ledger.forward).all()
