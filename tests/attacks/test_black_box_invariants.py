"""What holds for every registered black-box attack in every norm, guided and not: a new one is tested by its name."""

from __future__ import annotations

import contextlib
import io
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest
import torch
from torch import Tensor

import segradius as sr
from segradius.attacks import BLACK_BOX, make_attack
from segradius.core.errors import InputError
from segradius.threats.threat import NORMS
from tiny import CLASSES, VOID, batch, network

EPS = {"l1": 6.0, "l2": 0.8, "linf": 0.1}
QUERIES = 41
SMALL: dict[str, dict[str, Any]] = {
    "local_pbgd": {"directions": "shifted_tiles:2", "window": 5},
    "local_search": {"tile": 2, "window": 3},
    "nes": {"population": 8},
    "zoo": {"coordinates": 4},
    "simba": {"directions": "dct:1/2", "alpha": 0.3},
}


def attacks() -> Iterator[tuple[str, str]]:
    for base in BLACK_BOX:
        for name in (base, f"cr_{base}"):
            for norm in BLACK_BOX.facts(base)["norms"]:
                yield name, norm


def made(name: str, norm: str, **options: Any) -> sr.Attack:
    guided = {"samples": 2, "sigma": 0.05, "every": 5} if name.startswith("cr_") else {}
    given = {"queries": QUERIES, **SMALL.get(name.removeprefix("cr_"), {}), **guided, **options}
    return make_attack(name, norm=norm, eps=EPS[norm], **given)


class Scores:
    """A target that gives nothing but scores, and counts what it is asked."""

    offers = frozenset({"scores", "labels"})

    def __init__(self, model: sr.Segmenter) -> None:
        self.model, self.asked = model, 0

    @property
    def num_classes(self) -> int:
        return self.model.num_classes

    def scores(self, images: Tensor) -> Tensor:
        self.asked += len(images)
        return self.model.scores(images)

    @contextlib.contextmanager
    def frozen(self) -> Iterator[None]:
        with self.model.frozen():
            yield


class Notebook:
    """A journal that keeps every standing as the bytes of a file, and may stop the attack."""

    def __init__(self, stop: int | None = None) -> None:
        self.pages: list[bytes] = []
        self.stop = stop

    def load(self) -> Mapping[str, Any] | None:
        return torch.load(io.BytesIO(self.pages[-1]), weights_only=True) if self.pages else None

    def save(self, standing: Callable[[], Mapping[str, Any]]) -> None:
        page = io.BytesIO()
        torch.save(standing(), page)
        self.pages.append(page.getvalue())
        if self.stop == len(self.pages):
            raise KeyboardInterrupt


every_attack = pytest.mark.parametrize(("name", "norm"), list(attacks()))


def target(dtype: torch.dtype = torch.float64) -> Scores:
    return Scores(sr.wrap(network(dtype=dtype), num_classes=CLASSES))


@every_attack
def test_perturbation_stays_in_ball_and_box_and_the_verdict_is_the_targets(name: str, norm: str) -> None:
    images, labels = batch(dtype=torch.float32)
    model = target(torch.float32)
    found = made(name, norm)(model, images, labels)
    assert (NORMS[norm].length(found.delta.double()) <= EPS[norm] * (1 + 1e-6)).all()
    assert found.adversarial.min() >= 0
    assert found.adversarial.max() <= 1
    wrong = (found.prediction != labels) & (labels != VOID)
    assert torch.equal(found.fooled, wrong.flatten(1).sum(1))
    assert torch.equal(found.prediction, model.scores(found.adversarial).argmax(1))


@every_attack
def test_batch_equals_single_images(name: str, norm: str) -> None:
    images, labels = batch()
    model, attack = target(), made(name, norm)
    together = attack(model, images, labels, ids=tuple("abcd"), seed=5)
    for i, key in enumerate("abcd"):
        alone = attack(model, images[i : i + 1], labels[i : i + 1], ids=(key,), seed=5)
        assert torch.allclose(together.delta[i], alone.delta[0], atol=1e-5)
        assert torch.equal(together.prediction[i], alone.prediction[0])


