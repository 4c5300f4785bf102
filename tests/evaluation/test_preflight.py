"""Each check speaks of a model, data or a threat made for it, and none of the networks that are right."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import pytest
import torch
import yaml
from threshold_model import Memory
from torch import Tensor, nn

import segradius as sr
from segradius.core.errors import InputError
from segradius.data import Classes, Sample
from segradius.evaluation import (
    CHECKS,
    DataChoice,
    Experiment,
    Facts,
    Finding,
    InProcess,
    ModelChoice,
    Run,
    Store,
    execute,
    findings,
    make_plans,
    of_data,
    summarise,
)
from segradius.evaluation.attack_summary import without_gradient
from segradius.evaluation.preparations import PREPARATIONS, preparations, written
from segradius.metrics.counts import Counts, Pixels
from segradius.models.preprocessing import as_normalisation
from segradius.report import report_attacks
from segradius.targets import Harsh, Metered, parse_answers

COLOURS = torch.tensor([[0.1, 0.1, 0.1], [0.8, 0.2, 0.2], [0.2, 0.7, 0.3]])
THREE = Classes(("black", "red", "green"), ((0, 0, 0), (200, 0, 0), (0, 200, 0)))
MEAN, STD = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])


class Nearest(nn.Module):
    """A pixel's class is the nearest of the colours, ``sharp`` is how sure it is, and ``end`` what is done to that."""

    def __init__(self, sharp: float = 30.0, end: Callable[[Tensor], Tensor] = lambda z: z, colours=COLOURS) -> None:
        super().__init__()
        self.conv, self.end = nn.Conv2d(3, len(colours), 1), end
        with torch.no_grad():
            self.conv.weight.copy_(2 * sharp * colours[..., None, None])
            self.conv.bias.copy_(-sharp * (colours * colours).sum(1))

    def forward(self, x: Tensor) -> Tensor:
        return self.end(self.conv(x))


class Before(nn.Module):
    """Something is done to the images first."""

    def __init__(self, change: Callable[[Tensor], Tensor], then: nn.Module) -> None:
        super().__init__()
        self.change, self.then = change, then

    def forward(self, x: Tensor) -> Tensor:
        return self.then(self.change(x))


