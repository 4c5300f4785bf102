"""Kinds of networks as people have them × what is done with them: it works, or one line says which option does it."""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional

import segradius as sr
from segradius.certification import Noise, Sampling, SegCertify, vote
from segradius.core.errors import InputError
from segradius.core.label_sets import to_sets
from segradius.core.prediction import predict
from segradius.core.randomness import Randomness
from segradius.models import fingerprint
from segradius.models.decoding import Decoding
from segradius.training.learner import Learner
from segradius.training.loss import SegmentationLoss

IMAGES = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))


class Net(nn.Module):
    """Channels of a small convolution, and what is done to them and to the images."""

    def __init__(
        self, channels: int = 3, end: Callable[..., Any] = lambda z: z, before: Callable[[Tensor], Tensor] = lambda x: x
    ) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.conv, self.end, self.before = nn.Conv2d(3, channels, 3, padding=1), end, before
        with torch.no_grad():
            self.conv.weight.mul_(6)

    def forward(self, x: Tensor) -> Any:
        return self.end(self.conv(self.before(x)))


Pair = namedtuple("Pair", ["boundary", "segmentation"])


@dataclass
class Answer:
    features: Tensor
    mask: Tensor
    name: str = "net"


def pooled(z: Tensor) -> tuple[Tensor, Tensor]:
    """A head of other channels beside the main one."""
    return z, torch.cat([z, z, z], 1)


def masked(z: Tensor) -> Tensor:
    """Class 1 cannot be."""
    return z.masked_fill((torch.arange(z.shape[1]) == 1).view(1, -1, 1, 1), -torch.inf)


def sharp(z: Tensor) -> Tensor:
    return (4 * z).sigmoid()


def in_place(x: Tensor) -> Tensor:
    return x.mul_(2).sub_(1)


def forgetful(x: Tensor) -> Tensor:
    torch.set_grad_enabled(False)
    return x


def in_bfloat16(z: Tensor) -> Tensor:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        return torch.einsum("ij,njhw->nihw", torch.eye(z.shape[1]), z)


def unrecorded(end: Callable[[], Any]) -> Callable[[Tensor], Tensor]:
    def after(z: Tensor) -> Tensor:
        with end():
            return 1 * z

    return after


@dataclass(frozen=True)
class Kind:
    """A network, how it is wrapped, and what must be said where something is refused: of all, or of white boxes."""

    name: str
    make: Callable[[], nn.Module]
    options: dict[str, Any] = field(default_factory=dict)
    classes: int = 3
    refused: str = ""
    blind: str = ""


