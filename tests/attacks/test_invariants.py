"""What holds for every registered attack in every norm, guided and not: a new attack is tested by its name."""

from __future__ import annotations

import math
from collections.abc import Iterator

import pytest
import torch

import segradius as sr
from segradius.attacks import ATTACKS, make_attack
from segradius.attacks.base import Untargeted, parts
from segradius.core.errors import InputError
from segradius.threats.threat import NORMS
from tiny import CLASSES, VOID, Counting, batch, network

EPS = {"l1": 6.0, "l2": 0.8, "linf": 0.1}
STEPS = 5
#: A kernel that fits the tests' small images, and steps that fit so few.
OPTIONS = {
    "ti_fgsm": {"kernel": 3}, "mi_di_ti_fgsm": {"kernel": 3}, "asma": {"tau": 5e-3, "beta": 5e-3},
    "alma_prox": {"alpha": 0.05}, "pdpgd": {"alpha": 0.2, "alpha_end": 1.0, "dual_rate": 5.0},
}  # fmt: skip
#: By design, perturbs what no labelled pixel sees: a random inner start, a smoothed gradient.
SPREADS = {"dag_alg3", "ti_fgsm", "mi_di_ti_fgsm", "universal"}
#: Need not ascend: the paper's letter takes differences of gradients, and without a file there are random signs.
LOST = ("dag_alg3", "universal")


def attacks() -> Iterator[tuple[str, str]]:
    for base in ATTACKS:
        for name in (base, f"cr_{base}"):
            for norm in ATTACKS.facts(base)["norms"]:
                yield name, norm


def made(name: str, norm: str, **options: object) -> sr.Attack:
    base = name.removeprefix("cr_")
    steps = {} if "steps" in ATTACKS.facts(base)["fixed"] else {"steps": STEPS}
    options = {**OPTIONS.get(base, {}), **options}
    guided = {"samples": 2, "sigma": 0.05, "precision": "float32"} if name.startswith("cr_") else {}
    return make_attack(name, norm=norm, eps=EPS[norm], **steps, **guided, **options)  # type: ignore[arg-type]


every_attack = pytest.mark.parametrize(("name", "norm"), list(attacks()))


@every_attack
def test_perturbation_stays_in_ball_and_box_and_void_has_no_say(name: str, norm: str) -> None:
    images, labels = batch(dtype=torch.float32)
    model = sr.wrap(network(dtype=torch.float32), num_classes=CLASSES)
    found = made(name, norm)(model, images, labels)
    # Tolerance of the projection in float32.
    assert (NORMS[norm].length(found.delta.double()) <= EPS[norm] * (1 + 1e-6)).all()
    assert found.adversarial.min() >= 0
    assert found.adversarial.max() <= 1
    assert torch.equal(found.adversarial, (images + found.delta).clamp(0, 1))
    wrong = (found.prediction != labels) & (labels != VOID)
    assert torch.equal(found.fooled, wrong.flatten(1).sum(1))
    assert torch.equal(found.prediction, model.logits(found.adversarial).argmax(1))


@every_attack
def test_void_labels_leave_no_trace(name: str, norm: str) -> None:
    """An image whose only labelled pixel cannot see the rest of the image is not changed there."""
    images, _ = batch(count=1)
    labels = torch.full((1, 8, 8), VOID)
    model = sr.wrap(network(), num_classes=CLASSES)
    labels[0, 0, 0] = model.logits(images).argmax(1)[0, 0, 0]
    options = {} if "start" in ATTACKS.facts(name.removeprefix("cr_"))["fixed"] else {"start": "zero"}
    found = made(name, norm, **options)(model, images, labels)
    if name.removeprefix("cr_") not in SPREADS:
        assert (found.delta[..., 3:, :] == 0).all()
        assert (found.delta[..., :, 3:] == 0).all()


