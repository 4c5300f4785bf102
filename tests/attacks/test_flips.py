"""`flips` against a transcription that shares no line with it."""

from __future__ import annotations

import pytest
import torch

import segradius as sr
from segradius.threats.projections import project_l1
from tiny import CLASSES, VOID, batch, network


@pytest.mark.parametrize(("norm", "eps"), [("l2", 0.4), ("linf", 0.02), ("l1", 8.0)])
def test_flips_is_momentum_on_the_smooth_count_of_flips(norm: str, eps: float) -> None:
    images, labels = batch()
    images, counted, steps = 0.3 + 0.4 * images, labels != VOID, 6
    tau, end, fooled, decay, few = 1.5, 0.2, 0.3, 0.6, 0.04
    model = sr.wrap(network(), num_classes=CLASSES)
    at = labels.masked_fill(~counted, 0).unsqueeze(1)
    delta, momentum = torch.zeros_like(images), torch.zeros_like(images)
    for t in range(steps):
        free = delta.clone().requires_grad_()
        p = model.logits(images + free).softmax(1)
        own, rival = p.gather(1, at).squeeze(1), p.scatter(1, at, 0).amax(1)
        radius = 0.5 * (torch.special.ndtri(own) - torch.special.ndtri(rival))
        weight = torch.where(rival > own, fooled, 1.0) * counted
        scale = ((radius.abs() * counted).sum((1, 2)) / counted.sum((1, 2))).detach().view(-1, 1, 1)
        (weight * torch.special.ndtr(-radius / (scale * (tau + (end - tau) * t / steps)))).sum().backward()
        gradient = free.grad
        assert gradient is not None
        momentum = decay * momentum + gradient / gradient.abs().sum((1, 2, 3), keepdim=True)
        alpha = eps * {"l1": 1, "l2": 2, "linf": 2}[norm] * (1 - t / steps)
        if norm == "l2":
            delta = delta + alpha * momentum / momentum.square().sum((1, 2, 3), keepdim=True).sqrt()
            delta = delta * (eps / delta.square().sum((1, 2, 3), keepdim=True).sqrt()).clamp(max=1)
        elif norm == "linf":
            delta = (delta + alpha * momentum.sign()).clamp(-eps, eps)
        else:
            values = round(few * 3 ** (-t / steps) * momentum[0].numel())
            for one, m in zip(delta, momentum, strict=True):
                most = m.abs().flatten().topk(values).indices
                one.view(-1)[most] += alpha / values * m.flatten()[most].sign()
            delta = project_l1(delta, images, torch.full((len(images),), eps, dtype=images.dtype))
    options = {"tau": tau, "tau_end": end, "fooled": fooled, "decay": decay} | ({"sparse": few} if norm == "l1" else {})
    attack = sr.make_attack("flips", norm=norm, eps=eps, steps=steps, keep="last", **options)
    torch.testing.assert_close(attack(model, images, labels).delta, delta, rtol=0, atol=1e-8)


def test_auto_is_flips_and_two_that_are_unlike_it() -> None:
    images, labels = batch()
    model, threat = sr.wrap(network(), num_classes=CLASSES), {"norm": "l2", "eps": 0.4, "steps": 4}
    found = sr.make_attack("auto", **threat)(model, images, labels)
    alone = sr.make_attack("flips", **threat)(model, images, labels)
    assert torch.equal(found.members["flips"].delta, alone.delta)
    assert torch.equal(found.fooled, torch.stack([each.fooled for each in found.members.values()]).amax(0))
    assert found.ledger.by_purpose()["attack"] == {"forward": 48, "backward": 48}


def test_the_sigmoid_of_the_margin_does_not_see_what_logits_are_multiplied_by() -> None:
    generator = torch.Generator().manual_seed(0)
    logits, labels = torch.randn(2, 4, 3, 3, generator=generator), torch.randint(4, (2, 3, 3), generator=generator)
    loss = sr.objectives.ScaledSigmoid()
    torch.testing.assert_close(loss(7 * logits, labels), loss(logits, labels))


def test_what_the_logits_are_multiplied_by_hardly_matters_near_the_boundary() -> None:
    loss, labels = sr.objectives.ScaledFlips(tau=1.0), torch.zeros(1, 1, 5, dtype=torch.long)
    logits = torch.stack([torch.linspace(-0.1, 0.1, 5), torch.zeros(5)]).view(1, 2, 1, 5).double()
    torch.testing.assert_close(loss(3 * logits, labels), loss(logits, labels), rtol=0, atol=1e-3)
