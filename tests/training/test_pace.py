"""How passes are made changes rounding alone and keeps names and layouts; a stopped run goes on to the bit."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
import small
import torch
from safetensors.torch import load_file
from test_resume import ALL_ON, Stopping, assert_same_folders
from torch import nn

import segradius as sr
from segradius.core.errors import InputError, ModelError
from segradius.speed.fold import fold
from segradius.training import Augmentation, Engine, Optimiser, Pace, Recipe, fit, make_adversary
from segradius.training.learner import Learner
from segradius.training.mirror import Mirror
from segradius.training.recipe import LATER, flat
from segradius.training.records import Snapshot, lines
from segradius.training.trial import bf16_ratio, paced, plain, sample_lesson, unpaced, without_trace

QUICK = Pace(channels_last=True, twin=True)
OPTIMISERS = [Optimiser(lr=0.05), Optimiser("adamw", lr=0.01)]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "last.safetensors")


@pytest.fixture
def compiling(monkeypatch: pytest.MonkeyPatch) -> list[nn.Module]:
    """Compiling without a compiler of C++; what is compiled."""
    seen: list[nn.Module] = []
    compile = nn.Module.compile
    monkeypatch.setattr(
        nn.Module, "compile", lambda self: (seen.append(self), compile(self, backend="eager", dynamic=False))
    )
    return seen


def at_a_pace(pace: Pace, **changes) -> tuple[Learner, list[str], Mirror | None]:
    """A network that learns from FastADT at a pace, what is told of it, and what is attacked."""
    changes = {"adversary": make_adversary("fast_adt", eps=0.02)} | changes
    job = small.job(Path("unused"), pace=pace, **changes)
    learner = Learner(job.model)
    lesson = sample_lesson(job.train, job.recipe, 2, torch.device("cpu"))
    return learner, *paced(learner, job.recipe, lesson, nullcontext)


@pytest.mark.parametrize("optimiser", OPTIMISERS, ids=lambda o: o.name)
@pytest.mark.parametrize("precision", ["32", "bf16"])
def test_a_quick_run_goes_on_to_the_bit(tmp_path: Path, optimiser: Optimiser, precision: str) -> None:
    fused = replace(optimiser, fused=True, clip=1.0)
    engine = Engine("cpu", save_every=2)
    changes = ALL_ON | {"optimiser": fused, "pace": QUICK, "precision": precision, "engine": engine}
    fit(small.job(tmp_path / "whole", **changes))
    with pytest.raises(KeyboardInterrupt):
        fit(small.job(tmp_path / "parts", train=Stopping(small.TRAIN, 36), **changes))
    assert 0 < Snapshot.read(tmp_path / "parts").position.step < 12
    fit(small.job(tmp_path / "parts", **changes))
    assert_same_folders(tmp_path / "whole", tmp_path / "parts")


@pytest.mark.parametrize("optimiser", OPTIMISERS, ids=lambda o: o.name)
def test_layout_and_fused_optimiser_change_rounding_alone(tmp_path: Path, optimiser: Optimiser) -> None:
    plain, model = (small.network(dropout=0, norm=None) for _ in range(2))  # dropout draws along memory
    fit(small.job(tmp_path / "plain", plain, optimiser=optimiser))
    fit(small.job(tmp_path / "quick", model, optimiser=replace(optimiser, fused=True), pace=QUICK))
    small.assert_same(weights(tmp_path / "quick"), weights(tmp_path / "plain"), rtol=1e-3, atol=1e-5)
    assert all(p.is_contiguous() for p in model.parameters())


def test_bfloat16_weights_stay_float32_and_evaluations_are_those_of_float32(tmp_path: Path) -> None:
    job = small.job(tmp_path, precision="bf16", pace=QUICK, epochs=1)
    last = fit(job)
    assert {value.dtype for value in weights(tmp_path).values() if value.is_floating_point()} == {torch.float32}
    network = small.network()
    network.load_state_dict(weights(tmp_path))
    model = sr.wrap(network, num_classes=small.CLASSES, normalisation="imagenet")
    labels = torch.stack([sample.label for sample in small.HELD_OUT.samples])
    right = model.logits(torch.stack([sample.image for sample in small.HELD_OUT.samples])).argmax(1) == labels
    assert last.pixacc == pytest.approx(right[labels != 255].double().mean().item(), abs=1e-12)


def test_a_compiled_run_keeps_names_and_leaves_the_network_as_found(tmp_path: Path, compiling: list[nn.Module]) -> None:
    adversary = make_adversary("fast_adt", norm="l2", eps=1.0)
    fit(small.job(tmp_path / "plain", adversary=adversary))
    job = small.job(tmp_path / "compiled", adversary=adversary, pace=Pace(compile=True))
    fit(job)
    assert compiling == [job.model.network]
    assert job.model.network._compiled_call_impl is None
    small.assert_same(weights(tmp_path / "compiled"), weights(tmp_path / "plain"), rtol=1e-4, atol=1e-5)
    states = [Snapshot.read(tmp_path / name).network for name in ("plain", "compiled")]
    assert list(states[0]) == list(states[1]) == list(small.network().state_dict())


def test_a_compiled_run_goes_on_to_the_bit(tmp_path: Path, compiling: list[nn.Module]) -> None:
    changes = ALL_ON | {"pace": Pace(compile=True), "engine": Engine("cpu", save_every=2)}
    fit(small.job(tmp_path / "whole", **changes))
    with pytest.raises(KeyboardInterrupt):
        fit(small.job(tmp_path / "parts", train=Stopping(small.TRAIN, 36), **changes))
    fit(small.job(tmp_path / "parts", **changes))
    assert_same_folders(tmp_path / "whole", tmp_path / "parts")
    assert len(compiling) == 3


class Flat(nn.Module):
    """A network that takes a view which only the usual layout has."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, small.CLASSES, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(x)
        return self.last(x.view(x.shape[0], -1).view_as(x))