@every_attack
def test_batch_equals_single_images(name: str, norm: str) -> None:
    images, labels = batch()
    model, attack = sr.wrap(network(), num_classes=CLASSES), made(name, norm)
    together = attack(model, images, labels, ids=tuple("abcd"), seed=5)
    for i, key in enumerate("abcd"):
        alone = attack(model, images[i : i + 1], labels[i : i + 1], ids=(key,), seed=5)
        assert torch.allclose(together.delta[i], alone.delta[0], atol=1e-5)
        assert torch.equal(together.prediction[i], alone.prediction[0])


@every_attack
def test_same_seed_same_result_and_order_does_not_matter(name: str, norm: str) -> None:
    images, labels = batch()
    model, attack = sr.wrap(network(), num_classes=CLASSES), made(name, norm)
    first = attack(model, images, labels, ids=tuple("abcd"), seed=1)
    again = attack(model, images, labels, ids=tuple("abcd"), seed=1)
    assert torch.equal(first.delta, again.delta)
    turned = attack(model, images.flip(0), labels.flip(0), ids=tuple("dcba"), seed=1)
    assert torch.allclose(first.delta, turned.delta.flip(0), atol=1e-9)


@every_attack
def test_ledger_is_exact(name: str, norm: str) -> None:
    images, labels = batch(count=2)
    model = Counting(sr.wrap(network(), num_classes=CLASSES))
    found = made(name, norm)(model, images, labels)
    assert found.ledger.forward.sum() == model.forward
    assert found.ledger.backward.sum() == model.backward
    assert found.ledger.forward[0] == found.ledger.forward[1]


@every_attack
def test_model_is_left_as_found(name: str, norm: str) -> None:
    images, labels = batch(count=2)
    net = network()
    net[1].eval()
    net[0].weight.requires_grad_(False)
    net[0].bias.grad = torch.ones_like(net[0].bias)
    before = {k: v.clone() for k, v in net.state_dict().items()}
    flags = [m.training for m in net.modules()]
    wants = [p.requires_grad for p in net.parameters()]
    made(name, norm)(sr.wrap(net, num_classes=CLASSES), images, labels)
    assert all(torch.equal(before[k], v) for k, v in net.state_dict().items())
    assert [m.training for m in net.modules()] == flags
    assert [p.requires_grad for p in net.parameters()] == wants
    assert torch.equal(net[0].bias.grad, torch.ones_like(net[0].bias))
    assert all(p.grad is None for k, p in net.named_parameters() if k != "0.bias")


@every_attack
def test_only_changeable_pixels_change_and_only_victims_count(name: str, norm: str) -> None:
    images, labels = batch()
    changeable = torch.zeros_like(labels, dtype=torch.bool)
    changeable[:, 2:5, 2:6] = True
    victims = torch.zeros_like(changeable)
    victims[:, :4] = True
    model = sr.wrap(network(), num_classes=CLASSES)
    found = made(name, norm)(model, images, labels, changeable=changeable, victims=victims)
    assert (found.delta.masked_select(~changeable.unsqueeze(1).expand_as(found.delta)) == 0).all()
    wrong = (found.prediction != labels) & (labels != VOID) & victims
    assert torch.equal(found.fooled, wrong.flatten(1).sum(1))


@every_attack
def test_progress_adds_up_to_total_steps(name: str, norm: str) -> None:
    images, labels = batch(count=1)
    attack, done = made(name, norm), []
    attack(sr.wrap(network(), num_classes=CLASSES), images, labels, progress=done.append)
    assert sum(done) == attack.total_steps


