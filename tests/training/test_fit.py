"""The loop is a plain PyTorch loop, its logs say what happened, and what it writes is what was measured."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import small
import torch
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional

import segradius as sr
from segradius.core.errors import InputError
from segradius.data.prepared import Prepared
from segradius.data.sample import BadSampleError, Sample
from segradius.models.preprocessing import Normalisation
from segradius.training import Augmentation, Engine, Job, Optimiser, Robustness, WeightAverage, fit
from segradius.training.lessons import order

MEAN, STD = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])


def normalised(images: torch.Tensor) -> torch.Tensor:
    return (images - MEAN.view(3, 1, 1)) / STD.view(3, 1, 1)


def test_it_learns(tmp_path: Path) -> None:
    job = small.job(tmp_path, small.network(dropout=0), epochs=30, every=30)
    fit(job)
    losses = small.column(tmp_path / "train.csv", "loss")
    assert len(losses) == 90
    assert np.mean(losses[-9:]) < 0.6 * np.mean(losses[:3])
    images, labels = (torch.stack([getattr(s, key) for s in small.TRAIN.samples]) for key in ("image", "label"))
    right = (job.model.logits(images).argmax(1) == labels)[labels != 255].float().mean()
    most_common = torch.bincount(labels[labels != 255]).max() / (labels != 255).sum()
    assert right > most_common + 0.1


def plain_loop(steps: int, average: float | None = None):
    """SGD with momentum and weight decay as PyTorch has it; weights, averaged weights and learning rates."""
    network = small.network(dropout=0).train()
    optimiser = torch.optim.SGD(network.parameters(), lr=0.05, momentum=0.9, weight_decay=1e-4)
    averaged = {name: value.clone() for name, value in network.state_dict().items()}
    rates, losses = [], []
    for step in range(steps):
        chosen = order(12, seed=0, epoch=step // 3)[step % 3 * 4 :][:4]
        images, labels = (torch.stack([getattr(small.TRAIN[i], key) for i in chosen]) for key in ("image", "label"))
        rates.append(0.05 * (1 - step / steps) ** 0.9)
        optimiser.param_groups[0]["lr"] = rates[-1]
        optimiser.zero_grad()
        loss = functional.cross_entropy(network(normalised(images)), labels, ignore_index=255)
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
        decay = 0.0 if average is None else min(average, (1 + step) / (10 + step))
        for name, value in network.state_dict().items():
            share = decay if value.is_floating_point() else 0
            averaged[name] = share * averaged[name] + (1 - share) * value
    return network.state_dict(), averaged, rates, losses


def test_it_is_a_plain_loop(tmp_path: Path) -> None:
    fit(small.job(tmp_path, small.network(dropout=0)))
    weights, _, rates, losses = plain_loop(12)
    small.assert_same(load_file(tmp_path / "last.safetensors"), weights, atol=1e-6)
    assert small.column(tmp_path / "train.csv", "lr") == pytest.approx(rates, rel=1e-12)
    assert small.column(tmp_path / "train.csv", "loss") == pytest.approx(losses, abs=1e-5)
    assert small.column(tmp_path / "train.csv", "step") == list(range(1, 13))
    assert small.column(tmp_path / "train.csv", "epoch") == [1, 1, 1, 2, 2, 2, 3, 3, 3, 4, 4, 4]


def test_the_average_of_the_loop_is_exported_and_the_trained_weights_go_on(tmp_path: Path) -> None:
    job = small.job(tmp_path, small.network(dropout=0), average=WeightAverage(0.9), every=1)
    fit(job)
    weights, averaged, _, _ = plain_loop(12, average=0.9)
    small.assert_same(load_file(tmp_path / "last.safetensors"), averaged, atol=1e-6)
    small.assert_same(job.model.network.state_dict(), weights, atol=1e-6)


def test_evaluations_are_the_metrics_of_the_written_weights(tmp_path: Path) -> None:
    found = fit(small.job(tmp_path, every=2))
    network = small.network()
    network.load_state_dict(load_file(tmp_path / "last.safetensors"))
    table = np.zeros((small.CLASSES, small.CLASSES))
    pairs = []
    for sample in small.HELD_OUT.samples:
        with torch.no_grad():
            prediction = network.eval()(normalised(sample.image)[None]).argmax(1)[0]
        known = sample.label != 255
        one = np.zeros_like(table)
        np.add.at(one, (sample.label[known].numpy(), prediction[known].numpy()), 1)
        pairs.extend(class_ious(one))
        table += one
    assert found.pixacc == pytest.approx(np.trace(table) / table.sum())
    assert found.miou == pytest.approx(np.mean(class_ious(table)))
    assert found.miou_image == pytest.approx(np.mean(pairs))
    log = small.rows(tmp_path / "evaluations.csv")
    assert [(row["step"], row["epoch"]) for row in log] == [("6", "2"), ("12", "4")]
    assert {key: float(log[-1][key]) for key in ("pixacc", "miou", "miou_image")} == found.figures()


def class_ious(table: np.ndarray) -> np.ndarray:
    """Of the classes that are there or predicted."""
    union = table.sum(0) + table.sum(1) - np.diag(table)
    return np.diag(table)[union > 0] / union[union > 0]


class Scripted:
    """A watch with the scores given, which remembers the weights that it saw."""

    def __init__(self, *scores: float) -> None:
        self.scores, self.seen = list(scores), []

    def __call__(self, model, data, device) -> Robustness:
        self.seen.append({name: value.clone() for name, value in model.network.state_dict().items()})
        return Robustness(0.9, self.scores[len(self.seen) - 1])


def test_best_is_the_evaluation_with_the_highest_score(tmp_path: Path) -> None:
    watch = Scripted(0.1, 0.5, 0.3, 0.5)
    found = fit(small.job(tmp_path, watch=watch, every=1, average=WeightAverage(0.9)))
    assert found.score == 0.5
    small.assert_same(load_file(tmp_path / "best.safetensors"), watch.seen[1])
    small.assert_same(load_file(tmp_path / "last.safetensors"), watch.seen[3])
    assert small.column(tmp_path / "evaluations.csv", "pixacc_pgd") == [0.1, 0.5, 0.3, 0.5]


def test_overfitting_is_told_where_it_is_seen(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fit(small.job(tmp_path, watch=Scripted(0.8, 0.1), epochs=2, every=1, quiet=False))
    lines = " ".join(capsys.readouterr().err.split())
    assert "epoch 2: catastrophic overfitting? PixAcc is 0.900 under FGSM and 0.100 under PGD" in lines
    assert "epoch 1: catastrophic" not in lines


def test_the_model_is_left_with_the_last_weights_and_usable(tmp_path: Path) -> None:
    job = small.job(tmp_path)
    fit(job)
    small.assert_same(job.model.network.state_dict(), load_file(tmp_path / "last.safetensors"))
    images = small.HELD_OUT[0].image[None]
    assert torch.equal(job.model.logits(images), job.model.logits(images))
    assert all(parameter.requires_grad for parameter in job.model.network.parameters())


def test_clipping_limits_the_step(tmp_path: Path) -> None:
    """One step of SGD without momentum and decay is as long as its rate times the clipped norm."""
    rate, clip = 0.5, 1e-3
    optimiser = Optimiser(lr=rate, momentum=0, weight_decay=0, clip=clip)
    job = small.job(tmp_path, small.network(norm=None), epochs=1, batch_size=12, optimiser=optimiser)
    fit(job)
    first = small.network(norm=None)
    moved = [a - b for a, b in zip(first.parameters(), job.model.network.parameters(), strict=True)]
    assert torch.cat([m.flatten() for m in moved]).norm().item() == pytest.approx(rate * clip, rel=1e-3)


def test_a_folder_of_another_run_is_refused(tmp_path: Path) -> None:
    fit(small.job(tmp_path, epochs=1))
    kept = (tmp_path / "last.pt").read_bytes()
    for other in (
        small.job(tmp_path, epochs=2),
        small.job(tmp_path, epochs=1, seed=1),
        small.job(tmp_path, small.network(seed=1), epochs=1),
        small.job(tmp_path, epochs=1, train=small.InMemory(small.TRAIN.samples, small.HELD_OUT)),
    ):
        with pytest.raises(InputError, match="holds another run"):
            fit(other)
    assert (tmp_path / "last.pt").read_bytes() == kept


def test_a_finished_run_stays_as_it_is(tmp_path: Path) -> None:
    found = fit(small.job(tmp_path))
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    job = small.job(tmp_path)
    assert fit(job) == found
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    small.assert_same(job.model.network.state_dict(), load_file(tmp_path / "last.safetensors"))


class Spoilt(small.InMemory):
    """Images that are NaN, those of ``later`` from the second reading on, and files that cannot be read."""

    def __init__(
        self, source: small.InMemory, nan: Sequence[int] = (), later: Sequence[int] = (), gone: Sequence[int] = ()
    ):
        super().__init__(source.samples, source)
        self.nan, self.later, self.gone, self.read_before = set(nan), set(later), set(gone), set()

    def __getitem__(self, index: int) -> Sample:
        sample = self.samples[index]
        if index in self.gone:
            raise BadSampleError(sample.id, Path("gone.png"), "the file is missing")
        if index in self.nan or (index in self.later and index in self.read_before):
            return Sample(sample.id, sample.image * float("nan"), sample.label)
        self.read_before.add(index)
        return sample


def test_a_loss_that_is_not_finite_is_told_with_its_step(tmp_path: Path) -> None:
    bad = order(12, seed=0, epoch=0)[8]  # in the third step
    with pytest.raises(InputError, match=r"not finite at step 3, in epoch 1: .* keeps what was saved before"):
        fit(small.job(tmp_path, train=Spoilt(small.TRAIN, later=[bad]), engine=Engine("cpu", save_every=2)))
    state = torch.load(tmp_path / "last.pt", weights_only=True)
    assert state["position"]["step"] == 2
    assert all(torch.isfinite(value).all() for value in state["network"].values())


@pytest.mark.parametrize("workers", [0, 1])
def test_images_that_cannot_be_used_are_set_aside_by_name_and_the_rest_is_learnt(
    tmp_path: Path, capsys, workers
) -> None:
    engine = Engine("cpu", workers=workers)
    rest = [at for at in range(12) if at not in (5, 7)]
    good = Prepared(small.TRAIN, tuple(rest)), Prepared(small.HELD_OUT, (0, 2, 3))
    fit(small.job(tmp_path / "good", train=good[0], held_out=good[1], epochs=2))
    assert capsys.readouterr().err == ""
    spoilt = {"train": Spoilt(small.TRAIN, nan=[7], gone=[5]), "held_out": Spoilt(small.HELD_OUT, gone=[1])}
    fit(small.job(tmp_path / "spoilt", **spoilt, epochs=2, engine=engine))
    told = capsys.readouterr().err
    assert (
        "warning: 2 of 12 images of the training set are set aside: train-00005: sample 'train-00005': the file is "
        "missing (gone.png); train-00007: the image has 4608 values that are NaN or infinite" in told
    )
    assert "1 of 4 images of the held-out set are set aside: val-00001: " in told
    for file in ("train.csv", "evaluations.csv"):
        assert (tmp_path / "spoilt" / file).read_text() == (tmp_path / "good" / file).read_text()
    small.assert_same(*(load_file(tmp_path / name / "last.safetensors") for name in ("spoilt", "good")))


def test_a_set_of_which_nothing_can_be_used_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="the training set is empty"):
        fit(small.job(tmp_path, train=Spoilt(small.TRAIN, gone=range(12))))


class TwoHeads(nn.Module):
    """Two heads by name, the second of its own weights."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.out, self.aux = nn.Conv2d(3, small.CLASSES, 1), nn.Conv2d(3, small.CLASSES, 1)

    def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"out": self.out(images), "aux": self.aux(images)}


