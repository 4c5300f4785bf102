"""How black-box attacks end: killed and resumed, finished early, at marks, by purpose; for every registered one."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import segradius as sr
from segradius.attacks import ATTACKS, BLACK_BOX, attack_options, make_attack
from segradius.attacks.queries import Queried
from segradius.core.errors import InputError
from segradius.threats.threat import NORMS
from tiny import CLASSES, VOID, ScoresOnly, batch, network

EPS = {"l1": 6.0, "l2": 0.8, "linf": 0.1}
QUERIES = 50
SMALL: Mapping[str, Mapping[str, Any]] = {
    "pbgd": {"directions": "tiles:2"},
    "opge": {"directions": "tiles:2"},
    "nes": {"directions": "tiles:2", "population": 10},
    "zoo": {"directions": "tiles:2", "coordinates": 8},
    "local_pbgd": {"directions": "tiles:2", "window": 5},
    "local_search": {"tile": 2, "window": 5},
    "simba": {"directions": "pixel"},
}
#: Steps that get somewhere within few queries.
QUICK: Mapping[str, Mapping[str, Any]] = {
    "pbgd": {"step": "steepest", "alpha": 0.02},
    **{name: {"alpha": 0.02} for name in ("opge", "nes", "zoo", "local_pbgd")},
}
#: Attacks that decide place by place, or value by value, so that they leave alone what no counted pixel can see.
LOCAL = ("local_pbgd", "local_search", "simba")


def attacks() -> Iterator[tuple[str, str]]:
    for base in BLACK_BOX:
        for name in (base, f"cr_{base}"):
            for norm in BLACK_BOX.facts(base)["norms"]:
                yield name, norm


def default_loss(name: str) -> str:
    return str(attack_options(name)["loss"].default)


def made(name: str, norm: str = "linf", **options: Any) -> sr.Attack:
    base = name.removeprefix("cr_")
    # Those called local are guided by the running mean of their answers.
    guided = {"sigma": 0.05, "samples": 2} if name != base and not base.startswith("local") else {}
    settings = {"eps": EPS[norm], "queries": QUERIES, **SMALL.get(base, {}), **guided, **options}
    return make_attack(name, norm=norm, **settings)


def queried(attack: sr.Attack) -> Queried:
    assert isinstance(attack.method, Queried)
    return attack.method


def target(**options: Any) -> ScoresOnly:
    return ScoresOnly(sr.wrap(network(), num_classes=CLASSES), **options)


every_attack = pytest.mark.parametrize(("name", "norm"), list(attacks()))
every_name = pytest.mark.parametrize("name", [name for name, norm in attacks() if norm == "linf"])


class KilledError(Exception):
    """What ends the process of an attack in these tests."""


class Diary:
    """A journal on a file in memory, whose process is killed after some of its entries."""

    def __init__(self, kills: Callable[[int], bool] = lambda entry: False) -> None:
        self.kept: bytes | None = None
        self.kills, self.entries = kills, 0

    def load(self) -> Mapping[str, Any] | None:
        return None if self.kept is None else torch.load(io.BytesIO(self.kept), weights_only=True)

    def save(self, standing: Callable[[], Mapping[str, Any]]) -> None:
        file = io.BytesIO()
        torch.save(standing(), file)
        self.kept = file.getvalue()
        self.entries += 1
        if self.kills(self.entries):
            raise KilledError


def same(one: sr.Result, other: sr.Result) -> bool:
    """Whether two results are equal to the bit, ledger and trace included."""
    assert one.trace is not None
    assert other.trace is not None
    tensors = ("delta", "prediction", "fooled", "valid")
    rows = ("queries", "judged", "loss", "pixacc", "best")
    books = one.ledger.passes, other.ledger.passes
    return (
        all(torch.equal(getattr(one, part), getattr(other, part)) for part in tensors)
        and all(
            torch.equal(getattr(one.trace, row).nan_to_num(-9), getattr(other.trace, row).nan_to_num(-9))
            for row in rows
        )
        and books[0].keys() == books[1].keys()
        and all(np.array_equal(books[0][purpose], books[1][purpose]) for purpose in books[0])
    )


@pytest.mark.parametrize("name", [f"{cr}{base}" for base in LOCAL for cr in ("", "cr_")])
@pytest.mark.parametrize("norm", list(NORMS))
def test_local_attacks_leave_alone_what_no_counted_pixel_can_see(name: str, norm: str) -> None:
    images, _ = batch(count=1)
    labels = torch.full((1, 8, 8), VOID)
    labels[0, 0, 0] = target().scores(images).argmax(1)[0, 0, 0]
    found = made(name, norm, keep="last", eps=EPS[norm] / 60, queries=400)(target(), images, labels)
    assert found.fooled.item() == 0  # else the point that did it would be returned
    assert (found.delta != 0).any()
    assert (found.delta[..., 3:, :] == 0).all()
    assert (found.delta[..., :, 3:] == 0).all()


@every_attack
def test_ledger_names_the_purpose_of_every_query(name: str, norm: str) -> None:
    images, labels = batch(count=2)
    attack = made(name, norm)
    found = attack(target(), images, labels).ledger.by_purpose()
    method = queried(attack)
    rounds = found["attack"]["forward"] // (2 * method.strategy.per_round)
    assert found["attack"]["forward"] == 2 * rounds * method.strategy.per_round
    assert found["judging"]["forward"] == 2
    radius = sum(method.radius_queries(turn) for turn in range(rounds))
    assert found.get("radius", {"forward": 0})["forward"] == 2 * radius
    assert ("radius" in found) == (name.startswith("cr_") and "local" not in name)


@every_name
def test_targeted_form_reaches_more_target_pixels_than_the_clean_image(name: str) -> None:
    images, labels = batch()
    wanted = torch.where(labels == VOID, labels, (labels + 1) % CLASSES)
    found = made(name, queries=400, **QUICK.get(name.removeprefix("cr_"), {}))(target(), images, labels, target=wanted)
    clean = ((target().scores(images).argmax(1) == wanted) & (labels != VOID)).flatten(1).sum(1)
    reached = ((found.prediction == wanted) & (labels != VOID)).flatten(1).sum(1)
    assert torch.equal(found.fooled, reached)
    assert reached.sum() > clean.sum()


@every_attack
def test_killed_after_every_round_it_ends_as_if_it_had_not_been_and_asks_nothing_twice(name: str, norm: str) -> None:
    images, labels = batch(count=2)
    attack = made(name, norm, marks=(31,), keep="last")
    calm = target()
    whole = attack(calm, images, labels, ids=("a", "b"))
    diary, hasty, runs = Diary(lambda entry: True), target(), 0
    for runs in range(QUERIES):  # noqa: B007
        try:
            found = attack(hasty, images, labels, ids=("a", "b"), journal=diary)
        except KilledError:
            continue
        break
    assert runs >= 2
    assert same(whole, found)
    assert hasty.asked == calm.asked


@every_name
def test_killed_between_question_and_answer_it_repeats_that_round_alone(name: str) -> None:
    images, labels = batch(count=2)
    attack, calm, hasty, diary = made(name), target(), target(), Diary()
    whole = attack(calm, images, labels, ids=("a", "b"))
    answer, last = hasty.scores, 60  # images

    def dies(queries: Tensor) -> Tensor:
        if hasty.asked >= last:
            raise KilledError
        return answer(queries)

    hasty.scores = dies  # type: ignore[method-assign]
    with pytest.raises(KilledError):
        attack(hasty, images, labels, ids=("a", "b"), journal=diary)
    hasty.scores = answer  # type: ignore[method-assign]
    assert same(whole, attack(hasty, images, labels, ids=("a", "b"), journal=diary))
    method = queried(attack)
    assert hasty.asked <= calm.asked + 2 * (method.strategy.per_round + method.radius_queries(0))


@every_name
@pytest.mark.parametrize("keep", ["best", "last"])
def test_an_image_that_is_fooled_everywhere_is_asked_about_no_more(name: str, keep: str) -> None:
    images, labels = batch(count=2)
    found = target().scores(images).argmax(1)
    labels[0] = (found[0] + 1) % CLASSES  # wrong everywhere from the start
    victims = torch.zeros_like(labels, dtype=torch.bool)
    victims[0, 0, 0] = True  # and one pixel of it counts, which no small step turns right
    victims[1] = True
    attack, asked = made(name, judge_every=1, keep=keep), target()
    result = attack(asked, images, labels, victims=victims)
    method = queried(attack)
    assert result.fooled[0] == 1
    assert result.ledger.forward[0] <= 2 * (method.strategy.per_round + method.radius_queries(0) + 1)
    assert result.ledger.forward[1] > result.ledger.forward[0]
    assert asked.asked == result.ledger.forward.sum()
    assert torch.equal(result.prediction, target().scores(result.adversarial).argmax(1))


@every_name
def test_each_mark_of_the_budget_has_its_verdict(name: str) -> None:
    images, labels = batch(count=1)
    marks = (25, 33, 47)
    attack = made(name, marks=marks)
    trace = attack(target(), images, labels).trace
    assert trace is not None
    method = queried(attack)
    dearest = method.strategy.per_round + method.radius_queries(0)
    verdicts = trace.queries[trace.judged].tolist()
    for mark in marks:
        assert any(mark - dearest - 1 < queries <= mark for queries in verdicts)
    assert trace.queries[-1] <= QUERIES
    assert (trace.queries.diff() > 0).all()
    assert not (trace.best.diff(dim=0) > 0).any()


@every_name
def test_keep_last_returns_the_iterate_that_was_judged_last(name: str) -> None:
    images, labels = batch(count=2)
    found = made(name, keep="last")(target(), images, labels)
    assert found.trace is not None
    assert found.trace.judged[-1]
    counted = (labels != VOID).flatten(1).sum(1)
    assert torch.allclose(found.trace.pixacc[-1], 1 - found.fooled / counted)
    best = made(name)(target(), images, labels)
    assert (best.fooled >= found.fooled).all()
    assert best.trace is not None
    assert torch.allclose(best.trace.best[-1], 1 - best.fooled / counted)


@pytest.mark.parametrize("name", list(ATTACKS))
def test_white_box_attacks_refuse_a_target_without_gradients(name: str) -> None:
    images, labels = batch(count=1)
    with pytest.raises(InputError, match="gives scores only: choose a black-box attack"):
        make_attack(name, norm=ATTACKS.facts(name)["norms"][-1], eps=0.1)(target(), images, labels)


@pytest.mark.parametrize("name", [n for n, m in attacks() if m == "linf" and default_loss(n) != "wrong"])
def test_a_target_that_returns_labels_only_needs_another_loss(name: str) -> None:
    images, labels = batch(count=1)
    with pytest.raises(InputError, match="labels only"):
        made(name)(target(labels_only=True), images, labels)


@pytest.mark.parametrize("name", ["local_search", "simba", "square"])
def test_a_search_compares_losses_of_one_temperature(name: str) -> None:
    """Else its own loss would seem to fall while τ does, and nothing would be kept."""
    images, labels = batch(count=1)
    kept = made(name, loss="flips", queries=200, keep="last")(target(), images, labels)
    assert kept.trace is not None
    value = kept.trace.loss[:, 0]
    assert value[-1] > value[0]


def test_what_an_earlier_file_of_simba_does_not_have_is_as_at_the_beginning() -> None:
    """Files of the same format once kept neither start nor stride of the walk, which the keys give again."""
    images, labels = batch(count=2)
    attack, diary = made("simba"), Diary(lambda entry: entry == 10)
    whole = attack(target(), images, labels, ids=("a", "b"))
    with pytest.raises(KilledError):
        attack(target(), images, labels, ids=("a", "b"), journal=diary)
    kept = dict(diary.load() or {})
    kept["state"] = {name: value for name, value in kept["state"].items() if name not in ("start", "stride")}
    file = io.BytesIO()
    torch.save(kept, file)
    diary.kept = file.getvalue()
    assert same(whole, attack(target(), images, labels, ids=("a", "b"), journal=diary))
