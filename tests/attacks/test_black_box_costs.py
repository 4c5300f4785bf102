"""What a round costs beside its queries, for every registered black-box attack: waits for the device, and memory."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten

import segradius as sr
from segradius.attacks import BLACK_BOX, make_attack
from segradius.core.contracts import ANSWERS
from segradius.gradients import estimators
from segradius.threats import projections
from tiny import CLASSES, VOID, ScoresOnly, batch, network

EPS = {"l1": 6.0, "l2": 0.8, "linf": 0.1}
SMALL: Mapping[str, Mapping[str, Any]] = {
    "local_pbgd": {"directions": "shifted_tiles:2", "window": 5},
    "local_search": {"tile": 2, "window": 5},
    "nes": {"population": 8},
    "zoo": {"coordinates": 4},
}
#: What makes the host wait for an accelerator: a value, a number of values, or numbers of the host as a tensor there.
READS = {
    *(getattr(Tensor, name) for name in ("item", "tolist", "cpu", "nonzero", "masked_select", "__bool__")),
    *(getattr(Tensor, name) for name in ("__int__", "__float__", "__index__", "new_tensor", "unique")),
    *(torch.nonzero, torch.masked_select, torch.unique, torch.equal, torch.allclose),
}
every_attack = pytest.mark.parametrize(
    ("name", "norm"),
    [(name, norm) for base in BLACK_BOX for name in (base, f"cr_{base}") for norm in BLACK_BOX.facts(base)["norms"]],
)


class Waits(TorchFunctionMode):
    """Counts what the host has to wait for; nothing inside `paused` is ours."""

    def __init__(self) -> None:
        super().__init__()
        self.count, self._paused = 0, False

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        indexed = func in (Tensor.__getitem__, Tensor.__setitem__) and any(
            isinstance(part, Tensor) and part.dtype == torch.bool for part in tree_flatten(args[1])[0]
        )
        if (func in READS or indexed) and not self._paused:
            self.count += 1
        return func(*args, **(kwargs or {}))

    @contextlib.contextmanager
    def paused(self) -> Iterator[None]:
        before, self._paused = self._paused, True
        yield
        self._paused = before


class Rounds:
    """A journal that keeps nothing but how often was waited when each round was over."""

    def __init__(self, waits: Waits) -> None:
        self.waits, self.counts = waits, [0]

    def load(self) -> None:
        return None

    def save(self, snapshot: Callable[[], Mapping[str, Any]]) -> None:
        self.counts.append(self.waits.count)


def made(name: str, norm: str, **options: Any) -> sr.Attack:
    guided = {"samples": 2, "sigma": 0.05, "every": 2} if name.startswith("cr_") else {}
    return make_attack(
        name, norm=norm, eps=EPS[norm], **{**SMALL.get(name.removeprefix("cr_"), {}), **guided, **options}
    )


def waited(attack: sr.Attack, monkeypatch: pytest.MonkeyPatch, given: tuple[Tensor, Tensor] | None = None) -> list[int]:
    """Waits of each round, as on an accelerator; the last is the verdict on the last iterate, if it was not judged."""
    waits, model = Waits(), ScoresOnly(sr.wrap(network(), num_classes=CLASSES))
    monkeypatch.setattr(projections, "done", lambda images: False)  # is asked on the CPU alone

    def aside(function: Callable[..., Any]) -> Callable[..., Any]:
        def inner(*args: Any) -> Any:
            with waits.paused():
                return function(*args)

        return inner

    monkeypatch.setattr(estimators, "walk", aside(estimators.walk))  # draws on the CPU, whatever the device
    model.scores = aside(model.scores)  # type: ignore[method-assign]
    rounds = Rounds(waits)
    images, labels = batch() if given is None else given
    with waits:
        attack(model, images, labels, journal=rounds)
    return torch.tensor(rounds.counts).diff().tolist()


@every_attack
def test_a_round_waits_for_the_device_once(name: str, norm: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """To learn which images go on, as asking about a finished one has a price. The first looks at the scores too."""
    _, *rounds = waited(made(name, norm, queries=61), monkeypatch)
    assert len(rounds) > 2
    assert set(rounds) == {1}


@every_attack
def test_a_verdict_waits_once_more(name: str, norm: str, monkeypatch: pytest.MonkeyPatch) -> None:
    _, *rounds = waited(made(name, norm, queries=61, judge_every=1), monkeypatch)
    assert set(rounds) <= {1, 2}


def test_a_round_in_which_an_image_may_be_finished_waits_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    images, labels = batch(2)
    scores = sr.wrap(network(), num_classes=CLASSES).scores(images[:1])
    best, second = scores.topk(2, 1).values[0]
    margin = (best - second).masked_fill(labels[0] == VOID, 1)
    labels[0] = torch.where(margin == margin.min(), scores.argmax(1)[0], VOID)  # one pixel, which falls soon
    _, *rounds = waited(made("local_search", "linf", queries=61), monkeypatch, (images, labels))
    assert rounds.count(2) == 1
    assert set(rounds) == {1, 2}


class Largest(TorchDispatchMode):
    """Looks for the largest tensor that is made, in bytes."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes, self.off = 0, False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        found = func(*args, **(kwargs or {}))
        for each in tree_flatten(found)[0]:
            if isinstance(each, Tensor) and not self.off:
                self.bytes = max(self.bytes, each.numel() * each.element_size())
        return found


@pytest.mark.parametrize("directions", ["pixel", "tiles:4", "dct:1/4"])
def test_a_round_of_zoo_makes_no_tensor_larger_than_one_request(directions: str) -> None:
    """Sixteen images, however many coordinates it asks about: no vector of all coordinates for each of them."""
    image = torch.rand(1, 3, 256, 512)
    largest = Largest()

    class Bright:
        """Two classes by brightness; what it makes is its own."""

        offers, num_classes, frozen = ANSWERS, 2, staticmethod(contextlib.nullcontext)

        def scores(self, images: Tensor) -> Tensor:
            largest.off = True
            light = images.mean(1, keepdim=True)
            found = torch.cat([light, 1 - light], 1)
            largest.off = False
            return found

    attack = make_attack("zoo", norm="linf", eps=0.1, queries=97, coordinates=24, directions=directions)
    with largest:
        attack(Bright(), image, torch.zeros(1, 256, 512, dtype=torch.long))
    assert largest.bytes <= 16 * image.nbytes