def test_heads_are_weighed_and_colours_normalised(tmp_path: Path) -> None:
    """The first loss is that of the first weights: cross-entropy of the main head and 0.4 times the other's."""
    network = TwoHeads()
    images, labels = (torch.stack([getattr(s, key) for s in small.TRAIN.samples]) for key in ("image", "label"))
    with torch.no_grad():
        heads = network((images - 0.5) / 0.25)
    out, aux = (functional.cross_entropy(heads[name], labels, ignore_index=255) for name in ("out", "aux"))
    model = sr.wrap(network, num_classes=small.CLASSES, normalisation=Normalisation((0.5,) * 3, (0.25,) * 3))
    recipe = small.recipe(epochs=1, batch_size=12)
    fit(Job(model, small.TRAIN, small.HELD_OUT, recipe, tmp_path, engine=Engine("cpu"), quiet=True))
    assert small.column(tmp_path / "train.csv", "loss") == [pytest.approx(out.item() + 0.4 * aux.item(), rel=1e-5)]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch_size": 13}, "batch_size is 13 and the training set has 12"),
        ({"engine": Engine("cpu", devices=3)}, "batch_size 4 is no multiple of 3 processes"),
        ({"augmentation": Augmentation()}, "crop"),
        ({"train": small.InMemory([], small.TRAIN)}, "training set is empty"),
    ],
)
def test_jobs_that_cannot_be_run_are_refused(tmp_path: Path, changes: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        fit(small.job(tmp_path, **changes))


def test_other_classes_are_refused(tmp_path: Path) -> None:
    model = sr.wrap(nn.Conv2d(3, 5, 1), num_classes=5)
    with pytest.raises(InputError, match="5 classes and the training set has 8"):
        Job(model, small.TRAIN, small.HELD_OUT, small.recipe(), tmp_path)


def test_functions_cannot_be_trained(tmp_path: Path) -> None:
    model = sr.wrap(lambda images: images[:, :1].repeat(1, 8, 1, 1), num_classes=small.CLASSES)
    with pytest.raises(InputError, match="cannot be trained"):
        fit(Job(model, small.TRAIN, small.HELD_OUT, small.recipe(), tmp_path, engine=Engine("cpu"), quiet=True))
