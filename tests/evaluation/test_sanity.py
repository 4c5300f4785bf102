"""Each sanity verdict speaks of a network or of attacks made to deserve it, and all are silent on the demo network."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional

import segradius as sr
from segradius.evaluation import (
    CHECKS,
    SANITY,
    Evidence,
    Experiment,
    Finding,
    InProcess,
    Run,
    SanityVerdict,
    Store,
    Tried,
    execute,
    gathered,
    make_plans,
    summarise,
    verdicts,
)
from segradius.evaluation.attack import Attacking
from segradius.evaluation.attack_summary import Sanity
from segradius.evaluation.job import DataChoice, ModelChoice
from segradius.evaluation.rounded import EightBit
from segradius.evaluation.sanity_attacks import paired
from segradius.evaluation.sanity_probe import STEPS, Probed
from segradius.metrics.intervals import Interval
from segradius.models.segmenter import AsModule
from segradius.report import report_attacks
from segradius.targets import Metered

DATA = "scenes:24x32,6"
Change = Callable[[Tensor], Tensor]


class Around(nn.Module):
    """The demo network, with something done to the images before and to the logits after."""

    def __init__(self, before: Change = lambda x: x, after: Change = lambda z: z) -> None:
        super().__init__()
        self.network, self.before, self.after = AsModule(sr.load_model("demo")), before, after

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.after(self.network(self.before(x)))
        return found


def instead(forward: Change, backward: Callable[[Tensor, Tensor], Tensor] = lambda x, grad: grad) -> Change:
    """A function with another gradient: by default that of the identity, a straight-through estimator."""

    class Instead(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            ctx.save_for_backward(x)
            return forward(x).clone()

        @staticmethod
        def backward(ctx: Any, grad: Tensor) -> Tensor:
            return backward(*ctx.saved_tensors, grad)

    return lambda x: Instead.apply(x)  # type: ignore[no-any-return, no-untyped-call]


def levels(count: int) -> Change:
    return lambda x: (x * count).round() / count


def jpeg(x: Tensor) -> Tensor:
    pages = []
    for image in x:
        file = io.BytesIO()
        Image.fromarray((255 * image.movedim(0, -1)).clamp(0, 255).byte().numpy()).save(file, "JPEG", quality=80)
        pages.append(torch.from_numpy(np.array(Image.open(file))).movedim(-1, 0) / 255)
    return torch.stack(pages).to(x)


def hard(z: Tensor) -> Tensor:
    return 10.0 * functional.one_hot(z.argmax(1), z.shape[1]).movedim(-1, 1).to(z)


def off_grid(x: Tensor) -> Tensor:
    """Images that are not of 8 bits, as an attack leaves them."""
    return ((255 * x - (255 * x).round()).abs().amax((1, 2, 3)) > 1e-2).view(-1, 1, 1, 1)


def astray(x: Tensor, grad: Tensor) -> Tensor:
    """A gradient that is right at an image, and the reverse wherever an attack goes."""
    return torch.where(off_grid(x), -grad, grad)


def batch_statistics(z: Tensor) -> Tensor:
    return functional.batch_norm(z, None, None, training=True)


class Learning(Around):
    """Goes on counting its running mean, as a batch norm in training mode does."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            self.mean.mul_(0.9).add_(0.1 * x.mean())
        return super().forward(x)


