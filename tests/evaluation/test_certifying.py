"""Certification over a data set: options, scores, records, promises, and what can be certified at all."""

from __future__ import annotations

import contextlib
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from torch import Tensor

from segradius.certification import ABSTAIN, Certificate, Hierarchy, SegCertify
from segradius.core.contracts import ALL
from segradius.core.errors import InputError
from segradius.data import Classes, Sample
from segradius.evaluation import (
    Certification,
    Checkpoints,
    DataChoice,
    InProcess,
    ModelChoice,
    Record,
    Run,
    Smoothing,
    Store,
    execute,
    least_copies,
)
from segradius.evaluation.certify import slowdown
from segradius.evaluation.certify_options import fit_region, promise
from segradius.evaluation.record import Kind, Polled, edges, pack, score_answer, score_certificate, unpack
from segradius.models import wrap

CLASSES = Classes(("dark", "bright"), ((0, 0, 0), (255, 255, 255)))
LABELS = torch.tensor([[0, 0, 1, 1], [0, 0, 1, 255]])


def threshold(x: Tensor) -> Tensor:
    """Logits (N, 2, H, W): class 1 where the mean of the channels is above one half."""
    mean = x.mean(1, keepdim=True)
    return torch.cat([0.5 - mean, mean - 0.5], 1)


class Images:
    """Two images of known brightness."""

    name, classes, ids = "images", CLASSES, ("a", "b/c")

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, index: int) -> Sample:
        brightness = torch.tensor([[0.2, 0.45, 0.55, 0.8], [0.5, 0.2, 0.8, 0.9]])
        return Sample(self.ids[index], brightness.expand(3, 2, 4).clone(), LABELS)


def certified(folder: Path, smoothing: Smoothing, **options) -> dict[str, Record]:
    """The record of each image."""
    experiment = Certification(ModelChoice("threshold"), DataChoice("images"), smoothing)
    model, places = wrap(threshold, num_classes=2), Checkpoints(folder / "checkpoints")
    run = Run(experiment, model, Images(), 1, checkpoints=places, **options)
    with Store(":memory:") as store:
        execute(run, store, InProcess(model, Images(), places))
        assert store.all_set_aside() == {}
        assert not any((folder / "checkpoints").glob("*"))
        return {image: unpack(store.record(experiment.key, image)) for image in Images.ids}


def certificate(guess: Tensor, certified: Tensor, radius: float = 0.2, level: Tensor | None = None) -> Certificate:
    return Certificate(guess, certified, torch.where(certified, radius, 0.0), 0.25, 0.001, "image", level)


# What is certified follows from the probabilities under noise, which are known for this model.


def test_pixels_are_certified_as_their_probability_under_noise_says(tmp_path):
    """Votes for class 1 have probability Φ(√3 (m − ½)/σ): 1 − 10⁻³ and beyond at |m − ½| ≥ 0.3, ½ at m = ½."""
    for kept in certified(tmp_path, Smoothing(sigma=0.1, n=200)).values():
        classes = kept.kinds["segcertify"].classes
        assert classes.tolist()[0][::3] == [0, 1]
        assert classes[1].tolist() == [ABSTAIN, 0, 1, 1]
        assert kept.base.tolist() == [[0, 0, 1, 1], [0, 0, 1, 1]]
        radius = kept.kinds["segcertify"].radius
        assert radius.unique().tolist() == pytest.approx([0, 0.1 * stats.norm.ppf(0.75)], rel=1e-6)


def test_progress_counts_every_copy_also_where_sampling_stops_early(tmp_path):
    told = []
    smoothing = Smoothing(sigma=0.1, n0=10, n=5000, early_stop=0.5)
    found = certified(tmp_path, smoothing, progress=lambda job, copies: told.append(copies))["a"]
    assert sum(told) == 2 * 5010
    assert found.polled.n < 5000
    assert found.passes["certification"] == [10 + found.polled.n, 0]


