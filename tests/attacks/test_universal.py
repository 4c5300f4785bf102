"""Universal perturbations: the fit is a step on the mean gradient, what is judged is what is in the file."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import repeat
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F  # noqa: N812

import segradius as sr
from segradius.attacks import make_attack
from segradius.attacks.base import Task
from segradius.attacks.universal import Perturbation, Universal
from segradius.cli import main
from segradius.core.errors import InputError
from segradius.core.randomness import Randomness
from segradius.evaluation.attack import AttackPlan
from segradius.evaluation.universal import fit_universal
from segradius.objectives.goal import Goal
from tiny import CLASSES, VOID, batch, network

EPS = 0.05


def fitted(images: torch.Tensor, labels: torch.Tensor, square: Any = None, **options: Any) -> Perturbation:
    given: dict[str, Any] = {"norm": "linf", "eps": EPS, "steps": 1, **options}
    method = make_attack("universal", **given).method
    assert isinstance(method, Universal)
    model = sr.wrap(network(), num_classes=CLASSES)
    keys = Randomness(0, tuple(map(str, range(len(images)))))
    with model.frozen():
        return method.fit(repeat(Task(model, images, Goal.leave(labels, ignore_index=VOID), keys)), square)[0]


def judged(path: Path, images: torch.Tensor, labels: torch.Tensor, eps: Any = EPS) -> sr.attacks.Result:
    attack = make_attack("universal", norm="linf", eps=eps, delta=str(path))
    return attack(sr.wrap(network(), num_classes=CLASSES), images, labels)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_one_step_is_along_the_sum_of_the_gradients_of_all_images(norm: str) -> None:
    """In l∞ ε·sign(Σ g), in l2 ε·Σ g/‖Σ g‖: by hand, each image's loss a mean over its labelled pixels."""
    images, labels = batch()
    images = 0.2 + 0.6 * images
    net, total = network().eval(), torch.zeros_like(images[0])
    for image, label in zip(images, labels, strict=True):
        x = image[None].clone().requires_grad_()
        loss = F.cross_entropy(net(x), label[None].masked_fill(label == VOID, -100))
        total += torch.autograd.grad(loss, x)[0][0]
    step = total.sign() if norm == "linf" else total / total.norm()
    found = fitted(images, labels, norm=norm, alpha=EPS)
    torch.testing.assert_close(found.delta.double(), EPS * step, rtol=1e-5, atol=1e-7)


def test_an_image_has_no_say_where_a_change_would_leave_its_box() -> None:
    images, labels = batch(count=1)
    labels[0] = 0
    bright, dark = torch.ones_like(images), torch.full_like(images, 0.5)
    both = torch.cat([bright, dark])
    # From a start of +ε everywhere the bright image is clamped, and only the dark one has a gradient.
    method = make_attack("universal", norm="linf", eps=EPS, steps=1).method
    model = sr.wrap(network(), num_classes=CLASSES)

    def mean(images: torch.Tensor, start: float) -> torch.Tensor:
        from segradius.attacks.loop import Observation
        from segradius.attacks.universal import _mean

        keys = Randomness(0, tuple(map(str, range(len(images)))))
        task: Task[Any] = Task(model, images, Goal.leave(labels.expand(len(images), -1, -1)), keys)
        ones = torch.ones_like(images)
        seen = Observation(ones * start, ones, ones[:, 0, 0, 0], 0)
        return _mean(seen, task, torch.ones(len(images), dtype=torch.bool)).gradient

    assert isinstance(method, Universal)
    assert (mean(both, EPS) == 0.5).all()
    assert (mean(both, -EPS) == 1).all()


def test_what_is_judged_is_the_file_clamped_to_each_image(tmp_path: Path) -> None:
    images, labels = batch()
    images = images.float().double()
    found = fitted(images, labels, steps=3)
    found.save(tmp_path / "one.safetensors")
    result = judged(tmp_path / "one.safetensors", images, labels)
    torch.testing.assert_close(result.adversarial, (images + found.delta).clamp(0, 1))
    assert result.covered is None
    assert result.ledger.forward.tolist() == [1] * len(images)
    half = judged(tmp_path / "one.safetensors", images, labels, EPS / 2)
    assert half.delta.abs().amax() <= EPS / 2 * (1 + 1e-6)