class Normed(Around):
    """Ends in a batch norm without running statistics."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(8, track_running_stats=False)

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.norm(super().forward(x))
        return found


def wrapped(network: nn.Module) -> sr.Segmenter:
    return sr.wrap(network, num_classes=8, normalisation="none")


def sane(
    model: sr.Segmenter, attacks: Any = "pgd", data: Any = DATA, eps: Any = "linf=0.03", **options: Any
) -> dict[str, SanityVerdict]:
    given = {"steps": 4, **options} if attacks == "pgd" else options
    return {each.name: each for each in sr.evaluate(model, data, attacks, eps=eps, quiet=True, **given).verdicts}


def fired(found: Mapping[str, SanityVerdict]) -> dict[str, str]:
    return {name: each.verdict for name, each in found.items() if each.fired}


MADE: list[tuple[str, nn.Module, dict[str, str]]] = [
    ("rounds to 8 bits, straight through", Around(instead(levels(255))), {"smooth": "warn"}),
    ("rounds to 4 levels, straight through", Around(instead(levels(3))), {"smooth": "warn"}),
    ("compresses, straight through", Around(instead(jpeg)), {"smooth": "warn"}),
    ("argmax, straight through", Around(after=instead(hard)), {"smooth": "warn"}),
    (
        "rounds to 8 bits",
        Around(levels(255)),
        {"smooth": "warn", "gradient": "fail", "huge": "fail", "rises": "fail"},
    ),
    ("argmax", Around(after=lambda z: hard(z) + 0 * z), {"smooth": "warn", "gradient": "fail", "huge": "fail"}),
    (
        "gradient reversed",
        Around(instead(lambda x: x, lambda x, grad: -grad)),
        {"derivative": "fail", "masked": "fail", "huge": "fail"},
    ),
    ("gradient of a thousandth", Around(instead(lambda x: x, lambda x, grad: grad / 1000)), {"derivative": "fail"}),
    ("half of it detached", Around(lambda x: 0.5 * x + 0.5 * x.detach()), {"derivative": "warn"}),
    ("gradient of one band", Around(instead(lambda x: x, lambda x, g: g * torch.eye(3)[0].view(3, 1, 1))), {
        "derivative": "warn"
    }),
    ("gradient NaN", Around(lambda x: x + 0 * (x - x).sqrt()), {"gradient": "fail"}),
    ("softmax left on, scaled", Around(after=lambda z: 50 * z.softmax(1)), {"logits": "warn"}),
    ("logits a thousandfold", Around(after=lambda z: 1000 * z), {"logits": "warn"}),
    ("dropout left on", Around(after=lambda z: functional.dropout(z, 0.1, training=True)), {
        "steady": "fail", "twice": "fail"
    }),
    ("noise", Around(lambda x: x + 0.05 * torch.randn_like(x)), {"steady": "fail", "twice": "fail"}),
    ("state kept", Learning(), {"state": "fail"}),
    ("statistics of the batch", Around(after=batch_statistics), {"batch": "fail"}),
    ("batch norm without running statistics", Normed(), {"batch": "fail"}),
    ("one class", Around(after=lambda z: z + 1e3 * torch.eye(8)[2].view(1, 8, 1, 1)), {"fit": "fail", "huge": "warn"}),
]  # fmt: skip


@pytest.mark.parametrize(("network", "grades"), [made[1:] for made in MADE], ids=[made[0] for made in MADE])
def test_each_network_gets_the_verdicts_that_it_deserves(network: nn.Module, grades: dict[str, str]):
    found = sane(wrapped(network))
    assert {name: found[name].verdict for name in grades} == grades
    for each in found.values():
        assert each.text
        assert "\n" not in each.line
        assert each.advice or each.verdict in ("pass", "open")


@pytest.mark.parametrize(("data", "eps", "seed"), [
    ("scenes:24x32,12", "linf=0.03", 0),
    ("scenes:48x64,5", "l2=0.5,1.5", 1),
    ("scenes:64x48,3", "linf=0.006", 2),
])  # fmt: skip
def test_nothing_is_said_of_the_demo_network(data: str, eps: str, seed: int):
    attacks = ["pgd", "fgsm", "square", "flip_apgd"]
    options = {"square.queries": 20, "flip_apgd.steps": 6, "pgd.steps": 6}
    found = sane(sr.load_model("demo"), attacks, data, eps, seed=seed, options=options)
    assert fired(found) == {}
    open_ones = {name for name, each in found.items() if each.verdict == "open"}
    few = {"iterative", "black_box"} if data.endswith(",3") else set()
    assert open_ones == {"steps", "converged"} | few | (set() if "," in eps else {"budget"})


def test_a_masked_gradient_is_beaten_by_one_step_and_by_a_black_box_attack():
    model = wrapped(Around(instead(lambda x: x, astray)))
    attacks = {
        "pgd": {"attack": "pgd", "steps": 8},
        "short": {"attack": "pgd", "steps": 2},
        "fgsm": {"attack": "fgsm"},
        "square": {"attack": "square", "queries": 80},
    }
    found = sane(model, attacks, "scenes:24x32,12", "linf=0.1")
    assert found["iterative"].verdict == "fail"
    assert found["steps"].verdict == "warn"
    assert found["iterative"].value > 0.005
    reversed_ = wrapped(Around(instead(lambda x: x, lambda x, grad: -grad)))
    found = sane(reversed_, {name: attacks[name] for name in ("pgd", "square")}, "scenes:24x32,12", "linf=0.1")
    assert found["black_box"].verdict == "fail"
    alone = sane(reversed_, {name: attacks[name] for name in ("fgsm", "square")}, "scenes:24x32,12", "linf=0.1")
    assert alone["black_box"].verdict == "warn"  # which says more of the one step


def test_images_that_become_nan_under_attack_are_told_of():
    class Spoilt(Around):
        def forward(self, x: Tensor) -> Tensor:
            return torch.where(off_grid(x) & (x.amax() > x.amin()), math.nan, super().forward(x))

    found = sane(wrapped(Spoilt()), "fgsm", eps="linf=0.0123")
    assert found["finite"].verdict == "warn"
    assert found["finite"].value == 6


@pytest.mark.parametrize(("eps", "said"), [
    ("linf=0.001", "0.26 of a grey level"),
    ("linf=0.7", "leaves nothing of an image"),
    ("l2=8/255", "hardly any change"),
])  # fmt: skip
def test_budgets_that_are_hardly_meant(eps: str, said: str):
    found = sane(sr.load_model("demo"), "fgsm", eps=eps)
    assert found["eps"].verdict == "warn"
    assert said in found["eps"].text


# -- what attacks leave, made up --


def evidence(run: Run[Experiment] | None = None) -> Evidence:
    """Of a run of the demo network."""
    plans = make_plans(["pgd"], [("linf", 0.03)], {"steps": 2})
    data = sr.open_data(DATA)
    run = run or Run(Experiment(ModelChoice("demo"), DataChoice(DATA), plans), sr.load_model("demo"), data)
    with Store(":memory:") as store:
        execute(run, store, InProcess(run.model, run.data))
        return gathered(run, store, summarise(run.experiment, store, run.data.ids, run.named))


@pytest.fixture(scope="module")
def usual() -> Evidence:
    return evidence()


def tried(name: str, left: Sequence[float], eps: float = 0.03, **options: Any) -> Tried:
    (plan,) = make_plans([name], [("linf", eps)], options)
    task = Attacking(plan)
    return Tried(plan, task.attack, task.asks, {str(k): value for k, value in enumerate(left)})


def spread(mean: float, count: int = 12, seed: int = 0) -> list[float]:
    around = torch.randn(count, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return (mean + 0.01 * (around - around.mean())).tolist()


@pytest.mark.parametrize(("name", "attacks", "verdict"), [
    ("iterative", (tried("pgd", spread(0.6)), tried("fgsm", spread(0.5, seed=1))), "fail"),
    ("iterative", (tried("pgd", spread(0.5)), tried("fgsm", spread(0.501, seed=1))), "pass"),
    ("iterative", (tried("pgd", spread(0.6)), tried("fgsm", spread(0.5, 4))), "open"),
    ("iterative", (tried("pgd", spread(0.6)), tried("fgsm", spread(0.5)), tried("apgd", spread(0.3))), "warn"),
    ("iterative", (tried("segpgd", spread(0.6)), tried("fgsm", spread(0.5)), tried("apgd", spread(0.3))), "pass"),
    ("iterative", (tried("pgd", spread(0.6), 0.1), tried("fgsm", spread(0.5))), "open"),
    ("iterative", (tried("pgd", spread(0.6)),), "open"),
    ("steps", (tried("pgd", spread(0.5), steps=10), tried("pgd", spread(0.6, seed=1), steps=20)), "warn"),
    ("steps", (tried("pgd", spread(0.5), steps=10), tried("pgd", spread(0.4, seed=1), steps=20)), "pass"),
    ("steps", (tried("square", spread(0.5), queries=10), tried("square", spread(0.6), queries=20)), "warn"),
    ("steps", (tried("pgd", spread(0.5), steps=10), tried("apgd", spread(0.6), steps=20)), "open"),
    ("converged", (tried("pgd", spread(0.5), steps=10), tried("pgd", spread(0.4, seed=1), steps=20)), "warn"),
    ("converged", (tried("pgd", spread(0.5), steps=10), tried("pgd", spread(0.498, seed=1), steps=20)), "pass"),
    ("converged", (
        tried("pgd", spread(0.7), steps=5), tried("pgd", spread(0.5), steps=10), tried("pgd", spread(0.5), steps=20)
    ), "pass"),
    ("budget", (tried("pgd", spread(0.5), 0.01), tried("pgd", spread(0.6, seed=1), 0.02)), "fail"),
    ("budget", (tried("pgd", spread(0.5), 0.01), tried("pgd", spread(0.3, seed=1), 0.02)), "pass"),
    ("budget", (tried("pgd", spread(0.5), 0.01), tried("apgd", spread(0.6), 0.02)), "open"),
    ("black_box", (tried("pgd", spread(0.5)), tried("square", spread(0.4, seed=1))), "fail"),
    ("black_box", (tried("fgsm", spread(0.5)), tried("square", spread(0.4, seed=1))), "warn"),
    ("black_box", (tried("pgd", spread(0.5)), tried("square", spread(0.6, seed=1))), "pass"),
    ("black_box", (tried("pgd", spread(0.5)), tried("fgsm", spread(0.4))), "open"),
])  # fmt: skip
def test_attacks_are_judged_against_each_other(name: str, attacks: tuple[Tried, ...], verdict: str, usual: Evidence):
    found = SANITY[name](replace(usual, tried=attacks))
    assert found.verdict == verdict, found
    assert found.advice or verdict == "pass"
    if verdict == "fail":
        assert "points more than" in found.text


def test_equal_attacks_are_called_different_in_one_run_of_twenty_at_most():
    wrong, runs = 0, 120
    for seed in range(runs):
        parts = [tried("pgd", spread(0.5, 8, 10 * seed + k), 0.01 * (k + 1)) for k in range(4)]
        noisy = [replace(each, left={i: v + 0.05 * k for k, (i, v) in enumerate(each.left.items())}) for each in parts]
        pairs = paired([(noisy[k + 1], noisy[k]) for k in range(3)])
        wrong += any(pair.more.low > 0 for pair in pairs)
    assert wrong <= 0.05 * runs + 3 * math.sqrt(0.05 * 0.95 * runs)


@pytest.mark.parametrize(("sanity", "name", "verdict"), [
    (Sanity(1.01, 0.0, 0.0), "ball", "fail"),
    (Sanity(1.0, 0.01, 0.0), "ball", "fail"),
    (Sanity(1.00001, 1e-8, 0.0), "ball", "pass"),
    (Sanity(1.0, 0.0, 0.1), "twice", "fail"),
    (Sanity(1.0, 0.0, math.nan), "twice", "open"),
    (Sanity(1.0, 0.0, 0.0, ("a",)), "gradient", "warn"),
    (Sanity(1.0, 0.0, 0.0, ("a", "b", "c")), "gradient", "fail"),
])  # fmt: skip
def test_what_must_hold_of_every_adversarial_image(sanity: Sanity, name: str, verdict: str, usual: Evidence):
    rows = tuple(replace(row, sanity=sanity if row.sanity else None) for row in usual.summary.rows)
    assert SANITY[name](replace(usual, summary=replace(usual.summary, rows=rows))).verdict == verdict


@pytest.mark.parametrize(("left", "rounded", "verdict"), [
    (0.5, 0.51, "pass"), (0.5, 0.48, "pass"), (0.5, 0.75, "warn"), (0.799, 0.8, "pass"), (0.5, None, "open"),
])  # fmt: skip
def test_what_rounding_to_8_bits_takes_of_an_attack(left: float, rounded: float | None, verdict: str, usual: Evidence):
    at = {name: Interval(value or 0.0, 0.0, 1.0) for name, value in (("l", left), ("r", rounded), ("c", 0.8))}
    eight = None if rounded is None else EightBit(at["r"], at["r"], 0.03, 7.65)
    clean, *attacked = usual.summary.rows
    rows = (replace(clean, pixacc=at["c"]), *(replace(row, pixacc=at["l"], rounded=eight) for row in attacked))
    found = SANITY["rounded"](replace(usual, summary=replace(usual.summary, rows=rows)))
    assert found.verdict == verdict, found


def told(usual: Evidence, *found: Finding) -> Evidence:
    """The same evidence, had the checks before the attacks found that."""
    other = replace(usual)
    other.__dict__["found"] = {each.name: each for each in found}
    return other


@pytest.mark.parametrize("name", sorted({*CHECKS, "weights", "undeclared", "swapped", "assumed", "hooks", "batch"}))
def test_every_warning_is_in_a_verdict(name: str, usual: Evidence):
    assert not any(each.fired for each in verdicts(usual))
    one = Finding(name, "something was seen", "do something", 0.5)
    (said,) = [each for each in verdicts(told(usual, one)) if each.fired]
    assert (said.text, said.advice) == (one.text, one.advice)


# -- open, stored, told --


def test_a_target_is_not_asked_for_a_verdict():
    asked: list[int] = []
    model = sr.load_model("demo")
    target = Metered(model)
    found = sane(target, "square", eps="linf=0.03", queries=5)  # type: ignore[arg-type]
    assert target.answered == 6 * 6  # five queries and the clean image, of each of six
    assert asked == []
    assert fired(found) == {}
    opened = {name for name, each in found.items() if each.verdict == "open"}
    assert {"huge", "rises", "smooth", "derivative", "batch", "steady", "gradient", "masked"} <= opened
    assert all(found[name].advice for name in ("huge", "iterative", "black_box"))


def test_a_network_that_is_attacked_without_gradients_is_not_looked_at_for_them():
    found = sane(sr.load_model("demo"), "square", queries=5)
    assert found["huge"].verdict == "open"
    assert found["huge"].advice == "add pgd to --attack"
    assert found["steady"].verdict == "pass"


def test_a_check_that_raises_is_open_with_the_error(usual: Evidence, monkeypatch: pytest.MonkeyPatch):
    def breaks(it: Evidence) -> Any:
        raise ZeroDivisionError("of a check")

    monkeypatch.setitem(SANITY._things, "void", breaks)
    (found,) = [each for each in verdicts(usual) if each.name == "void"]
    assert (found.verdict, found.text) == ("open", "the check itself failed: ZeroDivisionError: of a check")


def test_a_network_that_fails_on_the_look_leaves_its_checks_open():
    class Choosy(Around):
        def forward(self, x: Tensor) -> Tensor:
            if self.looked and bool(off_grid(x).any()):
                raise ValueError("not such an image")
            return super().forward(x)

        looked = False

    network = Choosy()
    run = run_of(wrapped(network))
    with Store(":memory:") as store:
        execute(run, store, InProcess(run.model, run.data))
        network.looked = True
        found = {each.name: each for each in verdicts(gathered(run, store, summary_of(run, store)))}
    assert found["huge"].verdict == "open"
    assert "ValueError: not such an image" in found["huge"].text


def run_of(model: sr.Segmenter, data: str = DATA) -> Run[Experiment]:
    plans = make_plans(["pgd"], [("linf", 0.03)], {"steps": 2})
    return Run(Experiment(ModelChoice("demo"), DataChoice(data), plans), model, sr.open_data(data))


def summary_of(run: Run[Experiment], store: Store) -> Any:
    return summarise(run.experiment, store, run.data.ids, run.named)


def test_passes_are_few_counted_and_made_once():
    forward: list[int] = []
    network = Around()
    network.register_forward_hook(lambda module, given, found: forward.append(len(found)))
    run = run_of(wrapped(network))
    files = []
    with Store(":memory:") as store:
        execute(run, store, InProcess(run.model, run.data))
        before = sum(forward)
        for _ in range(2):
            it = gathered(run, store, summary_of(run, store))
            assert it.probed is not None
            assert sum(forward) - before == it.probed.forward
        assert it.probed.images == run.data.ids[:2]
        assert it.probed.backward <= 2 * STEPS
        assert it.probed.forward + it.probed.backward <= 2 * 25
        files = [dict(report_attacks(run, store, {}).files) for _ in range(2)]
    assert files[0]["results.json"] == files[1]["results.json"]
    report = json.loads(files[0]["results.json"])
    assert report["checks"]["ledger"] == {"checks": {"forward": it.probed.forward, "backward": it.probed.backward}}
    assert [each["name"] for each in report["verdicts"]] == sorted(SANITY)
    assert {"name", "verdict", "text", "advice", "value"} == set(report["verdicts"][0])
    assert "| check | verdict | what was seen | what to do | value |\n|:--|:--|:--|:--|--:|" in files[0]["table.md"]
    assert "| huge | pass | " in files[0]["table.md"]


def test_a_longer_run_and_other_batches_say_the_same_of_the_network():
    model, found = sr.load_model("demo"), []
    for data, size in (("scenes:24x32,2", 1), ("scenes:24x32,6", 8)):
        run = replace(run_of(model, data), batch_size=size)
        with Store(":memory:") as store:
            execute(run, store, InProcess(run.model, run.data))
            found.append(gathered(run, store, summary_of(run, store)).probed)
    assert found[0] == found[1]
    assert found[0] is not None
    assert Probed.of(json.loads(json.dumps(found[0].as_dict()))) == found[0]


def test_predicted_labels_and_tables_on_screen():
    found = sr.evaluate(sr.load_model("demo"), DATA, "pgd", labels="predicted", eps=1.5, steps=4, quiet=True)
    by_name = {each.name: each for each in found.verdicts}
    assert fired(by_name) == {}
    assert by_name["labels"].verdict == by_name["void"].verdict == "open"
    (line,) = [line for line in str(found).splitlines() if line.startswith("Sanity checks: ")]
    assert f"{sum(each.verdict == 'pass' for each in found.verdicts)} passed" in line
    warned = sr.evaluate(wrapped(Around(levels(255))), DATA, "pgd", eps=1.5, steps=2, quiet=True)
    lines = [line for line in str(warned).splitlines() if "exactly zero on 2 of 2 images" in line]
    assert len(lines) == 1  # a warning that is a verdict too is told once
    assert any(line.startswith("Sanity (huge, fail): ") for line in str(warned).splitlines())