NO_GRADIENT = "have no gradient: it computes under no_grad"
KINDS = [
    Kind("logits", Net),
    Kind("one logit", lambda: Net(1), {"outputs": "binary_logit"}, 2),
    Kind("one sigmoid", lambda: Net(1, torch.sigmoid), {"outputs": "sigmoid"}, 2),
    Kind("one sigmoid without its channel", lambda: Net(1, lambda z: z.sigmoid()[:, 0]), {"outputs": "sigmoid"}, 2),
    Kind("one sigmoid, at 0.3", lambda: Net(1, torch.sigmoid), {"outputs": "sigmoid", "threshold": 0.3}, 2),
    Kind("one sigmoid of three", lambda: Net(3, torch.sigmoid), {"outputs": "sigmoid", "channels": [2]}, 2),
    Kind("three sigmoids", lambda: Net(3, torch.sigmoid), {"outputs": "multilabel"}, 8),
    Kind("three yes/no logits", Net, {"outputs": "multilabel_logits"}, 8),
    Kind("two of three", Net, {"outputs": "multilabel_logits", "channels": [2, 0]}, 4),
    Kind("classes that cannot be", lambda: Net(3, masked), {"outputs": "masked_logits"}),
    Kind("main output second", lambda: Net(3, lambda z: (z.mean(1, True), z)), {"output": 1}),
    Kind("main output by its channels", lambda: Net(3, pooled), {"num_classes": 3}),
    Kind("named tuple", lambda: Net(3, lambda z: Pair(z[:, :1], z)), {"output": "segmentation"}),
    Kind("dataclass", lambda: Net(3, lambda z: Answer(z[:, :1], z)), {"output": "mask"}),
    Kind("mapping in a list", lambda: Net(3, lambda z: [{"a": z[:, :1], "b": z}]), {"output": "0.b"}),
    Kind("one entry that can be", lambda: Net(3, lambda z: (z, z.mean((2, 3)), z.argmax(1)))),
    Kind("input changed in place", lambda: Net(before=in_place)),
    Kind("gradients switched off for good", lambda: Net(before=forgetful), blind=NO_GRADIENT),
    Kind("no_grad inside", lambda: Net(3, unrecorded(torch.no_grad)), blind=NO_GRADIENT),
    Kind("inference_mode inside", lambda: Net(3, unrecorded(torch.inference_mode)), blind=NO_GRADIENT),
    Kind("left torch", lambda: Net(3, lambda z: torch.from_numpy(z.detach().numpy())), blind=NO_GRADIENT),
    Kind("autocast inside", lambda: Net(3, in_bfloat16)),
    Kind("float16 output", lambda: Net(3, Tensor.half)),
    Kind("float64 output", lambda: Net(3, Tensor.double)),
    Kind("smaller output", lambda: Net(3, lambda z: functional.avg_pool2d(z, 2))),
    # Refused, with the way out.
    Kind("one logit, unsaid", lambda: Net(1, lambda z: 9 * z + 5), refused="give outputs=binary_logit"),
    Kind("one sigmoid, unsaid", lambda: Net(1, torch.sigmoid), refused=r"give outputs=sigmoid"),
    Kind("one logit without its channel", lambda: Net(1, lambda z: 9 * z[:, 0] + 5), refused="outputs=binary_logit"),
    Kind("labels", lambda: Net(3, lambda z: z.argmax(1).float()), {"num_classes": 3}, refused="as labels are"),
    Kind("three channels as one", Net, {"outputs": "binary_logit"}, refused=r"has 3: channels=\[k\].*multilabel"),
    Kind("nine yes/no channels", lambda: Net(9), {"outputs": "multilabel_logits"}, refused="1 to 8 channels"),
    Kind("classes of another number", Net, {"outputs": "multilabel", "num_classes": 3}, refused="a power of two"),
    Kind("logits as a sigmoid", lambda: Net(1), {"outputs": "sigmoid"}, refused="give outputs=binary_logit"),
    Kind("logits as sigmoids", Net, {"outputs": "multilabel"}, refused="give outputs=multilabel_logits"),
    Kind("a sigmoid as a logit", lambda: Net(1, sharp), {"outputs": "binary_logit"}, refused="give outputs=sigmoid"),
    Kind("sigmoids as logits", lambda: Net(3, sharp), {"outputs": "multilabel_logits"}, refused="outputs=multilabel"),
    Kind("−inf, unsaid", lambda: Net(3, masked), refused="give outputs=masked_logits"),
    Kind("−inf in a yes/no", lambda: Net(3, masked), {"outputs": "multilabel_logits"}, refused="clamp them"),
    Kind("two that could be", lambda: Net(3, lambda z: (z, z)), refused=r"0 \(1, 3, 128, 128\), 1 .*output= "),
    Kind("an entry that is not there", lambda: Net(3, lambda z: (z, z)), {"output": 2}, refused="'2' names no entry"),
    Kind("an entry of one tensor", Net, {"output": "out"}, refused="returns one tensor; leave output out"),
    Kind("an auxiliary head alone", lambda: Net(3, lambda z: {"aux": z}), refused="a dict with 'aux'"),
    Kind("channels that are not there", Net, {"outputs": "multilabel_logits", "channels": [3]}, refused="from 0"),
    Kind("classes last", lambda: Net(3, lambda z: z.movedim(1, 3)), refused="with the classes last"),
    Kind("another device", lambda: Net(3, lambda z: z.to("meta")), refused="Cannot copy out of meta"),
]
WORKING = [pytest.param(kind, id=kind.name) for kind in KINDS if not kind.refused]
REFUSED = [pytest.param(kind, id=kind.name) for kind in KINDS if kind.refused]


def wrapped(kind: Kind) -> sr.models.Segmenter:
    model = sr.wrap(kind.make(), **kind.options)
    model.check(IMAGES)
    return model