@every_attack
def test_nan_logits_make_an_image_invalid_and_touch_no_other(name: str, norm: str) -> None:
    images, labels = batch()
    net = network().eval()

    images[0] = images[0] * 0.2 + 0.8

    class Sometimes(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = net

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            bright = x.detach().flatten(1).mean(1) > 0.7
            return self.net(x) + torch.where(bright, math.nan, 0.0).view(-1, 1, 1, 1)

    model, attack = sr.wrap(Sometimes(), num_classes=CLASSES), made(name, norm)
    found = attack(model, images, labels, ids=tuple("abcd"))
    assert found.valid.tolist() == [False, True, True, True]
    plain = attack(sr.wrap(net, num_classes=CLASSES), images[1:], labels[1:], ids=tuple("bcd"))
    assert torch.allclose(found.delta[1:], plain.delta, atol=1e-9)
    assert torch.isfinite(found.delta).all()


@every_attack
def test_attack_beats_random_noise_of_the_same_size(name: str, norm: str) -> None:
    images, labels = batch()
    labels = sr.wrap(network(), num_classes=CLASSES).logits(images).argmax(1).detach()
    model = sr.wrap(network(), num_classes=CLASSES)
    noise = NORMS[norm].sample_sphere(images, sr.Randomness(0, tuple("abcd"))) * EPS[norm]
    noisy = (model.logits((images + noise).clamp(0, 1)).argmax(1) != labels).sum()
    if not name.endswith(LOST):
        assert made(name, norm)(model, images, labels).fooled.sum() > noisy


def aimless(name: str) -> bool:
    return any(parts(make_attack(name, norm="linf", eps=0.1).method, Untargeted))


@pytest.mark.parametrize("name", [n for n, norm in attacks() if norm == "linf" and aimless(n)])
def test_an_attack_without_a_targeted_form_refuses_an_aim_before_a_pass(name: str) -> None:
    images, labels = batch()
    model = Counting(sr.wrap(network(), num_classes=CLASSES))
    with pytest.raises(InputError, match=f"{name} can have no aim"):
        made(name, "linf")(model, images, labels, target=labels)
    assert model.forward == 0


@pytest.mark.parametrize("name", [n for n, norm in attacks() if norm == "linf" and not aimless(n)])
def test_targeted_form_reaches_more_target_pixels_than_the_clean_image(name: str) -> None:
    images, labels = batch()
    target = torch.where(labels == VOID, labels, (labels + 1) % CLASSES)
    model = sr.wrap(network(), num_classes=CLASSES)
    found = made(name, "linf")(model, images, labels, target=target)
    clean = ((model.logits(images).argmax(1) == target) & (labels != VOID)).flatten(1).sum(1)
    reached = ((found.prediction == target) & (labels != VOID)).flatten(1).sum(1)
    assert torch.equal(found.fooled, reached)
    if not name.endswith(LOST):
        assert reached.sum() > clean.sum()


@pytest.mark.parametrize("norm", ["l1", "l2"])
def test_algorithm_three_is_for_linf_only(norm: str) -> None:
    with pytest.raises(InputError, match="linf only"):
        make_attack("dag_alg3", norm=norm, eps=1.0)


@every_attack
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_images_of_half_precision_stay_in_the_ball(name: str, norm: str, dtype: torch.dtype) -> None:
    images, labels = batch(dtype=torch.float32, count=2)
    model, half = sr.wrap(network(dtype=torch.float32), num_classes=CLASSES), images.to(dtype)
    found, exact = made(name, norm)(model, half, labels), made(name, norm)(model, half.float(), labels)
    length = NORMS[norm].length(found.adversarial.double() - half.double())
    assert (length <= EPS[norm] * (1 + 1e-6)).all()
    assert torch.equal(found.adversarial, exact.adversarial)


@every_attack
@pytest.mark.parametrize("inside", [torch.no_grad, torch.inference_mode])
def test_it_works_where_gradients_are_switched_off(name: str, norm: str, inside: type[torch.no_grad]) -> None:
    images, labels = batch(count=2)
    model, attack = sr.wrap(network(), num_classes=CLASSES), made(name, norm)
    outside = attack(model, images, labels)
    with inside():
        found = attack(model, images.clone(), labels.clone())
        assert not torch.is_grad_enabled()
    assert torch.equal(found.adversarial, outside.adversarial)
