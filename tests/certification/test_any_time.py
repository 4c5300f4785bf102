"""Radii that hold whenever sampling stops: the table of bounds, coverage where a rule looks, one stream for both."""

from __future__ import annotations

from dataclasses import replace
from itertools import count

import numpy as np
import pytest
import torch
from scipy import integrate, stats

from segradius.certification import (
    SOFT_BOUNDS,
    Noise,
    PixelRadii,
    Sampling,
    SegCertify,
    SoftRadii,
    anytime_lower,
    anytime_p_values,
    clopper_pearson_lower,
    vote,
    vote_softly,
)
from segradius.core.errors import InputError
from segradius.core.randomness import Randomness

KEY = Randomness(5, ("scene",))
IMAGE = torch.rand((3, 6, 7), generator=torch.Generator().manual_seed(0))


def logits(x):
    """Five classes from three colours, pixel by pixel."""
    return 6 * torch.cat([x, x.mean(1, keepdim=True), 1 - x[:, :1]], 1)


def confide(x):
    return (*logits(x).max(1), logits(x).softmax(1))


class Kept:
    """A journal in memory that stops the run after some saves."""

    def __init__(self, stop=None):
        self.standing, self.saves, self.stop = None, 0, stop

    def load(self):
        return self.standing

    def save(self, snapshot):
        self.saves += 1
        copied = snapshot()
        self.standing = torch.utils._pytree.tree_map(lambda v: v.clone() if isinstance(v, torch.Tensor) else v, copied)
        if self.saves == self.stop:
            raise KeyboardInterrupt