def labels_of(model: sr.models.Segmenter) -> Tensor:
    return model.scores(IMAGES).argmax(1)


@pytest.mark.parametrize("kind", REFUSED)
def test_refused_with_the_way_out_before_anything_is_asked(kind: Kind):
    with pytest.raises(InputError, match=kind.refused) as raised:
        wrapped(kind)
    assert "\n" not in str(raised.value)
    assert torch.is_grad_enabled()


@pytest.mark.parametrize("attack", ["pgd", "square"])
@pytest.mark.parametrize("kind", WORKING)
def test_attacked(kind: Kind, attack: str):
    model, images = wrapped(kind), IMAGES.clone()
    assert (model.num_classes, model.structures) == (kind.classes, {2: 1, 3: 0, 4: 2, 8: 3}[kind.classes])
    more = {"steps": 3} if attack == "pgd" else {"queries": 40}
    made = sr.make_attack(attack, norm="linf", eps=0.2, **more)
    if kind.blind and attack == "pgd":
        with pytest.raises(InputError, match=kind.blind):
            made(model, images, labels_of(model))
    else:
        found = made(model, images, labels_of(model))
        assert found.delta.abs().amax() <= 0.2 + 1e-6
        assert found.fooled.any()
    assert torch.equal(images, IMAGES)
    assert torch.is_grad_enabled()


@pytest.mark.parametrize("kind", WORKING)
def test_certified(kind: Kind):
    model = wrapped(kind)
    sampling = Sampling(Noise(0.1), 4, 20)
    found = SegCertify()(vote(model.logits, IMAGES[0], kind.classes, sampling, Randomness(0, ("a",))))
    assert found.guess.shape == (8, 8)
    assert int(found.guess.max()) < kind.classes
    leaner = SegCertify()(vote(model.top_class, IMAGES[0], kind.classes, sampling, Randomness(0, ("a",))))
    assert torch.equal(leaner.prediction, found.prediction)
    pairs = zip(model.top_class(IMAGES), predict(model.logits(IMAGES)), strict=True)
    assert all(torch.equal(one, other) for one, other in pairs)


@pytest.mark.parametrize("kind", WORKING)
def test_trained(kind: Kind):
    network = kind.make()
    learner, images = Learner(sr.wrap(network, **kind.options)), IMAGES.clone()
    labels = labels_of(learner.model)
    if kind.blind:
        with pytest.raises(InputError, match="no gradient reaches its parameters"):
            learner(images)
        assert torch.is_grad_enabled()
        return
    SegmentationLoss()(learner(images), labels).backward()
    assert torch.equal(images, IMAGES)
    assert network.conv.weight.grad.abs().sum() > 0


# -- what the numbers are --


def sum_of_binary_losses(z: Tensor, masks: Tensor) -> Tensor:
    """Binary cross-entropies of every pixel and channel, in a plain loop."""
    total = torch.zeros((), dtype=z.dtype)
    for n in range(z.shape[0]):
        for k in range(z.shape[1]):
            for i in range(z.shape[2]):
                for j in range(z.shape[3]):
                    p = 1 / (1 + torch.exp(-z[n, k, i, j]))
                    total = total - torch.log(p if masks[n, k, i, j] else 1 - p)
    return total


@pytest.mark.parametrize("end", [lambda z: z, torch.sigmoid], ids=["logits", "probabilities"])
@pytest.mark.parametrize("channels", [1, 3])
def test_cross_entropy_over_the_sets_and_its_gradient_are_those_of_the_binary_ones(channels: int, end: Any):
    network = Net(channels, end).double()
    kinds = ("binary_logit", "sigmoid") if channels == 1 else ("multilabel_logits", "multilabel")
    model = sr.wrap(network, outputs=kinds[end is torch.sigmoid])
    x = IMAGES[:, :, :4, :4].double().clone().requires_grad_()
    masks = torch.rand(2, channels, 4, 4, generator=torch.Generator().manual_seed(3)) < 0.4
    found = functional.cross_entropy(model.logits(x), to_sets(masks), reduction="sum")
    expected = sum_of_binary_losses(network.conv(x), masks)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(*(torch.autograd.grad(each, x)[0] for each in (found, expected)))


