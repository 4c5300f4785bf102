"""Transfer: images made on one network and judged on another, in closed form, by invariants, and by the passes paid."""

from __future__ import annotations

import pytest
import torch

import segradius as sr
from segradius.attacks import ATTACKS, make_attack
from segradius.core.errors import InputError
from segradius.models import averaged
from segradius.targets import LabelsOnly, Metered, Target
from segradius.targets.harsh import Harsh
from segradius.targets.transfer import Aided, with_surrogate
from tiny import CLASSES, VOID, ScoresOnly, batch, linear, network

EPS, STEPS = 0.8, 5


def one(seed: int = 0) -> sr.Segmenter:
    return sr.wrap(network(seed), num_classes=CLASSES, name=f"net {seed}")


def made(name: str, **options: object) -> sr.Attack:
    steps = {} if name.endswith("fgsm") and "mi" not in name else {"steps": STEPS}
    norm = next(norm for norm in ("l2", "linf", "l1") if norm in ATTACKS.facts(name)["norms"])
    return make_attack(name, norm=norm, eps=EPS if norm == "l2" else 0.1, **steps, **options)  # type: ignore[arg-type]


class Asked:
    """A target that notes what it is asked about."""

    name = "asked"
    device = torch.device("cpu")

    def __init__(self, model: sr.Segmenter) -> None:
        self.model, self.images = model, list[torch.Tensor]()
        self.offers, self.num_classes = ScoresOnly(model).offers, model.num_classes

    def scores(self, images: torch.Tensor) -> torch.Tensor:
        self.images.append(images.clone())
        return self.model.scores(images)

    def frozen(self):
        return self.model.frozen()


# -- in closed form --


def test_of_two_linear_networks_what_transfers_is_the_cosine_between_them():
    """PGD of one step on ⟨w, x⟩ goes ε along w, so that another network's ⟨v, x⟩ changes by ε ⟨w, v⟩ / ‖w‖."""
    g = torch.Generator().manual_seed(3)
    w, v = (torch.randn(1, 3, 2, 2, generator=g, dtype=torch.float64) for _ in range(2))
    images, labels = torch.full((1, 3, 2, 2), 0.5, dtype=torch.float64), torch.zeros(1, 2, 2, dtype=torch.int64)
    target, surrogate = linear(v), linear(w)
    attack = sr.attacks.pgd(norm="l2", eps=0.1, steps=1, alpha=0.1, loss="margin", keep="last")
    found = attack(sr.transferred(target, surrogate), images, labels)
    moved = (target.logits(found.adversarial) - target.logits(images))[0, 1, 0, 0]
    assert moved.item() == pytest.approx(0.1 * float((w * v).sum() / w.norm()), rel=1e-9)


@pytest.mark.parametrize(("sign", "fooled"), [(1, 4), (-1, 0)])
def test_what_fools_the_surrogate_fools_an_aligned_network_and_never_an_opposite_one(sign, fooled):
    w = torch.ones(1, 3, 2, 2, dtype=torch.float64)
    images, labels = torch.full((1, 3, 2, 2), 0.5, dtype=torch.float64), torch.zeros(1, 2, 2, dtype=torch.int64)
    # Both say class 0 at x, by the same margin of 0.1; the change that lifts ⟨w, x⟩ by ε‖w‖ lowers ⟨−w, x⟩ by as much.
    surrogate = linear(w, torch.full((2, 2), -6.1, dtype=torch.float64))
    target = linear(sign * w, torch.full((2, 2), -sign * 6.0 - 0.1, dtype=torch.float64))
    found = sr.attacks.pgd(norm="l2", eps=0.5, steps=3)(sr.transferred(target, surrogate), images, labels)
    assert (surrogate.logits(found.adversarial).argmax(1) != labels).all()
    assert found.fooled.tolist() == [fooled]
    assert torch.equal(found.prediction, target.logits(found.adversarial).argmax(1))


# -- invariants, of every attack that follows gradients --


@pytest.mark.parametrize("name", list(ATTACKS))
def test_the_images_are_the_surrogates_own_and_the_verdict_is_the_targets(name):
    images, labels = batch()
    target, surrogate, attack = one(1), one(0), made(name)
    found, own = attack(sr.transferred(target, surrogate), images, labels), attack(surrogate, images, labels)
    assert torch.equal(found.adversarial, own.adversarial)
    assert torch.equal(found.prediction, target.logits(own.adversarial).argmax(1))
    assert torch.equal(found.fooled, ((found.prediction != labels) & (labels != VOID)).flatten(1).sum(1))
    mine, theirs = found.ledger.by_purpose(), own.ledger.by_purpose()
    assert mine.pop("transfer") == {"forward": len(images), "backward": 0}
    assert mine == theirs
    assert found.members == {}