@every_attack
def test_same_seed_same_result_and_order_does_not_matter(name: str, norm: str) -> None:
    images, labels = batch()
    model, attack = target(), made(name, norm)
    first = attack(model, images, labels, ids=tuple("abcd"), seed=1)
    assert torch.equal(first.delta, attack(model, images, labels, ids=tuple("abcd"), seed=1).delta)
    turned = attack(model, images.flip(0), labels.flip(0), ids=tuple("dcba"), seed=1)
    assert torch.allclose(first.delta, turned.delta.flip(0), atol=1e-9)


@every_attack
def test_ledger_is_exact_and_within_the_budget(name: str, norm: str) -> None:
    images, labels = batch(count=2)
    model = target()
    found = made(name, norm, marks=(17,))(model, images, labels)
    assert found.ledger.forward.sum() == model.asked
    assert (found.ledger.forward <= QUERIES).all()
    assert found.ledger.backward.sum() == 0


@every_attack
def test_a_stopped_attack_goes_on_and_asks_nothing_twice(name: str, norm: str) -> None:
    images, labels = batch(count=2)
    attack, whole = made(name, norm, marks=(17,)), target()
    expected = attack(whole, images, labels)
    book, model = Notebook(stop=3), target()
    with pytest.raises(KeyboardInterrupt):
        attack(model, images, labels, journal=book)
    book.stop = None
    found = attack(model, images, labels, journal=book)
    assert torch.equal(found.delta, expected.delta)
    assert model.asked == whole.asked
    assert found.ledger.by_purpose() == expected.ledger.by_purpose()
    assert expected.trace is not None
    assert found.trace is not None
    assert torch.equal(found.trace.queries, expected.trace.queries)
    assert torch.equal(found.trace.best.nan_to_num(), expected.trace.best.nan_to_num())


@every_attack
def test_model_is_left_as_found(name: str, norm: str) -> None:
    images, labels = batch(count=2)
    net = network()
    net[1].eval()
    net[0].weight.requires_grad_(False)
    before = {k: v.clone() for k, v in net.state_dict().items()}
    flags = [m.training for m in net.modules()]
    wants = [p.requires_grad for p in net.parameters()]
    made(name, norm)(sr.wrap(net, num_classes=CLASSES), images, labels)
    assert all(torch.equal(before[k], v) for k, v in net.state_dict().items())
    assert [m.training for m in net.modules()] == flags
    assert [p.requires_grad for p in net.parameters()] == wants
    assert all(p.grad is None for p in net.parameters())


@every_attack
def test_only_changeable_pixels_change_and_only_victims_count(name: str, norm: str) -> None:
    images, labels = batch()
    changeable = torch.zeros_like(labels, dtype=torch.bool)
    changeable[:, 2:5, 2:6] = True
    victims = torch.zeros_like(changeable)
    victims[:, :4] = True
    found = made(name, norm)(target(), images, labels, changeable=changeable, victims=victims)
    assert (found.delta.masked_select(~changeable.unsqueeze(1).expand_as(found.delta)) == 0).all()
    wrong = (found.prediction != labels) & (labels != VOID) & victims
    assert torch.equal(found.fooled, wrong.flatten(1).sum(1))