def test_what_a_network_refuses_is_told_once_and_left(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    torch.manual_seed(0)
    network = Flat()
    state = {name: value.clone() for name, value in network.state_dict().items()}
    fit(small.job(tmp_path / "plain", network, quiet=False))
    capsys.readouterr()
    network.load_state_dict(state)
    fit(small.job(tmp_path / "quick", network, pace=QUICK, quiet=False))
    assert capsys.readouterr().err.count("without channels_last memory, which Flat refuses") == 1
    small.assert_same(weights(tmp_path / "quick"), weights(tmp_path / "plain"))


def test_a_compiler_that_fails_is_told_and_done_without(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(module, inputs):
        raise RuntimeError("no compiler")

    compile = nn.Module.compile
    monkeypatch.setattr(nn.Module, "compile", lambda self: compile(self, backend=broken))
    learner, told, _ = at_a_pace(Pace(compile=True))
    assert len(told) == 1
    assert "without torch.compile, which Sequential refuses" in told[0]
    assert learner.network._compiled_call_impl is None


def test_a_trial_leaves_no_trace() -> None:
    network = small.network().train()
    state = {name: value.clone() for name, value in network.state_dict().items()}
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    without_trace(network, lambda: network(torch.rand(2, 3, 8, 8)).sum().backward())
    assert torch.equal(torch.rand(3), expected)
    small.assert_same(network.state_dict(), state)
    assert all(p.grad is None for p in network.parameters())
    assert network.training


class Norms(nn.Module):
    """Batch norms that can be folded, one that cannot, one without weights, and a transposed convolution before one."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU())
        self.bare = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1, groups=2), nn.BatchNorm2d(8, affine=False))
        self.up = nn.Sequential(nn.ConvTranspose2d(8, 6, 2, stride=2), nn.BatchNorm2d(6))
        self.alone, self.last = nn.BatchNorm2d(6), nn.Conv2d(6, small.CLASSES, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = torch.relu(self.up(self.bare(self.first(x))))
        return self.last(nn.functional.max_pool2d(self.alone(x), 2))


@pytest.mark.parametrize("channels_last", [False, True])
def test_what_is_attacked_is_the_network_in_every_step(channels_last: bool) -> None:
    torch.manual_seed(0)
    learner, told, mirror = at_a_pace(Pace(channels_last, twin=True), model=Norms())
    assert told == []
    assert len(mirror.folded) == 3
    optimiser = Optimiser(lr=0.1, fused=True).make(learner.parameters())
    images = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    before = mirror.model.logits(images)
    for _ in range(3):
        learner.train()
        learner(images)["out"].square().mean().backward()
        optimiser.step()
        optimiser.zero_grad()
        mirror.refresh()
        expected = learner.model.logits(images)
        torch.testing.assert_close(mirror.model.logits(images), expected, rtol=1e-4, atol=1e-5)
    assert (expected - before).abs().max() > 0.01
    assert not any(p.requires_grad for p in mirror.twin.parameters())
    assert all(p.requires_grad for p in learner.parameters())


class Own(nn.Module):
    """A norm that puts other tensors in the place of its buffers, and one that grows."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(8, 1, 1))
        self.register_buffer("seen", torch.zeros(1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.training:
            self.mean = 0.5 * self.mean + 0.5 * x.detach().mean((0, 2, 3)).view(-1, 1, 1) + 1.0
            self.seen = torch.cat([self.seen, torch.ones(1)])
        return x - self.mean * self.seen.sum()


def test_what_is_attacked_has_buffers_that_a_network_puts_in_the_place_of_others() -> None:
    torch.manual_seed(0)
    last = nn.Conv2d(8, small.CLASSES, 1)
    network = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), Own(), nn.ReLU(), last)
    learner, told, mirror = at_a_pace(Pace(twin=True), model=network)
    assert told == []
    images = torch.rand(2, 3, 16, 16)
    for _ in range(3):
        learner.train()
        learner(images)
        mirror.refresh()
        torch.testing.assert_close(mirror.model.logits(images), learner.model.logits(images), rtol=1e-4, atol=1e-5)


class Turned(torch.autograd.Function):
    """The same values, and a gradient of the other sign."""

    @staticmethod
    def forward(ctx: object, x: torch.Tensor) -> torch.Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: object, *gradients: torch.Tensor) -> torch.Tensor:
        return -gradients[0]


def test_a_twin_with_another_gradient_is_told_and_not_attacked(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(network: nn.Module, call: object) -> int:
        network.register_forward_hook(lambda module, given, made: Turned.apply(made))
        return 1

    monkeypatch.setattr("segradius.training.mirror.ease", wrong)
    _, told, mirror = at_a_pace(Pace(twin=True))
    assert mirror is None
    assert "attacked is Sequential itself: of a twin, its gradient differs by" in told[0]


def test_a_twin_that_is_another_network_is_told_and_not_attacked(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrong(network: nn.Module, pairs: object) -> nn.Module:
        twin = fold(network, pairs)
        twin[4].bias.data = twin[4].bias + 1.0
        return twin

    monkeypatch.setattr("segradius.training.mirror.fold", wrong)
    monkeypatch.setattr("segradius.training.mirror._paired", lambda network, twin, pairs: ([], []))
    _, told, mirror = at_a_pace(Pace(twin=True))
    assert mirror is None
    assert len(told) == 1
    assert "attacked is Sequential itself: of a twin, its logits differ by" in told[0]


def test_folding_changes_a_training_by_rounding_alone(tmp_path: Path) -> None:
    changes = {"adversary": make_adversary("fast_adt", norm="l2", eps=1.0), "optimiser": Optimiser(lr=0.05)}
    for name, pace in (("plain", Pace()), ("folded", Pace(twin=True))):
        fit(small.job(tmp_path / name, **changes, pace=pace))
    # A bias before a batch norm has no gradient but rounding.
    own, folded = ({k: v for k, v in weights(tmp_path / name).items() if k != "0.bias"} for name in ("plain", "folded"))
    small.assert_same(folded, own, rtol=1e-3, atol=1e-5)


def test_nothing_is_folded_where_there_is_nothing_to_fold_or_nobody_attacks() -> None:
    _, told, mirror = at_a_pace(Pace(twin=True), model=small.network(norm=None))
    assert (told, mirror) == (["attacked is Sequential itself: no batch norm stands alone behind a convolution"], None)
    for name, mix in (("none", 1.0), ("gaussian", 1.0), ("gaussian", 0.5)):
        _, told, mirror = at_a_pace(Pace(twin=True), adversary=make_adversary(name, mix=mix))
        assert (told, mirror) == ([], None)


def test_evaluations_are_not_compiled(compiling: list[nn.Module]) -> None:
    learner, _, mirror = at_a_pace(replace(QUICK, compile=True))
    network = learner.network
    compiled = network._compiled_call_impl
    assert compiling == [network, mirror.twin]
    with plain(network):
        assert network._compiled_call_impl is None
    assert network._compiled_call_impl is compiled
    unpaced(network, Pace(compile=True))
    assert network._compiled_call_impl is None


def test_the_identity_of_runs_begun_before_is_what_it_was() -> None:
    later = {"pace", "pace.channels_last", "pace.twin", "pace.compile", "optimiser.fused"}
    assert not later & flat(Recipe()).keys()
    quick = flat(Recipe(optimiser=Optimiser(fused=True), pace=QUICK))
    assert later <= quick.keys()
    assert {name: value for name, value in quick.items() if name not in later} == flat(Recipe())


def test_a_run_goes_on_at_its_own_pace_alone(tmp_path: Path) -> None:
    fit(small.job(tmp_path, epochs=1))
    with pytest.raises(InputError, match=r"pace\.channels_last is True, and was absent"):
        fit(small.job(tmp_path, epochs=1, pace=QUICK))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: small.job(Path("x"), pace=Pace(compile=True), engine=Engine("cpu", devices=2)), "compile is for one"),
        (lambda: small.recipe(precision="16", optimiser=Optimiser(clip=1.0, fused=True)), "cannot clip"),
    ],
)
def test_what_does_not_go_together_is_refused(make, message: str) -> None:
    with pytest.raises(InputError, match=message):
        make()