def test_an_attack_on_one_logit_is_that_on_two_classes_made_by_hand_to_the_bit():
    two = sr.wrap(Net(1, lambda z: torch.cat([torch.zeros_like(z), z], 1)))
    one = sr.wrap(Net(1), outputs="binary_logit")
    labels = two.logits(IMAGES).argmax(1)
    for attack in ("pgd", "cr_pgd", "apgd"):
        found = [sr.make_attack(attack, norm="linf", eps=0.05, steps=5)(m, IMAGES, labels) for m in (one, two)]
        assert torch.equal(found[0].delta, found[1].delta)
        assert found[0].fooled.any()


@given(st.lists(st.floats(0, 1, width=32), min_size=1, max_size=30), st.floats(1e-3, 0.999))
@settings(deadline=None)
def test_yes_is_where_the_probability_is_above_the_threshold(values: list[float], threshold: float):
    p = torch.tensor([*values, threshold])
    z = Decoding("sigmoid", threshold)(p.view(1, 1, 1, -1))
    assert z.isfinite().all()
    assert z[0, :, 0, -1].argmax() == 0  # at the threshold itself the answer is no
    off = (p - threshold).abs() > 1e-6 * threshold
    assert torch.equal((z.argmax(1).flatten() == 1)[off], (p > threshold)[off])


def test_a_saturated_sigmoid_is_finite_and_told_and_its_pixel_has_no_gradient():
    z = torch.tensor([-200.0, 0.5, 200.0]).view(1, 1, 1, 3).requires_grad_()
    decode = Decoding("sigmoid")
    logits = decode(z.sigmoid())
    assert logits.isfinite().all()
    assert decode.saturated(logits).flatten().tolist() == [True, False, True]
    (gradient,) = torch.autograd.grad(logits.sum(), z)
    assert gradient.flatten().tolist() == [0, pytest.approx(1), 0]
    assert not Decoding("binary_logit").saturated(logits).any()


def test_a_class_that_cannot_be_has_no_probability_and_no_gradient():
    z = torch.randn(1, 3, 2, 2, requires_grad=True)
    decoded = Decoding("masked_logits")(masked(z))
    assert decoded.isfinite().all()
    torch.testing.assert_close(decoded.softmax(1)[:, [0, 2]], z[:, [0, 2]].softmax(1))
    assert not decoded.softmax(1)[:, 1].any()
    assert not torch.autograd.grad(functional.cross_entropy(decoded, torch.ones(1, 2, 2).long()), z)[0][:, 1].any()


def test_what_changes_numbers_is_in_the_fingerprint():
    network = Net()
    ways = [{"outputs": "multilabel_logits"}, {"outputs": "multilabel_logits", "threshold": 0.4}, {"channels": [1, 0]}]
    ways += [{"outputs": "multilabel_logits", "channels": [1]}, {"outputs": "multilabel_logits", "channels": [1, 2]}]
    marks = [fingerprint(sr.wrap(network)), *(fingerprint(sr.wrap(network, **way)) for way in ways)]
    assert len(set(marks)) == len(marks)
    assert fingerprint(sr.wrap(network, outputs="logits")) == marks[0]


def test_a_wrapped_network_is_wrapped_again_changed_in_what_is_given():
    model = sr.wrap(Net(), outputs="multilabel_logits", channels=[0, 2])
    again = sr.wrap(model, threshold=0.3)
    assert again.decode == Decoding("multilabel_logits", 0.3, (0, 2))
    assert (again.num_classes, again.structures) == (4, 2)
    assert sr.wrap(model, channels=1).num_classes == 2
    assert sr.models.tiled(again, crop=(8, 8)).structures == 2


def test_heads_of_a_training_are_decoded_alike_and_the_main_one_is_the_named():
    class Heads(Net):
        def forward(self, x: Tensor) -> Any:
            z = self.conv(x)
            return {"out": z, "aux": -z} if self.training else z

    learner = Learner(sr.wrap(Heads(1), outputs="binary_logit")).train()
    found = learner(IMAGES)
    assert torch.equal(found["aux"], Decoding("binary_logit").of(-learner.network.conv(IMAGES)))
    pairs = Learner(sr.wrap(Net(3, lambda z: (z, -z)), output=1))
    assert torch.equal(pairs(IMAGES)["out"], -pairs.network.conv(IMAGES))
    single = Learner(sr.wrap(Net(), output=0))  # one tensor is the first entry
    assert torch.equal(single(IMAGES)["out"], single.network.conv(IMAGES))