@every_attack
def test_void_pixels_have_no_say(name: str, norm: str) -> None:
    """What the target says of void pixels changes nothing."""
    images, labels = batch()
    net = sr.wrap(network(), num_classes=CLASSES)

    class Liar(Scores):
        def scores(self, images: Tensor) -> Tensor:
            found = super().scores(images)
            void = (labels == VOID).repeat(len(images) // len(labels), 1, 1).unsqueeze(1)
            return torch.where(void, torch.full_like(found, 1 / CLASSES), found)

    honest = made(name, norm)(Scores(net), images, labels)
    lied = made(name, norm)(Liar(net), images, labels)
    assert torch.equal(honest.delta, lied.delta)


@every_attack
def test_progress_adds_up_to_total_steps(name: str, norm: str) -> None:
    images, labels = batch(count=1)
    attack, done = made(name, norm), []
    attack(target(), images, labels, progress=done.append)
    assert sum(done) == attack.total_steps


@every_attack
def test_nan_scores_make_an_image_invalid_and_touch_no_other(name: str, norm: str) -> None:
    images, labels = batch()
    net = network().eval()
    images[0] = images[0] * 0.2 + 0.8

    def sometimes(x: Tensor) -> Tensor:
        bright = x.flatten(1).mean(1) > 0.7
        return net(x) + torch.where(bright, math.nan, 0.0).view(-1, 1, 1, 1)

    attack = made(name, norm)
    found = attack(sr.wrap(sometimes, num_classes=CLASSES), images, labels, ids=tuple("abcd"))
    assert found.valid.tolist() == [False, True, True, True]
    plain = attack(sr.wrap(net, num_classes=CLASSES), images[1:], labels[1:], ids=tuple("bcd"))
    assert torch.allclose(found.delta[1:], plain.delta, atol=1e-9)
    assert torch.isfinite(found.delta).all()


@pytest.mark.parametrize("name", [name for name, norm in attacks() if norm == "linf"])
def test_targeted_form_counts_the_pixels_that_reach_the_target(name: str) -> None:
    images, labels = batch()
    aim = torch.where(labels == VOID, labels, (labels + 1) % CLASSES)
    found = made(name, "linf")(target(), images, labels, target=aim)
    assert torch.equal(found.fooled, ((found.prediction == aim) & (labels != VOID)).flatten(1).sum(1))


@pytest.mark.parametrize("name", ["local_pbgd", "local_search", "simba", "square"])
def test_attack_beats_random_noise_of_the_same_size(name: str) -> None:
    images, labels = batch()
    model = target()
    labels = model.scores(images).argmax(1)
    noise = NORMS["linf"].sample_sphere(images, sr.Randomness(0, tuple("abcd"))) * EPS["linf"]
    noisy = (model.scores((images + noise).clamp(0, 1)).argmax(1) != labels).sum()
    assert made(name, "linf", queries=200)(model, images, labels).fooled.sum() > noisy


def test_pbgd_asks_twice_a_round_and_cr_pbgd_m_times_more_every_two_m_rounds() -> None:
    images, labels = batch(count=1)
    rounds, samples = 32, 8
    plain = make_attack("pbgd", eps=0.8, queries=2 * rounds + 1)(target(), images, labels)
    assert plain.ledger.by_purpose() == {
        "attack": {"forward": 2 * rounds, "backward": 0},
        "judging": {"forward": 1, "backward": 0},
    }
    budget = 2 * rounds + samples * rounds // (2 * samples) + 1
    guided = make_attack("cr_pbgd", eps=0.8, queries=budget, samples=samples)(target(), images, labels)
    assert guided.ledger.by_purpose() == {
        "attack": {"forward": 2 * rounds, "backward": 0},
        "radius": {"forward": rounds // 2, "backward": 0},
        "judging": {"forward": 1, "backward": 0},
    }


def test_at_equal_queries_pbgd_runs_five_rounds_for_four_of_cr_pbgd() -> None:
    """Section 5.3.3."""
    plain, guided = (make_attack(name, eps=0.8, queries=8001).method for name in ("pbgd", "cr_pbgd"))
    assert plain.rounds == 4000
    assert guided.rounds == 3200


def test_marks_are_judged_within_their_counts() -> None:
    images, labels = batch(count=2)
    found = make_attack("pbgd", eps=0.8, queries=60, marks=(20, 41))(target(), images, labels)
    assert found.trace is not None
    judged = found.trace.queries[found.trace.judged].tolist()
    assert judged == [19, 40, 59]  # another round and its verdict would need 61
    assert found.ledger.by_purpose()["judging"]["forward"] == 3 * len(images)


def test_an_image_that_is_fooled_whole_is_asked_about_no_more() -> None:
    images, labels = batch(count=2)
    labels[0] = VOID
    labels[0, 4, 4] = (sr.wrap(network(), num_classes=CLASSES).scores(images).argmax(1)[0, 4, 4] + 1) % CLASSES
    found = make_attack("local_search", norm="linf", eps=0.1, queries=40, tile=2, window=3)(target(), images, labels)
    assert found.ledger.forward.tolist() == [1, 40]
    assert found.fooled[0] == 1
    assert found.trace is not None
    assert found.trace.pixacc[0, 0] == 0
    assert found.trace.pixacc[1:, 0].isnan().all()
    assert (found.trace.best[:, 0] == 0).all()


def test_an_image_without_labelled_pixels_is_not_asked_about() -> None:
    images, labels = batch(count=2)
    labels[0] = VOID
    found = make_attack("pbgd", eps=0.8, queries=21)(target(), images, labels)
    assert found.ledger.forward.tolist() == [0, 21]
    assert (found.delta[0] == 0).all()


def test_keep_last_returns_the_iterate_itself() -> None:
    images, labels = batch()
    kept = made("pbgd", "l2", keep="last", step="steepest", alpha=0.3)(target(), images, labels)
    assert torch.allclose(NORMS["l2"].length(kept.delta), torch.tensor(0.8).double(), atol=1e-3)


def test_white_box_attacks_refuse_a_target_that_gives_scores_only() -> None:
    images, labels = batch()
    with pytest.raises(InputError, match="needs the gradients"):
        make_attack("pgd", eps=0.8)(target(), images, labels)


def test_labels_only_needs_the_loss_wrong() -> None:
    images, labels = batch()

    class Labels(Scores):
        offers = frozenset({"labels"})

        def scores(self, images: Tensor) -> Tensor:
            found = super().scores(images)
            return torch.nn.functional.one_hot(found.argmax(1), CLASSES).movedim(-1, 1).to(found)

    model = Labels(sr.wrap(network(), num_classes=CLASSES))
    with pytest.raises(InputError, match="labels only"):
        made("local_search", "linf")(model, images, labels)
    clean = ((model.scores(images).argmax(1) != labels) & (labels != VOID)).flatten(1).sum(1)
    for name in ("simba", "square", "local_search"):
        assert made(name, "linf", loss="wrong", queries=120)(model, images, labels).fooled.sum() > clean.sum()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"queries": 2}, "one round and a verdict take 3"),
        ({"loss": "dlr"}, "needs logits"),
        ({"directions": "rings"}, "unknown set of directions"),
        ({"directions": "dct:2"}, "fraction is 2.0; expected a number in"),
        ({"memory": 1.0}, "memory is 1.0; expected a number in"),
        ({"gamma": -1.0}, "gamma is -1.0; expected a number in"),
    ],
)
def test_bad_options_are_refused_by_name(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        make_attack("pbgd", eps=1.0, **options)


def test_cospgd_weights_are_refused_as_they_need_all_scores() -> None:
    with pytest.raises(InputError, match="the weighting 'cospgd' needs logits"):
        made("pbgd", "l2", weighting="cospgd")


def test_logits_in_the_place_of_scores_are_noticed() -> None:
    images, labels = batch()

    class Raw(Scores):
        def scores(self, images: Tensor) -> Tensor:
            return self.model.logits(images).detach()

    with pytest.raises(InputError, match="are they logits"):
        made("pbgd", "l2")(Raw(sr.wrap(network(), num_classes=CLASSES)), images, labels)
