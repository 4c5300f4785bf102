"""Training needs labels, learns from what has some, and never takes a predictor of one class for the best."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import small
import torch
from torch import Tensor, nn

from segradius.core.errors import InputError
from segradius.data import open_data
from segradius.metrics import count, kappa, one_class
from segradius.training import Engine, Evaluation, Optimiser, Robustness, fit
from segradius.training.lessons import order
from segradius.training.records import Position, Snapshot, outcome

VOID = 255


def labelled(
    source: small.InMemory, *, where: set[int], classes: set[int] = frozenset(range(small.CLASSES))
) -> small.InMemory:
    """The samples with labels at some places alone, and of some classes."""
    kept = torch.tensor([c in classes for c in range(256)])
    labels = [s.label.masked_fill(~kept[s.label], VOID) for s in source.samples]
    labels = [label if place in where else torch.full_like(label, VOID) for place, label in enumerate(labels)]
    return small.InMemory([replace(s, label=label) for s, label in zip(source.samples, labels, strict=True)], source)


@pytest.mark.parametrize("part", ["train", "held_out"])
def test_a_set_without_a_label_is_refused_before_a_step(tmp_path: Path, part: str) -> None:
    source = small.TRAIN if part == "train" else small.HELD_OUT
    what = "training" if part == "train" else "held-out"
    message = rf"no pixel of the {what} set is labelled: all {len(source)} masks of scenes/\w+ hold nothing but void"
    with pytest.raises(InputError, match=message):
        fit(small.job(tmp_path / "run", **{part: labelled(source, where=set())}))
    assert not list((tmp_path / "run").glob("*.pt")) + list((tmp_path / "run").glob("*.csv"))


def test_one_labelled_image_is_enough_and_batches_without_a_label_have_no_loss(tmp_path: Path) -> None:
    """The place of the labelled image in the order of each epoch says which step has a loss."""
    fit(small.job(tmp_path, small.network(dropout=0), train=labelled(small.TRAIN, where={7})))
    losses = small.column(tmp_path / "train.csv", "loss")
    known = [order(12, seed=0, epoch=epoch).index(7) // 4 + 3 * epoch for epoch in range(4)]
    assert [step for step, loss in enumerate(losses) if not math.isnan(loss)] == known
    state = torch.load(tmp_path / "last.pt", weights_only=True)["network"]
    assert all(value.isfinite().all() for value in state.values())


def test_an_epoch_without_a_label_ends_the_first_and_is_told_later(tmp_path: Path, capsys) -> None:
    """Of five images with batches of four, one is left out of each epoch: the labelled one of the third."""
    out_of = {epoch: order(5, seed=0, epoch=epoch)[4] for epoch in range(4)}
    five = open_data(small.SCENES, split="train", limit=5)
    five, told = (
        small.InMemory([five[place] for place in range(5)], five),
        "no pixel is labelled in the batches of epoch",
    )
    for epoch, place in out_of.items():
        folder, data = tmp_path / str(epoch), labelled(five, where={place})
        if place == out_of[0]:
            with pytest.raises(InputError, match=f"{told} 1, so nothing was learnt"):
                fit(small.job(folder, train=data))
        else:
            fit(small.job(folder, train=data, quiet=False))
            lacking = [number + 1 for number, left_out in out_of.items() if left_out == place]
            err = capsys.readouterr().err
            assert [number for number in range(1, 5) if f"{told} {number}" in err] == lacking


def test_classes_without_a_pixel_are_told_once(tmp_path: Path, capsys) -> None:
    data = labelled(small.TRAIN, where=set(range(12)), classes={0, 1, 2, 3, 4, 6})
    fit(small.job(tmp_path, train=data, quiet=False))
    names = small.TRAIN.classes.names
    told = " ".join(capsys.readouterr().err.split())
    assert told.count(f"no pixel of the first epoch is labelled as {names[5]}, {names[7]}") == 1
    fit(small.job(tmp_path / "whole", quiet=False))
    present = {c for s in small.TRAIN.samples for c in s.label.unique().tolist()}
    assert ("no pixel of the first epoch" in capsys.readouterr().err) == (len(present - {VOID}) < small.CLASSES)


class Diverging(nn.Module):
    """Its logits are finite, and so is its loss, while its weights are not after the first step."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.more = nn.Conv2d(3, small.CLASSES, 1), nn.Parameter(torch.tensor(3e38))

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x) + 0 * self.more.clamp(max=1)


def test_weights_that_are_not_finite_replace_no_others(tmp_path: Path) -> None:
    def job(**changes):
        return small.job(tmp_path, Diverging(), epochs=1, engine=Engine("cpu", save_every=1), **changes)

    with pytest.raises(InputError, match="the weights are not finite at step 1, in epoch 1: lower the learning rate"):
        fit(job(optimiser=Optimiser(lr=1e3, weight_decay=1.0)))
    assert not (tmp_path / "last.pt").exists()


@pytest.mark.parametrize("lr", [0.0, -1.0, math.nan, math.inf])
def test_a_learning_rate_of_nothing_is_refused(lr: float) -> None:
    with pytest.raises(InputError, match=r"lr is .*; expected a number in"):
        Optimiser(lr=lr)