# Scores.


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**31))
def test_the_score_of_a_certificate_that_certifies_all_is_that_of_the_answer(seed: int):
    generator = torch.Generator().manual_seed(seed)
    guess = torch.randint(3, (5, 7), generator=generator)
    labels = torch.randint(4, (5, 7), generator=generator)
    labels[labels == 3] = 255
    everywhere = certificate(guess, torch.ones_like(guess, dtype=torch.bool))
    plain, certified = score_answer(guess, labels, 3, 255), score_certificate(everywhere, labels, 3, 255, [0, 0.1, 0.3])
    assert (plain.pixels, plain.boundary, plain.abstained) == (certified.pixels, certified.boundary, 0)
    assert certified.certified == (0, certified.labelled)
    assert certified.right == (0, sum(plain.pixels.intersection))
    assert certified.gain == sum(plain.pixels.intersection)


def test_abstention_is_wrong_and_no_class_of_its_own():
    guess, certified = torch.zeros(2, 4, dtype=torch.long), torch.tensor([[1, 0, 1, 0], [1, 1, 0, 1]]).bool()
    score = score_certificate(certificate(guess, certified), LABELS, 3, 255, [0, 0.3])
    assert score.pixels.plain == [[3, 0, 0], [4, 0, 0], [4, 3, 0]]
    assert score.abstained == 3
    assert score.radius == pytest.approx(4 * 0.2)  # the void pixel is certified too, and counts nowhere


def test_a_certified_group_is_right_where_it_holds_the_label():
    hierarchy = Hierarchy.of(("a", "b", "c"), [{"both": ["a", "b"]}])
    guess, labels = torch.tensor([[0, 0, 0, 2]]), torch.tensor([[1, 1, 2, 2]])
    level, certified = torch.tensor([[1, 0, 1, 1]]), torch.ones(1, 4, dtype=torch.bool)
    score = score_certificate(certificate(guess, certified, level=level), labels, 3, 255, [0, 1], hierarchy)
    assert score.right == (2,)
    assert score.gain == pytest.approx(1 - math.log(2) / math.log(3) + 1)


@given(st.floats(0.05, 1), st.integers(1, 10**5), st.floats(1e-4, 0.1), st.floats(0.5, 0.99))
def test_no_radius_that_can_be_certified_lies_beyond_the_last_edge(sigma: float, n: int, alpha: float, tau: float):
    bins = edges(sigma, n, alpha, tau)
    assert bins == sorted(bins)
    assert bins[0] == 0
    possible = max(SegCertify(tau).radius(sigma), sigma * stats.norm.ppf(alpha ** (1 / n)))
    assert bins[-1] >= possible * (1 - 1e-9)


# Records.


def test_a_record_comes_back_as_it_was_put():
    hierarchy = Hierarchy.of(("a", "b"), [{"all": ["a", "b"]}])
    guess = torch.tensor([[0, 1, 0, 1]] * 2)
    found = certificate(guess, guess == 1, 0.1234567, level=1 - guess)
    score = score_certificate(found, LABELS, 2, 255, [0, 0.1, 0.2], hierarchy)
    answer = score_answer(guess, LABELS, 2, 255)
    kind = Kind(found.prediction, found.radius, found.level, "image", score)
    kinds = {"segcertify": kind, "adaptive": kind}
    passes = {"judging": (1, 0), "certification": (8, 0)}
    record = Record("x/é y", guess, answer, kinds, Polled(guess, guess + 3, 1 - guess, answer, 3, 5), passes=passes)
    study = {"verdicts": {"pgd": {}}, "passes": {"crosscheck": {"forward": 7, "backward": 2}}}
    for put in (record, record.checked(study)):
        again = unpack(pack(put))
        assert (again.image, again.base_score, again.polled.majority_score) == ("x/é y", answer, answer)
        assert (again.polled.n0, again.polled.n, again.finite, again.studies) == (3, 5, True, put.studies)
        assert {purpose: tuple(book) for purpose, book in again.passes.items()} == {
            purpose: tuple(book) for purpose, book in put.passes.items()
        }
        assert torch.equal(again.base, put.base)
        parts = ("guess", "votes", "majority")
        assert all(torch.equal(getattr(again.polled, part), getattr(put.polled, part)) for part in parts)
        assert again.finest.score == score
        assert all(
            torch.equal(getattr(again.finest, part), getattr(kind, part)) for part in ("classes", "radius", "level")
        )
    assert pack(record) == pack(record)
    assert again.passes["crosscheck"] == [7, 2]


