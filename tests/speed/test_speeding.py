"""A model through whose cheaper forms loops look: what it finds is judged by the model itself, which is left alone."""

from __future__ import annotations

import copy
import json
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

import segradius as sr
from segradius.attacks.base import ATTACKS, BLACK_BOX
from segradius.certification import Noise
from segradius.certification.smoothed import Smoothed
from segradius.core.contracts import for_answers, for_guidance
from segradius.speed import Choice, Form, chosen, remembered, sped_up
from segradius.speed.forming import NotFormedError, formed
from segradius.speed.trial import Trial, _Tried

REDUCED = Choice("fast", Form(folded=True), Form(folded=True, channels_last=True, precision="bfloat16"))
IMAGES = torch.rand(2, 3, 24, 32, generator=torch.Generator().manual_seed(3))
LABELS = torch.randint(0, 6, (2, 24, 32), generator=torch.Generator().manual_seed(4))
BRIEF = {"linf": {"eps": 0.02}, "l2": {"eps": 0.5}}


@pytest.fixture(scope="module")
def demo() -> sr.Segmenter:
    return sr.load_model("demo")


@pytest.fixture(scope="module")
def quick(demo: sr.Segmenter) -> sr.Segmenter:
    return sped_up(demo, IMAGES, "fast", choice=REDUCED)