def test_a_batch_norm_that_sees_one_value_is_named_with_the_batch():
    pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3))
    network = nn.Sequential(nn.Conv2d(3, 3, 1), pool, nn.Upsample((8, 8)))
    learner = Learner(sr.wrap(network)).train()
    assert learner(IMAGES)["out"].shape == (2, 3, 8, 8)
    with pytest.raises(InputError, match=r"batch norm '1\.2' of model 'Sequential' .* of 1 image: give --batch-size"):
        learner(IMAGES[:1])


def test_looking_at_a_network_leaves_its_buffers_as_they_were():
    network = nn.Sequential(Net(), nn.BatchNorm2d(3, track_running_stats=True))
    network[1].eval = network[1].train = lambda *_: network[1]

    class Stubborn(nn.BatchNorm2d):
        def forward(self, x: Tensor) -> Tensor:
            return functional.batch_norm(x, self.running_mean, self.running_var, training=True)

    network[1] = Stubborn(3)
    model = sr.wrap(network)
    model.check(IMAGES)
    assert network[1].running_mean.tolist() == [0, 0, 0]
    assert network[1].running_var.tolist() == [1, 1, 1]


def test_the_card_of_a_training_says_what_the_outputs_are(tmp_path):
    from segradius.models.cards import entries_of, read_card

    model = sr.wrap(Net(), outputs="multilabel_logits", threshold=0.4, channels=[2, 0], normalisation="imagenet")
    entries = entries_of(model)
    told = {"outputs": "multilabel_logits", "threshold": 0.4, "channels": [2, 0]}
    assert entries == {"normalisation": "imagenet", **told}
    (tmp_path / "a.yaml").write_text("model: demo\noutputs: multilabel_logits\nchannels: 0,2\noutput: 1\n")
    card = read_card(tmp_path / "a.yaml")
    assert (card.channels, card.output) == ((0, 2), 1)
    (tmp_path / "b.yaml").write_text("model: demo\noutputs: logits\nthreshold: 0.4\n")
    with pytest.raises(InputError, match=r"b\.yaml: threshold 0\.4 is for yes/no channels"):
        read_card(tmp_path / "b.yaml")
    (tmp_path / "c.yaml").write_text("model: demo\noutputs: multilabel_logits\nchannels: [0, 2]\nclasses: [a, b]\n")
    assert sr.load_model(str(tmp_path / "c.yaml")).structures == 2


def test_logits_that_are_the_images_share_nothing_with_them():
    model, images = sr.wrap(lambda x: x.mul_(2), num_classes=3), IMAGES.clone()
    model.logits(images).zero_()
    assert torch.equal(images, IMAGES)


def test_a_training_learns_the_probability_and_not_where_a_yes_begins():
    learners = [Learner(sr.wrap(Net(1), outputs="binary_logit", threshold=t)) for t in (0.2, 0.5)]
    assert torch.equal(*(learner(IMAGES)["out"] for learner in learners))
    assert not torch.equal(*(learner.model.logits(IMAGES) for learner in learners))


def test_the_command_line_says_the_same_in_what_it_runs():
    from segradius.cli.options import ModelOptions, NetworkOptions
    from segradius.evaluation.job import DataChoice, described

    said = NetworkOptions(outputs="multilabel_logits", threshold=0.3, channels="2,0,1", output=0, normalisation="none")
    data = sr.open_data("scenes:24x32", limit=1)
    network, choice = ModelOptions(model="demo", network=said).open(data, "cpu", 0)
    assert network.decode == Decoding("multilabel_logits", 0.3, (2, 0, 1), "0")
    told = described(choice, DataChoice("d"))["model"]
    assert (told["threshold"], told["channels"], told["output"]) == (0.3, [2, 0, 1], "0")
    _, plain = ModelOptions(model="demo").open(data, "cpu", 0)
    assert not {"threshold", "channels", "output"} & described(plain, DataChoice("d"))["model"].keys()