@pytest.mark.parametrize(("trials", "alpha"), [(1, 0.1), (30, 0.05), (200, 1e-3 / 76800)])
def test_the_bound_at_any_time_is_where_the_mixture_is_one_over_alpha(trials, alpha):
    for hits in {1, trials // 2, trials - 1, trials} - {0}:
        found = anytime_lower(torch.tensor([hits]), trials, alpha).item()

        def term(u, tau=found, hits=hits):
            return np.exp(hits * np.log1p(u * (1 / tau - 1)) + (trials - hits) * np.log1p(-u))

        mixture = integrate.quad(term, 0, 1, epsrel=1e-11, limit=400)[0]
        assert -1e-9 <= np.log(mixture) + np.log(alpha) <= 1e-5 + 1e-15 / found  # beyond the bar, and just
    assert anytime_lower(torch.tensor([0]), trials, alpha).item() == 0
    if trials == 1:
        assert anytime_lower(torch.tensor([1]), 1, alpha).item() == pytest.approx(1 / 19, rel=1e-5)


def test_the_bound_at_any_time_is_the_last_tau_that_is_rejected():
    counts, alpha = torch.arange(301), 1e-4
    low = anytime_lower(counts, 300, alpha)
    assert (low[1:] >= low[:-1]).all()
    assert (low <= clopper_pearson_lower(counts, 300, alpha)).all()
    for s in (40, 250, 300):
        under, over = low[s].item(), low[s].item() + 1e-6
        assert anytime_p_values(counts[s : s + 1], 300, under).item() <= alpha
        assert anytime_p_values(counts[s : s + 1], 300, over).item() > alpha


def test_bounds_hold_though_the_rule_waits_for_an_error():
    """The worst rule: stop at the first look at which the bound is above the truth."""
    random, alpha, images, most = np.random.default_rng(0), 0.1, 2000, 400
    for truth in (0.5, 0.9, 0.99):
        hits = (random.random((most, images)) < truth).cumsum(0)
        looks = range(20, most + 1, 20)
        wrong = [anytime_lower(torch.from_numpy(hits[n - 1]), n, alpha).numpy() > truth for n in looks]
        assert np.any(wrong, 0).sum() <= stats.binom.ppf(1 - 1e-6, images, alpha)
        fixed = [clopper_pearson_lower(torch.from_numpy(hits[n - 1]), n, alpha).numpy() > truth for n in looks]
        assert np.any(fixed, 0).mean() > alpha  # which is why it is not used here


def test_betting_holds_though_the_rule_waits_for_an_error():
    random, alpha, images, most = np.random.default_rng(1), 0.1, 1500, 200
    for a, b in ((19, 1), (0.9, 0.1), (2, 2)):
        draws = torch.from_numpy(random.beta(a, b, (most, images)))
        bound = SOFT_BOUNDS["betting"](alpha, most)
        state, wrong = bound.start((images,)), torch.zeros(images, dtype=torch.bool)
        for some in draws.split(17):  # looks inside groups of ten as well
            state = bound.add(state, some)
            wrong |= bound.lower(state) > a / (a + b)
        assert int(wrong.sum()) <= stats.binom.ppf(1 - 1e-6, images, alpha)


def test_radii_after_a_rule_that_looks_fail_in_no_more_images_than_promised():
    """Images of six pixels whose probabilities are known; sampling stops once a pixel seems certified far."""
    random, alpha, images, wrong = np.random.default_rng(2), 0.1, 60, 0
    truth = np.array([0.5, 0.6, 0.8, 0.9, 0.97, 0.99])
    test = PixelRadii(alpha)

    def hopeful(votes):
        return bool((test(votes).radius > torch.special.ndtri(torch.from_numpy(truth)).view(2, 3)).any())

    for _ in range(images):
        drawn = torch.from_numpy(random.random((204, 2, 3)) < truth.reshape(2, 3)).float()
        stream = iter(drawn)

        def answer(x, stream=stream):
            mine = torch.stack([next(stream) for _ in range(len(x))])
            return torch.stack([mine, 1 - mine], 1)

        sampling = Sampling(Noise(1.0), 4, 200, 10, hopeful, 20)
        votes = vote(answer, torch.zeros(3, 2, 3), 2, sampling, KEY)
        far = torch.special.ndtri(torch.from_numpy(truth)).view(2, 3)
        wrong += bool(((test(votes).radius > far) & (votes.guess == 0)).any())
    assert wrong <= stats.binom.ppf(1 - 1e-6, images, alpha)


@pytest.mark.parametrize("bound", sorted(SOFT_BOUNDS))
def test_one_stream_gives_the_votes_and_the_confidences_of_two(bound):
    sampling, soft = Sampling(Noise(0.2), 5, 33), SoftRadii(0.01, bound)
    votes, found = vote_softly(confide, IMAGE, 5, sampling, KEY, soft)
    alone = vote(logits, IMAGE, 5, sampling, KEY)
    assert torch.equal(votes.first, alone.first)
    assert torch.equal(votes.counts, alone.counts)
    other = soft(lambda x: logits(x).softmax(1), IMAGE, 5, sampling, KEY)
    assert torch.equal(found.guess, other.guess)
    assert torch.equal(found.radius, other.radius)


def test_one_stream_survives_a_kill_and_stops_where_its_votes_do():
    sampling = Sampling(Noise(0.1), 4, 400, 3, SegCertify(0.6, 0.1).decided(400, 0.9), 20)
    args = confide, IMAGE, 5, sampling, KEY, SoftRadii(0.1)
    votes, found = vote_softly(*args)
    assert 20 <= votes.n < 400
    assert votes.looks
    journal = Kept(4)
    with pytest.raises(KeyboardInterrupt):
        vote_softly(*args, journal=journal)
    again, resumed = vote_softly(*args, journal=journal)
    assert torch.equal(again.counts, votes.counts)
    assert torch.equal(resumed.radius, found.radius)


@pytest.mark.parametrize("bound", ["bernstein", "hoeffding"])
def test_bounds_for_a_fixed_number_refuse_another(bound):
    for how in ({"enough": lambda votes: False}, {"seconds": 1.0}):
        with pytest.raises(InputError, match=f"{bound} needs a number of copies that was fixed before"):
            vote_softly(confide, IMAGE, 5, Sampling(Noise(0.2), 5, 33, **how), KEY, SoftRadii(0.01, bound))


def test_a_budget_of_seconds_ends_sampling_after_the_pass_that_used_it_up():
    sampling = Sampling(Noise(0.2), 6, 500, 2, seconds=10.0)
    clock = count()  # a second at every look at the clock
    votes = vote(logits, IMAGE, 5, replace(sampling, clock=lambda: float(next(clock))), KEY)
    # One look when it begins, one after each pass, and one between the lots.
    assert 0 < votes.n < 20
    assert votes.looks
    slow = vote(logits, IMAGE, 5, replace(sampling, clock=lambda: 100.0 * next(clock)), KEY)
    assert slow.n == 2  # something is tested however short the time is
    never = vote(logits, IMAGE, 5, replace(sampling, n=20, clock=lambda: 0.0), KEY)
    assert never.n == 20


def test_seconds_spent_before_a_kill_count():
    clock, journal = count(), Kept(6)
    sampling = Sampling(Noise(0.2), 6, 500, 2, seconds=10.0, clock=lambda: float(next(clock)))
    with pytest.raises(KeyboardInterrupt):
        vote(logits, IMAGE, 5, sampling, KEY, journal=journal)
    spent = journal.standing["seconds"]
    assert spent > 0
    votes = vote(logits, IMAGE, 5, sampling, KEY, journal=journal)
    assert votes.n < 2 * 12
    assert journal.standing["seconds"] >= 10
