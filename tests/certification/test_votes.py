"""Counting: every copy once, whatever the size of a pass, a kill in between, or an early stop."""

import math

import pytest
import torch

from segradius.certification import (
    Adaptive,
    Hierarchy,
    Noise,
    PixelRadii,
    Sampling,
    SegCertify,
    Votes,
    anytime_p_values,
    vote,
)
from segradius.certification.votes import VoteTally
from segradius.core.errors import InputError
from segradius.core.prediction import predict
from segradius.core.randomness import Randomness

KEY = Randomness(3, ("scene",))
IMAGE = torch.rand((3, 6, 7), generator=torch.Generator().manual_seed(0))


def mix(images):
    """Five classes from three colours, pixel by pixel."""
    return torch.cat([images, images.mean(1, keepdim=True), 1 - images[:, :1]], 1)


class Kept:
    """A journal in memory that stops the run after some saves."""

    def __init__(self, stop=None):
        self.standing, self.saves, self.stop = None, 0, stop

    def load(self):
        return self.standing

    def save(self, standing):
        self.standing = {k: v.clone() if isinstance(v, torch.Tensor) else v for k, v in standing().items()}
        self.saves += 1
        if self.saves == self.stop:
            raise KeyboardInterrupt


@pytest.mark.parametrize("clamp", [False, True])
@pytest.mark.parametrize("where", [False, True])
def test_votes_are_those_of_a_plain_loop(clamp, where):
    mask = torch.arange(42).view(6, 7) % 3 == 0 if where else None
    first, counts = torch.zeros(5, 6, 7, dtype=torch.int32), torch.zeros(5, 6, 7, dtype=torch.int32)
    for j in range(4 + 9):
        drawn = 0.3 * KEY.normal((3, 6, 7), "smoothing", j)[0]
        noisy = IMAGE + (drawn * mask if where else drawn)
        classes = mix((noisy.clamp(0, 1) if clamp else noisy).unsqueeze(0)).argmax(1)[0]
        for c in range(5):
            (first if j < 4 else counts)[c] += classes == c
    found = vote(mix, IMAGE, 5, Sampling(Noise(0.3, clamp, mask), 4, 9), KEY)
    assert torch.equal(found.first.int(), first)
    assert torch.equal(found.counts.int(), counts)
    assert torch.equal(found.successes, counts.gather(0, first.argmax(0, keepdim=True))[0])
    assert torch.equal(found.majority, (first + counts).argmax(0))
    assert (found.n0, found.n, found.finite, found.looks) == (4, 9, True, False)


def test_the_size_of_a_pass_changes_nothing_and_progress_counts_copies():
    whole = vote(mix, IMAGE, 5, Sampling(Noise(0.3), 10, 33), KEY)
    for together in (1, 7, 64):
        done = []
        found = vote(mix, IMAGE, 5, Sampling(Noise(0.3), 10, 33, together), KEY, progress=done.append)
        assert torch.equal(found.counts, whole.counts)
        assert torch.equal(found.first, whole.first)
        assert sum(done) == 43


def test_other_images_and_seeds_have_other_noise():
    counts = [vote(mix, IMAGE, 5, Sampling(Noise(0.3), 1, 30), Randomness(*key)).counts
              for key in ((3, ("scene",)), (3, ("other",)), (4, ("scene",)))]  # fmt: skip
    assert not torch.equal(counts[0], counts[1])
    assert not torch.equal(counts[0], counts[2])


@pytest.mark.parametrize("stop", [1, 2, 3, 5, 11])
@pytest.mark.parametrize("early", [False, True])
def test_a_killed_run_goes_on_with_the_next_copy(stop, early):
    asked = []

    def answer(images):
        asked.append(len(images))
        return mix(images)

    test = SegCertify(tau=0.6, alpha=0.1)
    sampling = Sampling(Noise(0.2), 6, 60, 3, test.decided(60, 0.3) if early else None, every=9)
    whole = vote(mix, IMAGE, 5, sampling, KEY)
    journal = Kept(stop)
    with pytest.raises(KeyboardInterrupt):
        vote(answer, IMAGE, 5, sampling, KEY, journal=journal)
    journal.stop = None
    found = vote(answer, IMAGE, 5, sampling, KEY, journal=journal)
    assert torch.equal(found.counts, whole.counts)
    assert found.n == whole.n
    assert sum(asked) == 6 + whole.n
    assert not early or whole.n < 60  # the rule does stop here


