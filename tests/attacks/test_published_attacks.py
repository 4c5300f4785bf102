"""Published attacks against a few float64 lines of what their papers and code do; `-s` prints how near they are."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

import segradius as sr
from segradius.attacks.presets import differences, preset_options
from tiny import CLASSES, VOID, batch, network

STEPS, SEED = 5, 3
EPS = {"linf": 0.06, "l2": 0.6}
ALPHA = {"linf": 0.02, "l2": 0.25}
Weigh = Callable[[Tensor, Tensor, int, bool], Tensor]


def agrees(what: str, found: Tensor, expected: Tensor) -> bool:
    worst, largest = float((found - expected).abs().max()), float(expected.abs().max())
    print(f"\n{what}: largest difference of δ after {STEPS} steps {worst:.1e}, |δ| up to {largest:.2g}")
    return worst < 1e-9 < largest


def public(norm: str, weigh: Weigh, start: Tensor, target: Tensor | None = None) -> Tensor:
    """The loop of the CosPGD authors' code: weights detached, α·sign or α·g/‖g‖, scaled into the ball, then the box."""
    images, labels = batch()
    aim = labels if target is None else target
    net, at = network().eval(), (images + start).clamp(0, 1)
    for t in range(STEPS):
        at = at.clone().requires_grad_()
        logits = net(at)
        loss = F.cross_entropy(logits, aim, ignore_index=VOID, reduction="none")
        weights = weigh(logits.detach(), aim, t, target is not None)
        (g,) = torch.autograd.grad((weights * loss).sum() / loss[0].numel(), at)
        g = g if target is None else -g
        if norm == "linf":
            delta = (at.detach() + ALPHA[norm] * g.sign() - images).clamp(-EPS[norm], EPS[norm])
        else:
            delta = at.detach() + ALPHA[norm] * g / g.flatten(1).norm(dim=1).view(-1, 1, 1, 1) - images
            delta = delta / (delta.flatten(1).norm(dim=1) / EPS[norm]).clamp_min(1).view(-1, 1, 1, 1)
        at = (images + delta).clamp(0, 1)
    return at - images


def segpgd(logits: Tensor, aim: Tensor, t: int, targeted: bool) -> Tensor:
    share = torch.tensor(t / (2 * STEPS), dtype=logits.dtype)
    there = logits.argmax(1) == aim
    return torch.where(there, share, 1 - share) if targeted else torch.where(there, 1 - share, share)


def cospgd(logits: Tensor, aim: Tensor, t: int, targeted: bool) -> Tensor:
    one_hot = F.one_hot(aim.clamp(max=CLASSES - 1), CLASSES).permute(0, 3, 1, 2)
    cosine = F.cosine_similarity(logits.softmax(1), one_hot.to(logits.dtype), dim=1)
    return 1 - cosine if targeted else cosine


@pytest.mark.parametrize("targeted", [False, True])
@pytest.mark.parametrize("norm", sorted(EPS))
@pytest.mark.parametrize("weigh", [segpgd, cospgd])
def test_segpgd_and_cospgd_as_published(weigh: Weigh, norm: str, targeted: bool) -> None:
    images, labels = batch()
    target = torch.where(labels == VOID, labels, (labels + 1) % CLASSES) if targeted else None
    options = preset_options("published", weigh.__name__, norm) | {"steps": STEPS, "alpha": ALPHA[norm]}
    attack = sr.make_attack(weigh.__name__, norm=norm, eps=EPS[norm], **options)
    found = attack(sr.wrap(network(), num_classes=CLASSES), images, labels, target=target, seed=SEED)
    ids = tuple(str(i) for i in range(len(images)))
    start = sr.make_threat(norm, EPS[norm], "radial").start(images, sr.Randomness(SEED, ids))
    expected = public(norm, weigh, start, target)
    assert agrees(f"{weigh.__name__} {norm}{', targeted' if targeted else ''}", found.delta, expected)


def region_loss(loss: Tensor, wrong: list[Tensor], counted: Tensor) -> Tensor:
    """RP-PGD's L_R of one image, its pixels one by one; i from 1."""
    i, total = len(wrong), 0.0
    for row, column in counted.nonzero().tolist():
        before = [bool(each[row, column]) for each in wrong]
        share = 1 if before[0] else i - 1 if any(before) else 2 * STEPS - i
        total = total + share / (2 * STEPS) * loss[row, column]
    return total / counted.sum()


def prototype_loss(features: Tensor, labels: Tensor, wrong: list[Tensor], counted: Tensor) -> Tensor:
    """RP-PGD's L_P of one image: mean cosine over pairs of classes of the mean features of T."""
    true = counted & ~torch.stack(wrong).any(0)
    means = [features[:, true & (labels == c)].mean(1) for c in labels[true].unique().tolist()]
    pairs = [F.cosine_similarity(one, other, dim=0) for one, other in itertools.combinations(means, 2)]
    return torch.stack(pairs).mean() if pairs else features.sum() * 0