# What can be certified at all, and what is promised.


@settings(deadline=None, max_examples=30)
@given(st.integers(1, 5000), st.sampled_from([0.5, 0.75, 0.9]), st.sampled_from([0.001, 0.05]))
def test_the_least_number_of_copies_in_closed_form(pixels: int, tau: float, alpha: float):
    """n of n votes have p-value τⁿ, which must not exceed α/N; α itself where each pixel is for itself."""
    for correction, bar in (("bonferroni", alpha / pixels), ("holm", alpha / pixels), ("none", alpha)):
        n = least_copies(Smoothing(tau=tau, alpha=alpha, correction=correction), pixels)
        assert tau**n <= bar * (1 + 1e-9)
        assert n == 1 or tau ** (n - 1) > bar * (1 - 1e-9)


def test_looking_costs_copies_and_a_control_of_the_share_saves_some():
    usual, pixels = Smoothing(), 10_000
    needed = least_copies(usual, pixels)
    assert least_copies(replace(usual, early_stop=0.01), pixels) > needed
    assert least_copies(replace(usual, correction="by"), pixels) < needed
    assert least_copies(replace(usual, tau=0.9999), pixels, most=1000) is None


@pytest.mark.parametrize(
    ("kind", "told"),
    [
        ("image", "every certified pixel keeps"),
        ("pixel", "each pixel for itself"),
        ("fewer than 3 pixels", "but for fewer than 3 pixels, keeps"),
        ("share", "an expected share of at most 0.001"),
    ],
)
def test_promises_in_words(kind: str, told: str):
    assert told in promise(kind, 0.001, "every change")


def test_a_region_takes_the_size_of_the_image():
    mask = torch.tensor([[True, False], [False, False]])
    assert fit_region(mask, (4, 6)).sum() == 6
    assert torch.equal(fit_region(mask, (2, 2)), mask)


@pytest.mark.parametrize(
    "options", [{"precision": "float16"}, {"radii": "three"}, {"early_stop": -0.1}, {"sigma": 0}, {"n0": 0}]
)
def test_options_out_of_range_are_refused(options):
    with pytest.raises(InputError):
        Smoothing(**options)


def test_the_identity_depends_on_every_option_and_the_key_on_no_limit():
    base = Certification(ModelChoice("m", fingerprint="f"), DataChoice("d"), Smoothing())
    others = [
        replace(base, seed=1),
        replace(base, way=Smoothing(n=999)),
        replace(base, way=Smoothing(hierarchy=({"a": ["b"]},))),
        replace(base, data=DataChoice("e")),
        replace(base, model=ModelChoice("m", fingerprint="g")),
    ]
    assert len({each.identity for each in [base, *others]}) == len({each.key for each in [base, *others]}) == 6
    fewer = replace(base, data=DataChoice("d", limit=3), model=ModelChoice("m", weights="w", fingerprint="f"))
    assert fewer.key == base.key
    assert fewer.identity != base.identity
    assert base.extends(fewer.as_dict()) is None
    assert fewer.extends(base.as_dict()) == "data.limit is 3, and null in the earlier run"


def test_how_much_slower_a_precision_is_comes_from_the_least_time_of_each_after_one_to_warm_up():
    now, costs = [0.0], {torch.float32: iter([90, 2, 3, 2.5]), torch.bfloat16: iter([1, 8, 3, 5])}

    class Timed:
        offers, num_classes, frozen = ALL, 2, staticmethod(contextlib.nullcontext)

        def logits(self, images, precision=None):
            now[0] += next(costs[precision])
            return images[:, :2]

    assert slowdown(Timed(), torch.rand(1, 3, 4, 4), "bfloat16", lambda: now[0]) == 1.5