def test_the_trial_of_bfloat16_is_a_ratio_and_leaves_no_trace() -> None:
    adversary = make_adversary("fast_adt", eps=0.02)
    job = small.job(Path("unused"), augmentation=Augmentation(crop=(16, 24)), pace=QUICK, adversary=adversary)
    state = {name: value.clone() for name, value in job.model.network.state_dict().items()}
    assert bf16_ratio(job) > 0
    small.assert_same(job.model.network.state_dict(), state)
    assert all(p.is_contiguous() for p in job.model.network.parameters())


def test_a_trial_of_bfloat16_meets_only_images_that_can_be_used(tmp_path: Path) -> None:
    bad = replace(small.TRAIN.samples[0], image=torch.full((3, 32, 48), torch.nan))
    train = small.InMemory([bad, *small.TRAIN.samples[1:]], small.TRAIN)
    fit(small.job(tmp_path, train=train, precision="auto", epochs=1, batch_size=2))
    assert lines(Snapshot.read(tmp_path).identity)["precision"] in ("'32'", "'bf16'")


@pytest.mark.parametrize("precision", ["32", "auto"])
def test_a_lack_of_memory_in_a_trial_is_told_as_that_of_a_step(tmp_path: Path, precision: str) -> None:
    class Large(nn.Conv2d):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            raise torch.OutOfMemoryError("CUDA out of memory")

    job = small.job(tmp_path, Large(3, small.CLASSES, 1), pace=QUICK, precision=precision)
    with pytest.raises(ModelError, match="Step 1 learns from 4 images: give a smaller --batch-size"):
        fit(job)


def test_a_finished_run_makes_no_trial_and_keeps_no_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    changes = {"pace": QUICK, "epochs": 1, "engine": Engine("cpu", in_memory=True), "precision": "auto"}
    first = fit(small.job(tmp_path, **changes))
    for name in ("trial.bf16_ratio", "trial.passes", "memory.Kept.read"):
        monkeypatch.setattr(f"segradius.training.{name}", lambda *given, **options: 1 / 0)
    assert fit(small.job(tmp_path, **changes)) == first


@dataclass(frozen=True)
class Began:
    """A recipe of which two parts came later."""

    steps: int = 3
    rate: object = field(default_factory=lambda: Optimiser(lr=0.5), metadata=LATER)
    mode: str = field(default="a", metadata=LATER)


def test_what_came_later_is_told_where_it_is_not_its_default() -> None:
    assert flat(Began()) == flat(Began(rate=Optimiser(lr=0.5))) == {"steps": "3"}
    assert flat(Began(mode="b")) == {"steps": "3", "mode": "'b'"}
    other = flat(Began(rate=Optimiser()))
    assert (other["rate"], other["rate.lr"]) == ("Optimiser", "0.01")