class _Flat(nn.Module):
    """Refuses any layout but the usual one."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm, self.last = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.Conv2d(8, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.first(x))
        return self.last(x.view(len(x), -1).view(x.shape))


def network() -> nn.Module:
    torch.manual_seed(0)
    made = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 4, 1))
    with torch.no_grad():
        made[1].running_mean.uniform_(-1, 1)
        made[1].running_var.uniform_(0.5, 2)
    return made


@pytest.mark.parametrize("name", [name for name in ATTACKS if name != "ensemble"] + ["cr_pgd", "ensemble"])
def test_every_white_box_attack_reports_the_verdict_of_the_plain_model(name, demo, quick):
    norm = "linf" if name == "dag_alg3" else "l2"
    steps = {} if name == "fgsm" else {"steps": 6} if name == "sea" else {"steps": 4}
    attack = sr.make_attack(name, norm=norm, **BRIEF[norm], **steps)
    found = attack(quick, IMAGES, LABELS)
    for each in (found, *found.members.values()):
        prediction = demo.logits(each.adversarial).argmax(1)
        assert torch.equal(each.prediction, prediction)
        assert torch.equal(each.fooled, (prediction != LABELS).flatten(1).sum(1))
    before = attack(demo, IMAGES, LABELS).ledger.passes
    runs = len(found.members) or 1
    confirmed = {"sea": 9}.get(name, runs)  # three phases of three members
    assert (found.ledger.passes["judging"][0] - before["judging"][0] == confirmed).all()
    assert (found.ledger.passes["attack"] == before["attack"]).all()


def test_answers_asked_in_reduced_precision_come_from_the_model_itself(quick):
    assert for_answers(quick, torch.bfloat16) is quick
    assert for_answers(quick, torch.float32) is for_answers(quick) is quick.twins.answers


@pytest.mark.parametrize("name", ["pgd", "apgd", "flip_apgd", "sea", "dag_alg3"])
def test_steps_that_compare_losses_or_gradients_go_by_the_exact_form(name, demo, quick):
    exact = sped_up(demo, IMAGES, "exact", choice=Choice("exact", REDUCED.answers, REDUCED.answers))
    norm = "linf" if name == "dag_alg3" else "l2"
    attack = sr.make_attack(name, norm=norm, **BRIEF[norm], steps=6)
    fast, same = attack(quick, IMAGES, LABELS), attack(exact, IMAGES, LABELS)
    assert torch.equal(fast.delta, same.delta) is (name != "pgd")


@pytest.mark.parametrize("name", ["local_pbgd", "square"])
def test_black_box_attacks_ask_what_differs_by_rounding_alone_so_that_their_trace_is_no_bfloat16_number(
    name, demo, quick
):
    assert name in BLACK_BOX
    attack = sr.make_attack(name, norm="linf", eps=0.02, queries=12)
    plain, found = attack(demo, IMAGES, LABELS), attack(quick, IMAGES, LABELS)
    assert torch.allclose(found.trace.loss, plain.trace.loss, atol=1e-4, equal_nan=True)
    assert torch.allclose(found.adversarial, plain.adversarial, atol=1e-4)
    assert (found.ledger.forward == plain.ledger.forward).all()


def test_the_network_is_left_as_found(demo):
    own = copy.deepcopy(demo.network).train()
    model = replace(demo, network=own)
    before = {name: (value.clone(), value.data_ptr()) for name, value in own.state_dict().items()}
    sr.attacks.pgd(norm="l2", eps=0.5, steps=2)(sped_up(model, IMAGES, "exact"), IMAGES, LABELS)
    assert all(torch.equal(v, before[n][0]) and v.data_ptr() == before[n][1] for n, v in own.state_dict().items())
    assert all(module.training for module in own.modules())
    assert all(parameter.requires_grad for parameter in own.parameters())


def test_exact_forms_round_and_reduced_ones_are_asked_for_directions_alone(demo, quick):
    plain = demo.logits(IMAGES)
    assert torch.allclose(for_answers(quick).logits(IMAGES), plain, atol=1e-4 * float(plain.abs().amax()))
    assert not torch.allclose(for_guidance(quick).logits(IMAGES), plain, atol=1e-4)
    assert torch.equal(quick.logits(IMAGES), plain)
    assert for_guidance(demo) is demo


@pytest.mark.parametrize("change", ["in place", "behind its back", "a running mean"])
def test_weights_that_changed_since_are_noticed(change):
    model = sr.wrap(network())
    quick = sped_up(model, IMAGES, "exact", choice=Choice("exact", Form(folded=True), Form(folded=True)))
    with torch.no_grad():
        if change == "in place":
            model.network[0].weight.add_(1e-3)
        elif change == "behind its back":
            model.network[3].weight.data = model.network[3].weight.data * 1.01
        else:
            model.network[1].running_mean.mul_(1.1)
    with pytest.raises(sr.InputError, match=r"(weight|running_mean) of model .* changed since its cheaper forms"):
        sr.attacks.pgd(norm="l2", eps=0.5, steps=1)(quick, IMAGES, LABELS.clamp_max(3))


def test_settings_that_changed_since_are_noticed_and_wrap_drops_the_forms(quick):
    other = replace(quick, normalisation=None)
    with pytest.raises(sr.InputError, match="normalisation of model 'demo' changed since its cheaper forms"):
        sr.attacks.pgd(norm="l2", eps=0.5, steps=1)(other, IMAGES, LABELS)
    assert sr.wrap(quick, normalisation="none").twins is None


def test_a_network_that_refuses_a_layout_runs_without_it_and_it_is_said():
    choice = chosen(sr.wrap(_Flat(), num_classes=4), IMAGES, "exact")
    assert not choice.guidance.channels_last
    assert [line.split(":")[0] for line in choice.left] == ["channels-last", "batch norm folded, channels-last"]
    assert "view" in choice.left[0]


def test_a_function_has_no_layers_and_is_told_so():
    choice = chosen(sr.wrap(network().eval().__call__, num_classes=4), IMAGES, "exact")
    assert choice.guidance == choice.answers == Form()
    assert "no layers can be seen" in choice.left[0]
    with pytest.raises(NotFormedError, match="function"):
        formed(sr.wrap(lambda x: x, num_classes=3), Form(channels_last=True), IMAGES)


def test_a_form_that_gives_other_numbers_is_left(monkeypatch):
    def wrong(network, pairs, **layout):
        made = copy.deepcopy(network).eval().requires_grad_(False)
        made[3].weight.mul_(1.01)
        return made

    monkeypatch.setattr("segradius.speed.forming.fold", wrong)
    choice = chosen(sr.wrap(network()), IMAGES, "exact")
    assert choice.guidance == Form()
    assert "logits differ by 0.0" in choice.left[0]


def test_the_simpler_form_stays_unless_another_saves_three_percent():
    trial = Trial(sr.wrap(network()), IMAGES, clock=lambda: 0.0)
    plain, folded, laid = Form(), Form(folded=True), Form(channels_last=True)
    trial._time = lambda tried: None
    for form, seconds in ((plain, 1.0), (folded, 0.975), (laid, 0.96)):
        trial.tried[form] = _Tried(form, trial.model, passes=seconds)
    assert trial.best([plain, folded]) == plain
    assert trial.best([plain, folded, laid]) == laid
    assert trial.best([folded, laid]) == folded


def test_what_was_chosen_is_remembered_for_the_same_network_alone(monkeypatch, tmp_path):
    monkeypatch.setenv("SEGRADIUS_CACHE", str(tmp_path))
    model, told = sr.wrap(network()), list[Choice]()
    sped_up(model, IMAGES, "exact", told=told.append)
    (file,) = (tmp_path / "speed").iterdir()
    assert Choice.of(json.loads(file.read_text())) == told[0]

    def never(*args, **options):
        raise AssertionError("tried again")

    monkeypatch.setattr(Trial, "choose", never)
    sped_up(model, IMAGES, "exact", told=told.append)
    assert told[1] == told[0]
    other = sr.wrap(network())
    with torch.no_grad():
        other.network[0].weight[0, 0, 0, 0] += 1
    with pytest.raises(AssertionError, match="tried again"):
        sped_up(other, IMAGES, "exact")
    file.write_text("{")
    assert remembered.recalled(model, IMAGES, "exact", compiled=False) is None


class _Turned(nn.Sequential):
    """Other answers of the same weights."""

    def forward(self, x: Tensor) -> Tensor:
        x = self[1](self[0](x))
        return self[3](x.as_strided(x.shape, torch.empty(x.shape).stride()).relu())


def test_what_was_remembered_of_other_code_with_the_same_weights_is_tried_again(monkeypatch, tmp_path):
    monkeypatch.setenv("SEGRADIUS_CACHE", str(tmp_path))
    laid = Form(channels_last=True)
    made, told = [Choice("exact", laid, laid), Choice("exact")], list[Choice]()

    def choose(trial, speed, *, compiled):
        assert trial.disagreement(made[0]) == ""
        return made.pop(0)

    monkeypatch.setattr(Trial, "choose", choose)
    monkeypatch.setattr(remembered, "repr", lambda network: "", raising=False)  # as if they looked alike
    sped_up(sr.wrap(network()), IMAGES, "exact", told=told.append)
    other = _Turned(*network())
    sped_up(sr.wrap(other), IMAGES, "exact", told=told.append)
    assert [choice.guidance for choice in told] == [laid, Form()]
    with pytest.raises(sr.InputError, match=r"does not suit model .*channels-last: its (logits|gradient) differ"):
        sped_up(sr.wrap(other), IMAGES, "exact", choice=Choice("exact", laid, laid))


def test_a_network_without_a_way_back_runs_as_it_is_and_it_is_said():
    choice = chosen(sr.wrap(lambda x: torch.cat([x, x.round()], 1).detach(), num_classes=6), IMAGES, "exact")
    assert choice.guidance == Form()
    assert "every form: the backward pass of model" in choice.left[0]


def test_what_a_trial_made_is_what_loops_look_through(monkeypatch):
    """Nothing is folded, or compiled, a second time for the attack."""
    made = []

    def once(model, form, images):
        made.append(form)
        return formed(model, form, images)

    monkeypatch.setattr("segradius.speed.trial.formed", once)
    laid, folded = Form(channels_last=True), Form(folded=True)
    quick = sped_up(sr.wrap(network()), IMAGES, "exact", choice=Choice("exact", laid, folded))
    assert made == [laid, folded]
    assert isinstance(quick.twins.guidance.network[1], nn.Identity)


def test_plain_makes_no_pass_and_leaves_no_forms(quick, monkeypatch):
    monkeypatch.setattr(Trial, "__init__", None)
    assert sped_up(quick, IMAGES, "plain").twins is None


def test_windows_keep_their_rule_and_the_network_in_them_is_folded():
    model = sr.models.tiled(sr.wrap(network()), crop=(16, 16), flip=True)
    quick = sped_up(model, IMAGES, "exact", choice=Choice("exact", Form(folded=True), Form(folded=True)))
    inner = quick.twins.answers.network.model.network
    assert isinstance(inner[1], nn.Identity)
    assert torch.allclose(quick.twins.answers.logits(IMAGES), model.logits(IMAGES), atol=1e-4)
    assert isinstance(model.network.model.network[1], nn.BatchNorm2d)


def test_a_smoothed_model_has_its_models_forms(demo, quick):
    smoothed = Smoothed(quick, Noise(0.05), samples=2)
    assert for_guidance(smoothed).model is quick.twins.guidance
    assert for_guidance(Smoothed(demo, Noise(0.05), samples=2)).model is demo


def test_choices_are_checked():
    with pytest.raises(sr.InputError, match="speed"):
        Choice("quick")
    with pytest.raises(sr.InputError, match="precision"):
        Form(precision="int8")
    with pytest.raises(sr.InputError, match="no choice of speed"):
        Choice.of({"speed": "exact"})
    with pytest.raises(sr.InputError, match="does not suit"):
        sped_up(sr.wrap(nn.Conv2d(3, 4, 1)), IMAGES, choice=Choice("exact", Form(folded=True), Form(folded=True)))
    with pytest.raises(sr.InputError, match=r"such as wrap\(network\) gives"):
        sped_up(network(), IMAGES)
    with pytest.raises(sr.InputError, match="0, 1"):
        sped_up(sr.wrap(network()), IMAGES * 255)