def test_a_universal_patch_puts_the_same_values_into_every_image(tmp_path: Path) -> None:
    images, labels = batch()
    found = fitted(images, labels, (2, 3, 3), eps="inf", steps=4)
    assert (found.delta[:, ~found.where[0]] == 0).all()
    found.save(tmp_path / "patch.safetensors")
    result = judged(tmp_path / "patch.safetensors", images, labels, "inf")
    under = result.adversarial[:, :, 2:5, 3:6]
    torch.testing.assert_close(under, under[:1].expand_as(under))
    assert 0 <= under.min() < 0.45 or 0.55 < under.max() <= 1
    assert result.covered is not None
    assert (result.covered.flatten(1).sum(1) == 9).all()
    assert not (result.delta != 0).any(1).masked_select(~result.covered).any()
    wrong = (result.prediction != labels) & (labels != VOID) & ~result.covered
    assert torch.equal(result.fooled, wrong.flatten(1).sum(1))
    with pytest.raises(InputError, match="a patch of any values; expected norm linf and eps inf"):
        judged(tmp_path / "patch.safetensors", images, labels)


def test_without_a_file_all_images_get_the_same_random_signs() -> None:
    images, labels = batch()
    images = 0.3 + 0.4 * images
    model = sr.wrap(network(), num_classes=CLASSES)
    attack = make_attack("universal", norm="linf", eps=EPS)
    first, other = (attack(model, images, labels, seed=seed).delta for seed in (0, 1))
    assert torch.allclose(first.abs(), torch.tensor(EPS).double(), atol=1e-6)
    assert torch.allclose(first, first[:1].expand_as(first), atol=1e-6)
    assert not torch.equal(first, other)


def test_another_content_of_a_file_is_another_job(tmp_path: Path) -> None:
    images, labels = batch(count=2)
    path = tmp_path / "one.safetensors"
    keys = []
    for steps in (1, 3):
        fitted(images, labels, steps=steps).save(path)
        keys.append(AttackPlan("universal", "linf", EPS, {"delta": str(path)}).described)
    assert keys[0] != keys[1]
    assert "delta" not in AttackPlan("universal", "linf", EPS, {"delta": "signs"}).described


def test_what_is_no_perturbation_is_refused(tmp_path: Path) -> None:
    images, labels = batch(count=2)
    for name, content in (("a.safetensors", b"nothing"), ("b.safetensors", b"")):
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match="expected a file that segradius universal wrote"):
            judged(tmp_path / name, images, labels)
    fitted(images[..., :6], labels[..., :6]).save(tmp_path / "narrow.safetensors")
    with pytest.raises(InputError, match=r"images of \(3, 8, 6\) \(bands, height, width\), and these are of"):
        judged(tmp_path / "narrow.safetensors", images, labels)
    model, data = sr.load_model("demo"), sr.open_data("scenes:24x32,2", split="train")
    with pytest.raises(InputError, match="expected norm linf and eps inf"):
        fit_universal(make_attack("universal", norm="linf", eps=EPS), model, data, patch=0.1)
    with pytest.raises(InputError, match="aim is 'random'; expected one class"):
        fit_universal(make_attack("universal", norm="linf", eps=EPS), model, data, aim="random")
    with pytest.raises(InputError, match="fitted to each image; expected universal"):
        fit_universal(make_attack("pgd", norm="linf", eps=EPS), model, data)


def test_too_few_batches_are_refused() -> None:
    def none() -> Iterator[Task[Any]]:
        yield from ()

    method = make_attack("universal", norm="linf", eps=EPS, steps=2).method
    with pytest.raises(InputError, match="0 batches for 2 steps"):
        method.fit(none())  # type: ignore[attr-defined]


def test_the_command_fits_to_one_split_and_attack_judges_on_another(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, common = str(tmp_path / "new" / "one.safetensors"), ["--model", "demo", "--data", "scenes:24x32,4"]
    fit = ["universal", *common, "--split", "train", "--steps", "12", "--eps", "16/255", "--batch-size", "4"]
    assert main([*fit, "--out", file]) == 0
    assert "fitted to 4 images in 12 steps" in capsys.readouterr().out
    data, model = sr.open_data("scenes:24x32,4"), sr.load_model("demo")
    left = [
        sr.evaluate(model, data, "universal", eps={"linf": 16 / 255}, options={"delta": d}, quiet=True).summary.rows[1]
        for d in ("signs", file)
    ]
    assert left[1].pixacc.value < left[0].pixacc.value
    assert main([*fit[:-6], "--patch", "0.05", "--steps", "1", "--eps", "inf", "--out", file]) == 0
    assert Perturbation.load(file).square == (9, 13, 6)
    assert math.isclose(Perturbation.load(file).made["eps"], 1)
    assert main([*fit, "--place", "3:3", "--out", file]) == 2
    assert "place is '3:3'; expected centre, or --patch beside it" in capsys.readouterr().err