@pytest.mark.parametrize("name", ["pgd", "cr_pgd", "sea"])
def test_transfer_to_itself_is_the_white_box_attack(name):
    images, labels = batch()
    model, attack = one(), make_attack(name, eps=EPS, steps=STEPS)
    found, white = attack(sr.transferred(model, model), images, labels), attack(model, images, labels)
    for part in ("adversarial", "delta", "prediction", "fooled", "valid"):
        assert torch.equal(getattr(found, part), getattr(white, part)), part
    assert (found.ledger.forward - white.ledger.forward).tolist() == [1] * len(images)


def test_a_batch_is_its_images_one_by_one_and_void_has_no_say():
    images, labels = batch()
    model, attack = sr.transferred(one(1), [one(0), one(2)]), make_attack("cr_pgd", eps=EPS, steps=STEPS, samples=2)
    together = attack(model, images, labels, ids=tuple("abcd"), seed=5)
    other = attack(model, images, labels.where(labels != VOID, 7), ids=tuple("abcd"), seed=5, ignore_index=7)
    assert torch.equal(other.adversarial, together.adversarial)
    for i, key in enumerate("abcd"):
        alone = attack(model, images[i : i + 1], labels[i : i + 1], ids=(key,), seed=5)
        assert torch.allclose(together.delta[i], alone.delta[0], atol=1e-5)
        assert torch.equal(together.prediction[i], alone.prediction[0])
    assert (together.fooled <= (labels != VOID).flatten(1).sum(1)).all()


def test_both_networks_are_left_as_they_were_found():
    images, labels = batch()
    target, surrogate = one(1), one(0)
    found = made("pgd")(sr.transferred(target, surrogate), images, labels)
    assert found.valid.all()
    for each in (target, surrogate):
        assert each.network.training
        assert all(parameter.requires_grad and parameter.grad is None for parameter in each.network.parameters())


def test_a_target_is_asked_once_about_what_is_returned_whatever_the_restarts():
    images, labels = batch()
    target = Asked(one(1))
    for name, options in (("pgd", {"restarts": 3}), ("sea", {}), ("ensemble", {})):
        target.images.clear()
        metered = Metered(target, budget=len(images))
        found = make_attack(name, eps=EPS, steps=STEPS, **options)(sr.transferred(metered, one(0)), images, labels)
        assert [each.shape[0] for each in target.images] == [len(images)]
        assert torch.equal(target.images[0], found.adversarial)
        assert found.ledger.by_purpose()["transfer"]["forward"] == len(images)


def test_a_target_that_gives_labels_alone_is_enough():
    images, labels = batch(dtype=torch.float32)
    network_of = {seed: sr.wrap(network(seed, torch.float32), num_classes=CLASSES) for seed in (0, 1)}
    target: Target = Metered(Harsh(network_of[1], answers=(LabelsOnly(),)))
    found = made("pgd")(sr.transferred(target, network_of[0]), images, labels)
    assert target.answered == 0  # the counter of the new one goes on from it
    assert torch.equal(found.prediction, network_of[1].logits(found.adversarial).argmax(1))


def test_what_is_counted_and_budgeted_goes_on():
    images, labels = batch()
    model = sr.transferred(Metered(Asked(one(1)), budget=9, used=3), one(0))
    made("pgd")(model, images, labels)
    assert (model.answered, model.left) == (7, 2)
    with pytest.raises(sr.errors.BudgetError, match="7 of 9 are used"):
        made("pgd")(model, images, labels)
    again = with_surrogate(model, lambda network: network)
    assert (again.answered, again.left, again.surrogate.name) == (7, 2, "net 0")


# -- several surrogates --


@pytest.mark.parametrize("mean", ["logits", "probabilities"])
@pytest.mark.parametrize("count", [2, 3])
def test_the_mean_of_equal_networks_is_that_network_and_so_are_its_gradients(mean, count):
    images, labels = batch()
    several, alone = averaged([one(0) for _ in range(count)], mean), one(0)
    torch.testing.assert_close(several.logits(images).softmax(1), alone.logits(images).softmax(1))
    gradients = []
    for model in (several, alone):
        x = images.clone().requires_grad_()
        loss = torch.nn.functional.cross_entropy(model.logits(x), labels, ignore_index=VOID)
        gradients.append(torch.autograd.grad(loss, x)[0])
    torch.testing.assert_close(*gradients)