@pytest.mark.parametrize("prototype", [0.0, 0.25])
def test_rp_pgd_is_its_papers_formulas(prototype: float) -> None:
    images, labels = batch(count=2)
    net, deltas = network().eval(), []
    start = sr.make_threat("linf", 0.06).start(images, sr.Randomness(SEED, ("0", "1")))
    for image, label, first in zip(images, labels, start, strict=True):
        at, wrong, counted = (image + first).clamp(0, 1), [], label != VOID
        for _ in range(STEPS):
            at = at.clone().requires_grad_()
            features = net[0](at[None])
            logits = net[1:](features)
            wrong.append((logits[0].argmax(0) != label) & counted)
            loss = F.cross_entropy(logits, label[None], ignore_index=VOID, reduction="none")[0]
            together = (1 - prototype) * region_loss(loss, wrong, counted)
            together = together + prototype * prototype_loss(features[0], label, wrong, counted)
            (g,) = torch.autograd.grad(together, at)
            at = (image + (at.detach() + 0.02 * g.sign() - image).clamp(-0.06, 0.06)).clamp(0, 1)
        deltas.append(at - image)
    layer = {"layer": "0"} if prototype else {}
    attack = sr.attacks.rp_pgd(norm="linf", eps=0.06, steps=STEPS, keep="last", prototype=prototype, **layer)
    found = attack(sr.wrap(net, num_classes=CLASSES), images, labels, seed=SEED)  # α is 0.06 / 3
    assert agrees(f"rp_pgd, prototype={prototype}", found.delta, torch.stack(deltas))


def test_the_prototypes_of_rp_pgd_change_it_and_can_have_no_aim() -> None:
    images, labels = batch(count=2)
    model = sr.wrap(network(), num_classes=CLASSES)
    one, other = (
        sr.attacks.rp_pgd(norm="linf", eps=0.06, steps=STEPS, keep="last", prototype=share)(model, images, labels)
        for share in (0.25, 0.0)
    )
    assert (one.delta - other.delta).abs().max() > 0.01
    with pytest.raises(sr.InputError, match="can have no aim"):
        sr.attacks.rp_pgd(norm="linf", eps=0.06)(model, images, labels, target=labels)
    with pytest.raises(sr.InputError, match="layer is 'layer4', which does nothing in rp_pgd"):
        sr.attacks.rp_pgd(prototype=0.0, layer="layer4")


def test_eroseg_is_its_papers_formulas() -> None:
    images, labels = batch()
    net, at, counted = network().eval(), images.clone(), labels != VOID
    for t in range(STEPS):
        at = at.clone().requires_grad_()
        logits = net(at)
        loss = F.cross_entropy(logits, labels, ignore_index=VOID, reduction="none")
        sure, top = logits.detach().softmax(1).max(1)
        active = (top == labels) & counted & (sure < 1 - 0.2 * math.exp(-0.8 * t))
        weights = torch.where(labels == 0, 0.3, 0.7) * active
        (g,) = torch.autograd.grad((weights * loss).mean(), at)
        at = (images + (at.detach() + 0.01 * g.sign() - images).clamp(-0.03, 0.03)).clamp(0, 1)
    attack = sr.attacks.eroseg(norm="linf", eps=0.03, alpha=0.01, steps=STEPS, keep="last", background=0)
    found = attack(sr.wrap(net, num_classes=CLASSES), images, labels)
    assert agrees("eroseg", found.delta, at - images)


@pytest.mark.parametrize(("grey", "alpha"), [(0.25, 8e-4), (1, 1e-3), (8, 5e-3), (12, 6e-3), (16, 8e-3)])
def test_the_tuned_steps_are_those_of_seas_table(grey: float, alpha: float) -> None:
    for name in ("segpgd", "cr_cospgd"):
        assert preset_options("published-tuned", name, "linf", grey / 255) == {"steps": 300, "alpha": alpha}
    assert preset_options("published-tuned", "segpgd", "l2", 1.0) == {}


def test_what_the_published_runs_set_is_told() -> None:
    assert differences("published", "cospgd", "linf") == [
        "keep last (best)", "start uniform (its own)", "projection radial (euclidean)", "steps 20 (its own)",
        "alpha 0.01 (its own)",
    ]  # fmt: skip
    assert differences("published", "rp_pgd", "linf") == [
        "keep last (best)",
        "steps 100 (its own)",
        "alpha 0.01 (its own)",
    ]
    assert differences("published", "sea", "linf") == []
    (plan,) = sr.evaluation.make_plans(["cospgd"], [("linf", 4 / 255)], {"keep": "best"}, "published-tuned")
    assert (plan.options["alpha"], plan.options["steps"], plan.options["keep"]) == (3e-3, 300, "best")