class Fixed(nn.Module):
    """Predicts what it is told to, image by image of the held-out set, whatever it learns."""

    def __init__(self, *answers: Tensor) -> None:
        super().__init__()
        self.free, self.answers, self.seen = nn.Parameter(torch.zeros(())), answers, 0

    def forward(self, x: Tensor) -> Tensor:
        answer = self.answers[0] if self.training else self.answers[self.seen // len(small.HELD_OUT)]
        self.seen += 0 if self.training else len(x)
        logits = nn.functional.one_hot(answer, small.CLASSES).permute(0, 3, 1, 2)
        return 10.0 * logits[: len(x)] + self.free


TRUTH = torch.stack([sample.label for sample in small.HELD_OUT.samples])
#: Classes, the most common one first; what is predicted where there is no label does not matter.
CLASSES = torch.bincount(TRUTH[TRUTH != VOID], minlength=small.CLASSES).argsort(descending=True)
COMMON, LABELS = int(CLASSES[0]), TRUTH.masked_fill(TRUTH == VOID, 0)
CONSTANT = torch.full_like(LABELS, COMMON)
#: Half of the most common class is right, and nothing else: less accurate than always saying it.
POOR = torch.where((LABELS == COMMON) & (torch.arange(LABELS.shape[-1]) % 2 == 0), LABELS, (LABELS + 1) % small.CLASSES)


def trained(folder: Path, *answers: Tensor, **given) -> dict[str, dict[str, str]]:
    fit(small.job(folder, Fixed(*answers), epochs=len(answers), every=1, **given))
    return outcome(folder)


def test_a_predictor_of_one_class_is_never_the_best_and_is_told(tmp_path: Path, capsys) -> None:
    found = trained(tmp_path, POOR, CONSTANT, quiet=False)
    accuracy = small.column(tmp_path / "evaluations.csv", "pixacc")
    assert accuracy[1] > accuracy[0]
    assert found["best"]["epoch"] == "1"
    name = small.HELD_OUT.classes.names[COMMON]
    assert f"epoch 2: nearly every pixel is predicted as {name}: never the best" in capsys.readouterr().err


def test_there_is_no_best_where_every_evaluation_says_one_class(tmp_path: Path) -> None:
    assert list(trained(tmp_path, CONSTANT, CONSTANT)) == ["last"]
    assert not (tmp_path / "best.safetensors").exists()
    assert (tmp_path / "last.safetensors").exists()


def test_the_best_is_chosen_by_accuracy_or_by_miou(tmp_path: Path) -> None:
    """One answer gets the common classes right, the other all but the most common one."""
    frequent = torch.where(torch.isin(LABELS, CLASSES[:6]), LABELS, CONSTANT)
    every = torch.where(LABELS == COMMON, CLASSES[1], LABELS)
    chosen = {}
    for best in ("accuracy", "miou"):
        job = small.job(tmp_path / best, Fixed(frequent, every), epochs=2, every=1)
        fit(replace(job, best=best))
        rows = small.rows(tmp_path / best / "evaluations.csv")
        column = {"accuracy": "pixacc", "miou": "miou"}[best]
        wanted = max(rows, key=lambda row: float(row[column]))
        assert outcome(tmp_path / best)["best"] == wanted
        chosen[best] = wanted["epoch"]
    assert chosen == {"accuracy": "1", "miou": "2"}


def test_what_the_best_was_chosen_by_goes_on(tmp_path: Path) -> None:
    fit(small.job(tmp_path))
    with pytest.raises(InputError, match="chooses its best by accuracy; expected --best accuracy to go on"):
        fit(replace(small.job(tmp_path), best="miou"))
    with pytest.raises(InputError, match="best is 'loss'; expected accuracy or miou"):
        replace(small.job(tmp_path), best="loss")


def test_a_watch_chooses_by_what_is_left_under_its_attack() -> None:
    watched = Evaluation(1, 3, 0.9, 0.8, 0.7, Robustness(0.5, 0.4, 0.3))
    assert (watched.chosen_by("accuracy"), watched.chosen_by("miou"), watched.score) == (0.4, 0.3, 0.4)


def test_logs_and_snapshots_of_earlier_versions_go_on(tmp_path: Path) -> None:
    """They say nothing of what the best was chosen by, which was accuracy, nor mark it."""
    (tmp_path / "evaluations.csv").write_text(
        "step,epoch,pixacc,miou,miou_image,pixacc_fgsm,pixacc_pgd\n3,1,0.5,0.3,0.3,,\n6,2,0.4,0.3,0.3,,\n"
    )
    assert outcome(tmp_path)["best"]["epoch"] == "1"
    assert Position(**{"step": 3, "best": 0.5, "best_epoch": 1}).by == "accuracy"
    assert Snapshot.load(tmp_path, "") is None


def test_agreement_beyond_chance_is_that_of_its_formula() -> None:
    g = torch.Generator().manual_seed(0)
    labels, predicted = torch.randint(0, 3, (2, 4, 5, 6), generator=g)
    counts = count(predicted, labels, 3)
    share = [(labels == c).double().mean() * (predicted == c).double().mean() for c in range(3)]
    right, chance = (labels == predicted).double().mean(), sum(share)
    assert kappa(counts) == pytest.approx(float((right - chance) / (1 - chance)))
    assert one_class(counts) is None
    assert math.isnan(kappa(count(torch.zeros_like(labels), torch.zeros_like(labels), 3)))
    assert one_class(count(torch.zeros_like(labels), torch.zeros_like(labels), 3)) is None  # nothing else to be found
    assert one_class(count(torch.full_like(labels, 2), labels, 3)) == 2