class Rolled(Nearest):
    """The classes are others where ``where`` says so of the images."""

    def __init__(self, where: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.where = where

    def forward(self, x: Tensor) -> Tensor:
        z = super().forward(x)
        return torch.where(self.where(x), z.roll(1, 1), z)


class Backwards(torch.autograd.Function):
    """The identity, whose gradient has the wrong sign."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return -grad


class Counting(Nearest):
    """Keeps the mean of all it has seen in a buffer, and takes it off."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("seen", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            self.seen.add_(x.mean())
        return super().forward(x) * (1 + self.seen.clone())


class Waking(Nearest):
    """Switches itself to training mode."""

    def forward(self, x: Tensor) -> Tensor:
        self.conv.train()
        return super().forward(x)


def scene(
    place: int, labels: Sequence[int] = (0, 1, 2), void: float = 0.0, shown: Sequence[int] | None = None
) -> Sample:
    """Blobs of classes with noisy colours; some pixels without label, at random."""
    g = torch.Generator().manual_seed(place)
    choice = torch.tensor(labels)[torch.randint(len(labels), (4, 6), generator=g)]
    classes = choice.repeat_interleave(4, 0).repeat_interleave(4, 1)
    painted = classes if shown is None else torch.tensor(shown)[classes]
    noise = 0.16 * torch.rand(3, *classes.shape, generator=g) - 0.08
    image = (COLOURS[painted].movedim(-1, 0) + noise).clamp(0, 1)
    return Sample(f"image {place}", image, classes.masked_fill(torch.rand(classes.shape, generator=g) < void, 255))


def scenes(count: int = 3, **given: Any) -> Memory:
    return Memory([scene(place, **given) for place in range(count)], "scenes", THREE)


@dataclass(frozen=True)
class Ids(Memory):
    """With ids of their own."""

    named: Sequence[str] = ()

    @property
    def ids(self) -> Sequence[str]:
        return self.named


def first_batch_of(data: Memory, named: Sequence[str]) -> Ids:
    samples = [Sample(name, sample.image, sample.label) for name, sample in zip(named, data.samples, strict=True)]
    return Ids(samples, data.name, data.classes, named)


def normalised(x: Tensor) -> Tensor:
    return (x - MEAN.view(3, 1, 1)) / STD.view(3, 1, 1)


#: The colours as a network sees them that was trained on normalised images.
SEEN = normalised(COLOURS[..., None, None])[..., 0, 0]
THROUGH_255 = Before(lambda x: x / 255, Nearest())
BGR = Nearest(colours=COLOURS[:, [2, 1, 0]])


def always(which: int) -> Callable[[Tensor], Tensor]:
    return lambda z: z + 1e3 * nn.functional.one_hot(torch.tensor(which), z.shape[1]).view(1, -1, 1, 1)


@dataclass(frozen=True)
class Made:
    """A run made for a check."""

    name: str
    network: nn.Module = field(default_factory=Nearest)
    data: Memory = field(default_factory=scenes)
    eps: str = "linf"
    budget: float = 0.05
    split: str | None = None
    also: frozenset[str] = frozenset()


MADE = [
    Made("agreement", Rolled(lambda x: torch.arange(x.shape[-1]) < x.shape[-1] // 2)),
    Made("agreement", Rolled(lambda x: x.amax((1, 2, 3), keepdim=True) > 0.9)),
    Made("chance", Nearest(end=lambda z: z * torch.randn(z.shape, generator=torch.Generator().manual_seed(0)))),
    Made("classes", Nearest(colours=torch.cat([COLOURS, torch.tensor([[0.9, 0.9, 0.0]])]))),
    Made("constant", Nearest(end=always(1))),
    Made("constant", Nearest(1e-3, end=lambda z: z + torch.tensor([1.0, 0.0, 0.5]).view(1, 3, 1, 1))),
    Made("empty", data=scenes(labels=(0, 1))),
    Made("eps", eps="l2", budget=8 / 255),
    Made("eps", eps="l1", budget=8 / 255),
    Made("eps", eps="linf", budget=0.7),
    Made("gradient", Before(lambda x: (x * 16).round() / 16, Nearest())),
    Made("gradient", Before(lambda x: (x * 255).round() / 255, Nearest())),
    Made("gradient", Nearest(100.0).half(), also=frozenset({"saturated"})),
    Made("gradient", Nearest(3000.0), also=frozenset({"saturated"})),
    Made("gradient", Before(lambda x: x + 0 * (x - x).sqrt(), Nearest())),
    Made(
        "dark",
        Nearest(colours=COLOURS / 16),
        data=Memory([replace(scene(k), image=scene(k).image / 16) for k in range(3)], "dark", THREE),
    ),
    Made("images", data=Memory([replace(scene(0), id=f"image {k}") for k in range(3)], "same", THREE)),
    Made(
        "images", data=Memory([replace(scene(k), image=torch.full((3, 16, 24), 0.1 * k)) for k in range(3)], "b", THREE)
    ),
    Made("masked", Before(Backwards.apply, Nearest(4.0))),
    Made("normalisation", Nearest(colours=SEEN)),
    Made("normalisation", THROUGH_255),
    Made("normalisation", BGR),
    Made("one_label", data=scenes(labels=(0,), shown=(0, 1, 2), void=0.3)),
    Made("order", Nearest(colours=COLOURS[[1, 2, 0]])),
    Made("order", data=scenes(shown=(0, 2, 1))),
    Made("outputs", Nearest(end=lambda z: (z / 10).sigmoid())),
    Made("outputs", Nearest(end=lambda z: (2 * z).tanh())),
    Made("outputs", Nearest(end=lambda z: 100 * z.softmax(1))),
    Made("saturated", Nearest(30_000.0)),
    Made("state", Counting(), also=frozenset({"unsteady"})),
    Made("state", Waking()),
    Made("unsteady", Nearest(end=lambda z: z * (1 + 0.1 * torch.rand(())))),
    Made("unsteady", Nearest(end=lambda z: nn.functional.dropout(z, 0.01, training=True))),
    Made("saturated", Nearest(end=lambda z: 1000 * z)),
    Made("split", data=first_batch_of(scenes(4), ("train/a", "train/b", "val/a", "test/a"))),
    Made("unlabelled", data=scenes(labels=(0, 1), shown=(2, 1))),
    Made("void", data=scenes(void=0.7)),
]


def classes_of(network: nn.Module) -> int:
    return next(part.out_channels for part in network.modules() if isinstance(part, nn.Conv2d))


def run_of(made: Made) -> Run[Experiment]:
    plans = make_plans(["fgsm"], [(made.eps, made.budget)])
    experiment = Experiment(ModelChoice("nearest"), DataChoice("memory", made.split), plans)
    model = sr.wrap(made.network, num_classes=classes_of(made.network), normalisation="none")
    return Run(experiment, model, made.data)


def told_of(run: Run[Experiment]) -> tuple[dict[str, Finding], list[Finding]]:
    """What stands in the report, and what was told on the way."""
    said: list[Finding] = []
    run = replace(run, warn=said.append)
    with Store(":memory:") as store:
        execute(run, store, InProcess(run.model, run.data))
        return {found.name: found for found in findings(run.facts(store))}, said


@pytest.mark.parametrize("made", MADE, ids=[f"{made.name}-{place}" for place, made in enumerate(MADE)])
def test_each_check_speaks_of_what_was_made_for_it(made: Made):
    found, said = told_of(run_of(made))
    assert made.name in found
    assert found.keys() >= made.also
    assert found[made.name].text
    assert found[made.name].advice
    assert "\n" not in found[made.name].line
    assert [each.name for each in said] == list(dict.fromkeys(each.name for each in said))
    if made.name != "empty":  # what is known of a part of the images alone
        assert made.name in {each.name for each in said}


def test_every_check_has_a_run_that_was_made_for_it():
    assert {made.name for made in MADE} == set(CHECKS)


@pytest.mark.parametrize("count", [1, 3, 20])
@pytest.mark.parametrize("network", [Nearest(), Before(normalised, Nearest(0.6, colours=SEEN)), Nearest(5.0)])
def test_nothing_is_said_of_what_is_right(network: nn.Module, count: int):
    assert told_of(run_of(Made("", network, scenes(count))))[0] == {}


def test_nothing_is_said_of_the_demo_network():
    data = sr.open_data("scenes:48x64", limit=12)
    experiment = Experiment(
        ModelChoice("demo"), DataChoice("scenes:48x64", limit=12), make_plans(["fgsm"], [("l2", 1.5)])
    )
    assert told_of(Run(experiment, sr.load_model("demo"), data)) == ({}, [])


def test_nothing_is_said_of_the_camvid_network(camvid_model, camvid_folder):
    data = sr.open_data(f"camvid:{camvid_folder}", split="test", size=(120, 160), stride=20)
    choice = DataChoice("camvid", "test", (120, 160), stride=20)
    experiment = Experiment(ModelChoice("camvid"), choice, make_plans(["fgsm"], [("linf", 0.006)]))
    model = sr.wrap(camvid_model, normalisation="imagenet")
    assert told_of(Run(experiment, model, data, batch_size=2)) == ({}, [])
    assert "normalisation" in told_of(Run(experiment, sr.wrap(model, normalisation="none"), data, batch_size=2))[0]


def test_every_likely_normalisation_is_named_as_the_command_line_takes_it_and_no_order_of_classes(
    camvid_model, camvid_folder
):
    data = sr.open_data(f"camvid:{camvid_folder}", split="test", size=(120, 160), stride=20)
    choice = DataChoice("camvid", "test", (120, 160), stride=20)
    experiment = Experiment(ModelChoice("camvid"), choice, make_plans(["fgsm"], [("linf", 0.006)]))
    found, _ = told_of(Run(experiment, sr.wrap(camvid_model, normalisation="none"), data, batch_size=2))
    assert found["normalisation"].advice.startswith("give --normalisation imagenet, ")
    assert "order" not in found


def prepared(miou: float = 0.2, **seen: Any) -> Facts:
    """Facts in which other preparations of the colours, or orders of classes, were measured."""
    given: dict[str, Any] = {"miou": miou, "right": 0.3, "reordered": 0.8, "order": (1, 0, 2), **seen}
    with Store(":memory:") as store:
        facts = run_of(Made("")).facts(store)
    return replace(facts, seen=replace(facts.seen, **given))


PLUS_MINUS = "mean 0.5, std 0.5"


def test_preparations_that_are_as_good_are_all_named_and_the_commonest_is_first():
    tried = {PLUS_MINUS: (0.9, 0.99), "none": (0.9, 0.96), "imagenet": (0.9, 0.987)}
    found = CHECKS["normalisation"](prepared(0.239, prepared=tried))
    assert found is not None
    assert found.text.endswith(
        "is 0.239, and under another normalisation 0.987 with imagenet or 0.990 with " + PLUS_MINUS
    )
    assert found.advice == (
        "give --normalisation imagenet, or --normalisation '{mean: [0.5, 0.5, 0.5], std: [0.5, 0.5, 0.5]}', "
        "whichever the network was trained with"
    )
    assert found.value == 0.99
    assert CHECKS["normalisation"](prepared(0.9, prepared=tried)) is None


@pytest.mark.parametrize("bands", [1, 2, 4])
def test_a_network_of_any_number_of_bands_that_was_trained_on_plus_and_minus_one_is_told_so(bands: int):
    def fits(x: Tensor) -> Tensor:
        return torch.stack([-x.mean(1), x.mean(1)], 1) * 20  # foreground where (image − 0.5) / 0.5 is above 0

    def sample(place: int) -> Sample:
        g = torch.Generator().manual_seed(place)
        label = torch.randint(2, (4, 6), generator=g).repeat_interleave(4, 0).repeat_interleave(4, 1)
        image = 0.3 + 0.4 * label + 0.1 * torch.rand(bands, *label.shape, generator=g) - 0.05
        return Sample(f"image {place}", image, label)

    data = Memory([sample(k) for k in range(8)], "grey", Classes(("ground", "cell"), ((0, 0, 0), (200, 0, 0))))
    experiment = Experiment(ModelChoice("grey"), DataChoice("grey"), make_plans(["fgsm"], [("linf", 0.006)]))
    told = {}
    for given in ("none", ((0.5,) * bands, (0.5,) * bands)):
        model = sr.wrap(Before(fits, nn.Identity()), num_classes=2, bands=bands, normalisation=given)
        told[str(given)] = told_of(Run(experiment, model, data, batch_size=2))[0]
    numbers = ", ".join(["0.5"] * bands)
    assert f"--normalisation '{{mean: [{numbers}], std: [{numbers}]}}'" in told["none"]["normalisation"].advice
    assert "imagenet" not in told["none"]["normalisation"].line
    assert "order" not in told["none"]
    assert all("normalisation" not in found for given, found in told.items() if given != "none")


@pytest.mark.parametrize("what", PREPARATIONS)
def test_a_preparation_is_written_as_it_is_read(what: str):
    read, meant = as_normalisation(yaml.safe_load(written(preparations(3)[what]).strip("'"))), preparations(3)[what]
    assert read is not None
    assert (read.order, read.mean) == (meant.order, meant.mean)
    assert read.std == pytest.approx(meant.std, rel=1e-5)


@pytest.mark.parametrize(("reordered_miou", "tried", "said"), [
    (0.7, {"imagenet": (0.9, 0.98)}, False),
    (0.98, {"imagenet": (0.9, 0.98)}, False),
    (0.98, {"imagenet": (0.5, 0.6)}, True),  # which the order explains better
    (0.7, {"imagenet": (0.3, 0.98)}, True),
    (0.7, {}, True),
])  # fmt: skip
def test_an_order_of_classes_is_not_said_where_the_colours_explain_it(reordered_miou, tried, said):
    facts = prepared(reordered_miou=reordered_miou, prepared=tried)
    assert (CHECKS["order"](facts) is not None) == said


@pytest.mark.parametrize(("predicted", "says", "miou"), [
    ([6, 0, 0], "leaves out what is not predicted either", 1.0),
    ([4, 1, 1], "counts each with 0, as it is predicted", 4 / 6 / 3),
    ([5, 1, 0], "counts what is predicted with 0 (red), and leaves out the rest (green)", 5 / 6 / 2),
])  # fmt: skip
def test_it_is_told_how_classes_without_labels_enter_miou(predicted: list[int], says: str, miou: float):
    counts = Counts.of([Pixels([predicted[0], 0, 0], predicted, [6, 0, 0])])
    found = CHECKS["empty"](replace(prepared(), counts=counts, whole=True))
    assert found is not None
    assert found.text == "2 of 3 classes have no labelled pixel in the data (red, green)"
    assert says in found.advice
    assert sr.metrics.miou(counts) == pytest.approx(miou)


def test_one_class_beside_void_is_told_of_before_training_and_of_no_other_masks():
    (found,) = of_data(scenes(labels=(1,), void=0.3))
    assert (found.name, found.text.split(",")[0]) == ("one_label", "all labelled pixels are of one class (red)")
    assert "(label 255)" in found.advice
    assert of_data(scenes(labels=(1,))) == of_data(scenes(labels=(0, 1), void=0.3)) == ()
    other = replace(prepared(), seen=replace(prepared().seen, labelled=(0,), void=0.3))
    assert CHECKS["one_label"](other) is not None
    assert CHECKS["one_label"](replace(other, counts=Counts.of([Pixels([5, 0, 0], [5, 1, 0], [5, 1, 0])]))) is None


@pytest.mark.parametrize(("names", "options", "says"), [
    (["apgd", "pgd"], {}, "(dag, or --options apgd.loss=margin,pgd.loss=margin)"),
    (["cr_pgd"], {}, "(dag, or --options cr_pgd.loss=margin)"),
    (["pgd", "fgsm"], {"pgd.loss": "margin"}, "(dag, or --options fgsm.loss=margin)"),
    (["dag", "segpgd"], {}, "(dag),"),
    (["apgd", "pgd", "fgsm", "mi_fgsm"], {}, "(dag, or --options loss=margin)"),
])  # fmt: skip
def test_the_advice_for_a_saturated_network_is_one_that_the_run_takes(names, options, says):
    run = run_of(Made("", Nearest(end=lambda z: 1000 * z)))
    plans = make_plans(names, [("linf", 0.05)], options)
    with Store(":memory:") as store:
        found = CHECKS["saturated"](replace(run, experiment=replace(run.experiment, attacks=plans)).facts(store))
    assert found is not None
    assert says in found.advice
    if "--options " in says:
        given = dict(pair.split("=") for pair in says.split("--options ")[1].strip(")").split(","))
        changed = {plan.label for plan in make_plans(names, [("linf", 0.05)], options | given) if plan not in plans}
        assert changed == {plan.label for plan in plans if plan.options.get("loss", "margin") != "margin"}


def test_what_a_model_knows_of_itself_is_told_too():
    """See tests/models; as a target, a network tells it as well."""
    data, unknown = scenes(), sr.wrap(Nearest(), num_classes=3)
    for model, plan in ((unknown, "fgsm"), (Metered(unknown), "local_search")):
        experiment = Experiment(ModelChoice("nearest"), DataChoice("memory"), make_plans([plan], [("linf", 0.05)]))
        assert list(told_of(Run(experiment, model, data))[0]) == ["undeclared"]


def test_sigmoids_are_refused_before_anything_is_attacked():
    run = run_of(Made("", Nearest(end=torch.sigmoid)))
    with Store(":memory:") as store, pytest.raises(InputError, match="one sigmoid a class"):
        execute(run, store, InProcess(run.model, run.data))


def test_passes_are_counted_and_made_once():
    calls: list[int] = []
    network = Nearest()
    network.register_forward_hook(lambda *_: calls.append(1))
    run = run_of(Made("", network))
    with Store(":memory:") as store:
        seen = run.facts(store).seen
        assert (seen.forward, len(seen.images)) == (len(calls), 2)
        assert seen.backward == 4
        before = len(calls)
        again = run.facts(store)
        assert len(calls) == before
        assert findings(again) == findings(run.facts(store))


def test_a_report_has_every_warning_and_a_resumed_run_the_same():
    run = run_of(MADE[4])
    texts = []
    with Store(":memory:") as store:
        for _ in range(2):
            execute(run, store, InProcess(run.model, run.data))
            files = dict(report_attacks(run, store, {}).files)
            texts.append((files["results.json"], files["table.md"]))
    assert texts[0] == texts[1]
    report = json.loads(texts[0][0])
    (constant,) = [each for each in report["warnings"] if each["name"] == "constant"]
    assert constant["value"] == 1.0
    assert report["preflight"]["ledger"]["preflight"]["backward"] == 4
    assert f"Warning (constant): {constant['text']}: {constant['advice']}" in texts[0][1]


def test_a_longer_run_finds_what_a_whole_one_does():
    network, few, all_of_them = Nearest(end=always(1)), scenes(3), scenes(20)
    with Store(":memory:") as store, Store(":memory:") as fresh:
        for data in (few, all_of_them):
            run = run_of(Made("", network, data))
            execute(run, store, InProcess(run.model, run.data))
        execute(run, fresh, InProcess(run.model, run.data))
        assert run.facts(store).seen == run.facts(fresh).seen
        assert findings(run.facts(store)) == findings(run.facts(fresh))


ROUNDED = Before(lambda x: (x * 16).round() / 16, Nearest())


def test_images_without_a_gradient_are_named_and_those_with_nothing_left_to_turn_are_not():
    wrong = scene(1)
    samples = [scene(0), replace(wrong, label=(wrong.label + 1) % 3), scene(2)]
    plans = make_plans(["pgd", "apgd"], [("linf", 0.05)], {"steps": 3})
    experiment = Experiment(ModelChoice("rounded"), DataChoice("memory"), plans)
    run = Run(experiment, sr.wrap(ROUNDED, num_classes=3, normalisation="none"), Memory(samples, "some", THREE))
    with Store(":memory:") as store:
        execute(run, store, InProcess(run.model, run.data))
        summary = summarise(experiment, store, run.data.ids)
        files = dict(report_attacks(run, store, {}).files)
    _, pgd, apgd, _ = summary.rows
    assert pgd.sanity.zero_gradient == apgd.sanity.zero_gradient == ("image 0", "image 2")
    told = without_gradient(summary)
    assert [(each.name, each.value) for each in told] == [("zero_gradient", 2)] * 2
    assert told[0].text == "pgd (linf, ε = 0.05): zero gradient on 2 of 3 images (image 0, image 2)"
    assert told[0].line in files["table.md"]
    named = [each["text"] for each in json.loads(files["results.json"])["warnings"]]
    assert told[0].text in named


def asked(network: nn.Module, answers: str | None = None, **more: Any) -> tuple[dict[str, Finding], int]:
    """What is said of a target, and how many questions it answered."""
    target = Metered(sr.wrap(network, num_classes=3, normalisation="none"))
    target = target if answers is None else Metered(Harsh(target.target, parse_answers(answers)))
    loss = {} if answers is None else {"loss": "wrong"}
    plans = make_plans(["local_search"], [("linf", 0.05)], {"queries": 8, **loss})
    experiment = Experiment(ModelChoice("target", scores_only=True), DataChoice("memory"), plans)
    found, _ = told_of(Run(experiment, target, scenes(**more)))
    return found, target.answered


def test_a_target_is_asked_no_question_more():
    found, answered = asked(Nearest())
    assert found == {}
    assert answered == 3 * (1 + 8)
    for network, name in ((Nearest(end=always(2)), "constant"), (Nearest(end=lambda z: 1000 * z), "saturated")):
        found, again = asked(network)
        assert name in found
        assert again <= answered
    assert "void" in asked(Nearest(), void=0.7)[0]
    assert asked(Nearest(), "labels")[0] == {}  # which are sure by what they are


def test_images_that_cannot_be_used_are_left_to_the_run():
    bad = Sample("image 1", torch.full((3, 16, 24), math.nan), scene(1).label)
    found, _ = told_of(run_of(Made("", data=Memory([scene(0), bad, None, scene(3)], "some", THREE))))
    assert found == {}


class Fails(Nearest):
    def forward(self, x: Tensor) -> Tensor:
        if x.shape[-1] == 24:
            raise RuntimeError("no such size")
        return super().forward(x)


def test_a_network_that_fails_is_left_to_the_run():
    run = run_of(Made("", Fails()))
    with Store(":memory:") as store:
        seen = run.facts(store).seen
    assert math.isnan(seen.sure)
    assert len(seen.images) == 2


def test_what_is_to_be_learnt_is_looked_at_without_a_network():
    assert of_data(scenes()) == ()
    assert [found.name for found in of_data(scenes(void=0.7), ("l2", 8 / 255))] == ["eps", "void"]


def test_python_is_told_as_the_command_line_is(capsys: pytest.CaptureFixture[str]):
    pairs = [(sample.image, sample.label) for sample in scenes().samples]
    found = sr.evaluate(sr.wrap(Nearest(end=always(1)), num_classes=3), pairs, "fgsm", eps="linf=0.05", quiet=True)
    assert "constant" in {each.name for each in found.warnings}
    assert "Warning (constant): " in str(found)
    assert capsys.readouterr().err == ""


def test_state_that_a_look_changed_is_put_back_and_named():
    for network, name in ((Counting(), "buffer 'seen'"), (Waking(), "training mode of 'conv'")):
        network.eval()
        found, _ = told_of(run_of(Made("state", network)))
        assert name in found["state"].text
    made = Made("state", Counting())
    with Store(":memory:") as store:
        run_of(made).facts(store)
    assert float(made.network.seen) == 0