def test_one_surrogate_is_itself():
    assert averaged([model := one(0)]) is model
    assert sr.transferred(one(1), [model]).surrogate is model


def test_the_means_are_those_of_logits_and_of_probabilities():
    images, _ = batch()
    first, second = one(0).logits(images), one(1).logits(images)
    torch.testing.assert_close(averaged([one(0), one(1)]).logits(images), (first + second) / 2)
    both = averaged([one(0), one(1)], "probabilities").logits(images).softmax(1)
    torch.testing.assert_close(both, (first.softmax(1) + second.softmax(1)) / 2)


def test_cross_entropy_of_mean_logits_is_the_mean_loss_less_how_far_the_networks_differ():
    images, labels = batch()
    labels = labels.where(labels != VOID, 0)
    logits = [one(seed).logits(images).log_softmax(1) for seed in (0, 1)]

    def loss(found: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.cross_entropy(found, labels, reduction="none")

    agree = (sum(logits) / 2).logsumexp(1)
    assert (agree <= 1e-12).all()
    torch.testing.assert_close(
        loss(averaged([one(0), one(1)]).logits(images)), sum(map(loss, logits)) / 2 + agree, rtol=1e-9, atol=1e-9
    )


def test_passes_of_a_mean_count_for_each_of_its_networks():
    images, labels = batch()
    found = made("pgd")(sr.transferred(one(2), [one(0), one(1)]), images, labels)
    count = len(images)
    assert found.ledger.by_purpose() == {
        "attack": {"forward": 2 * STEPS * count, "backward": 2 * STEPS * count},
        "judging": {"forward": 2 * count, "backward": 0},
        "transfer": {"forward": count, "backward": 0},
    }


def test_networks_of_their_own_normalisations_and_sizes_are_averaged_as_each_sees_the_image():
    images, _ = batch(size=12, dtype=torch.float32)
    plain = sr.wrap(torch.nn.Conv2d(3, 4, 1))
    fitted = sr.wrap(torch.nn.Conv2d(3, 4, 1), normalisation="imagenet", size={"exact": [8, 8], "mode": "resize"})
    expected = (plain.logits(images) + fitted.logits(images)) / 2
    torch.testing.assert_close(averaged([plain, fitted]).logits(images), expected)


# -- what is refused --


def test_what_does_not_fit_is_refused_with_the_reason():
    images, labels = batch()
    other = sr.wrap(torch.nn.Conv2d(3, 5, 1), name="five")
    with pytest.raises(InputError, match="'net 0' has 4 classes and 'five' has 5; expected as many, as a transfer"):
        sr.transferred(one(0), other)
    with pytest.raises(InputError, match="'net 0' has 3 bands and 'deep' has 4"):
        sr.transferred(one(0), sr.wrap(network(bands=4).float(), name="deep", num_classes=CLASSES))
    with pytest.raises(InputError, match="as the mean of networks compares them"):
        averaged([one(0), other])
    with pytest.raises(InputError, match="models is empty"):
        sr.transferred(one(0), [])
    with pytest.raises(InputError, match="a surrogate is a ScoresOnly; expected a network in this process"):
        sr.transferred(one(0), ScoresOnly(one(1)))
    with pytest.raises(InputError, match="must be wrapped first"):
        sr.transferred(object(), one(0))
    with pytest.raises(InputError, match=r"pbgd looks at scores.*choose an attack that follows them"):
        sr.make_attack("pbgd", queries=9)(sr.transferred(one(1), one(0)), images, labels)
    with pytest.raises(InputError, match="mean is 'sum'"):
        averaged([one(0), one(1)], "sum")


def test_an_image_is_invalid_where_either_network_gives_no_number():
    images, labels = batch()

    def spoilt(x: torch.Tensor) -> torch.Tensor:
        return one(0).logits(x) / (x.amax((1, 2, 3), keepdim=True) < x.amax())  # of the image with the largest value

    broken = sr.wrap(spoilt, num_classes=CLASSES)
    images = images * torch.tensor([0.5, 0.6, 0.7, 1.0]).view(-1, 1, 1, 1)
    attack = sr.make_attack("pgd", norm="linf", eps=0.01, steps=2)
    for model in (sr.transferred(broken, one(1)), sr.transferred(one(1), broken)):
        assert attack(model, images, labels).valid.tolist() == [True, True, True, False]


def test_an_aided_target_is_that_target_in_all_else():
    target = Asked(one(1))
    aided = Aided(target, one(0))
    assert (aided.name, aided.num_classes, aided.offers) == ("asked", CLASSES, target.offers)
    images, _ = batch()
    assert torch.equal(aided.scores(images), target.scores(images))