def test_stopping_early_keeps_what_was_certified_in_sight_of_every_look():
    test = SegCertify(tau=0.6, alpha=0.05)
    stopped = vote(mix, IMAGE, 5, Sampling(Noise(0.2), 20, 2000, enough=test.decided(2000), every=50), KEY)
    assert stopped.looks
    found = test(stopped)
    p = anytime_p_values(stopped.successes, stopped.n, 0.6)
    assert torch.equal(found.certified, p <= p[found.certified].max())
    hopeless = anytime_p_values(stopped.successes + 2000 - stopped.n, 2000, 0.6) > 0.05 / 42
    assert (found.certified | hopeless)[~found.certified].all()


def test_an_answer_that_is_not_finite_leaves_no_pixel_certified():
    def broken(images):
        logits = mix(images)
        logits[0, 0, 0, 0] = math.nan
        return logits

    found = vote(broken, IMAGE, 5, Sampling(Noise(0.01), 5, 100), KEY)
    assert not found.finite
    assert not SegCertify(correction="none")(found).certified.any()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: Noise(0.0), "sigma is 0.0"),
        (lambda: Noise(0.1, where=torch.ones(3, 4)), r"where is torch.float32 \(3, 4\)"),
        (lambda: Sampling(Noise(0.1), 0, 10), "n0 is 0"),
        (lambda: Sampling(Noise(0.1), 1, 10, 0), "together is 0"),
    ],
)
def test_bad_values_are_named(call, message):
    with pytest.raises(InputError, match=message):
        call()


def test_largest_values_and_classes_are_voted_for_as_their_logits_are():
    sampling = Sampling(Noise(0.3), 10, 33)
    whole = vote(mix, IMAGE, 5, sampling, KEY)
    found = vote(lambda images: predict(mix(images)), IMAGE, 5, sampling, KEY)
    assert torch.equal(found.first, whole.first)
    assert torch.equal(found.counts, whole.counts)
    broken = vote(lambda images: predict(mix(images).log()), -IMAGE, 5, sampling, KEY)
    assert not broken.finite


@pytest.mark.parametrize(("n", "dtype"), [(2**15 - 11, torch.int16), (2**15 - 10, torch.int32)])
def test_counts_have_room_for_all_votes(n, dtype):
    counted = VoteTally.opened(IMAGE, 5, Sampling(Noise(0.3), 10, n), None)
    assert counted.first.dtype == counted.counts.dtype == dtype


def test_some_rows_at_a_time_give_the_same_certificates(monkeypatch):
    generator = torch.Generator().manual_seed(1)
    lots = [torch.randint(0, 40, (5, 9, 7), generator=generator, dtype=torch.int16) for _ in range(2)]
    levels = Hierarchy.of(tuple("abcde"), [{"x": ["a", "b"], "y": ["d", "e"]}])
    certify = (SegCertify(0.5, 0.3), PixelRadii(0.3, "two"), Adaptive(SegCertify(0.5, 0.3), levels, 0.1))

    def found():
        one = Votes(*lots, 100, int(lots[1].sum(0).max()), 0.25)
        given = [made for each in certify for made in vars(each(one)).values() if isinstance(made, torch.Tensor)]
        return [*given, one.guess, one.successes, one.majority, one.rival]

    whole = found()
    monkeypatch.setattr("segradius.certification.votes._AT_ONCE", 70)
    assert all(torch.equal(one, other) for one, other in zip(found(), whole, strict=True))
    guess, counts = lots[0].argmax(0), lots[1].clone().long()
    assert torch.equal(whole[-1], counts.scatter(0, guess[None], -1).amax(0))
    assert torch.equal(whole[-2], (lots[0] + lots[1]).argmax(0))
