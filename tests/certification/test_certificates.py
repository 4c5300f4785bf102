"""What follows from votes: SegCertify, radii, groups and measures against their definitions and closed forms."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from segradius.certification import (
    ABSTAIN,
    Adaptive,
    Certificate,
    Hierarchy,
    Noise,
    PixelRadii,
    Sampling,
    SegCertify,
    SoftRadii,
    Votes,
    boundary,
    certified_counts,
    information_gain,
    vote,
)
from segradius.certification.soft import SOFT_BOUNDS
from segradius.core.errors import InputError
from segradius.core.randomness import Randomness
from segradius.metrics.statistics import miou, pooled_accuracy

KEY = Randomness(0, ("scene",))


def votes_of(first, counts, sigma=0.25, finite=True, looks=False):
    """Votes of one row of pixels from lists (pixels, C)."""
    lots = [torch.tensor(lot, dtype=torch.int32).T.unsqueeze(1) for lot in (first, counts)]
    return Votes(*lots, sum(first[0]), sum(counts[0]), sigma, finite, looks)


def test_segcertify_is_the_published_procedure():
    """Mode of the first votes, one-sided binomial test of the others, Bonferroni over the image, radius σΦ⁻¹(τ)."""
    counts = [[100, 0, 0], [97, 3, 0], [80, 20, 0], [0, 100, 0]]
    found = SegCertify(tau=0.75, alpha=0.001, correction="bonferroni")(votes_of([[6, 4, 0]] * 4, counts))
    p = [stats.binomtest(c[0], 100, 0.75, alternative="greater").pvalue for c in counts]
    assert found.certified[0].tolist() == [each <= 0.001 / 4 for each in p] == [True, True, False, False]
    assert found.prediction[0].tolist() == [0, 0, ABSTAIN, ABSTAIN]
    assert found.radius[0].tolist() == pytest.approx([0.25 * stats.norm.ppf(0.75)] * 2 + [0, 0], rel=1e-6)
    assert (found.promise, found.alpha, found.abstained) == ("image", 0.001, 0.5)


def test_the_guess_comes_from_the_first_votes_alone():
    found = SegCertify()(votes_of([[4, 6]], [[1000, 0]]))
    assert found.guess.item() == 1
    assert not found.certified.any()


def test_votes_that_were_looked_at_need_more():
    test, needed = SegCertify(correction="none"), {}
    for looks in (False, True):
        tried = {s: test(votes_of([[1, 0]], [[s, 100 - s]], looks=looks)) for s in range(101)}
        certified = [s for s, found in tried.items() if found.certified]
        needed[looks] = certified[0]
        assert certified == list(range(certified[0], 101))
    assert needed[False] < needed[True]


@given(st.lists(st.integers(0, 200), min_size=1, max_size=8), st.sampled_from([1e-3, 0.05]))
def test_radii_of_one_class_are_those_of_scipys_interval(successes, alpha):
    found = PixelRadii(alpha)(votes_of([[1, 0]] * len(successes), [[s, 200 - s] for s in successes]))
    for radius, s in zip(found.radius[0].tolist(), successes, strict=True):
        low = stats.beta.ppf(alpha / len(successes), s, 201 - s) if s else 0.0
        assert radius == pytest.approx(max(0.0, 0.25 * stats.norm.ppf(low)), abs=1e-6)


def test_two_classes_bound_the_runner_up():
    counts, alpha = [[450, 300, 250]], 0.001
    found = PixelRadii(alpha, "two")(votes_of([[5, 4, 1]], counts))
    low = stats.beta.ppf(alpha / 2, 450, 551)
    high = stats.beta.isf(alpha / 4, 301, 700)
    assert found.radius.item() == pytest.approx(0.125 * (stats.norm.ppf(low) - stats.norm.ppf(high)), rel=1e-5)
    assert found.certified.all()  # with less than half of the votes
    assert not PixelRadii(alpha)(votes_of([[5, 4, 1]], counts)).certified.any()


def test_with_two_classes_in_all_the_forms_agree_but_for_the_split_error():
    votes = votes_of([[9, 1]], [[900, 100]])
    assert PixelRadii(0.002, "two")(votes).radius.item() == pytest.approx(
        PixelRadii(0.001)(votes).radius.item(), rel=1e-5
    )


def test_the_error_rate_is_split_over_the_pixels_of_the_image():
    few, many = ([[60, 40]] + [[98, 2]] * others for others in (1, 49))
    for test in (PixelRadii(0.001), PixelRadii(0.001, "two")):
        small, large = (test(votes_of([[1, 0]] * len(counts), counts)) for counts in (few, many))
        assert small.radius[0, 1] > large.radius[0, 1] > 0
    needed = []
    for pixels in (2, 50):
        tried = [[[s, 100 - s]] + [[50, 50]] * (pixels - 1) for s in range(101)]
        test = SegCertify(0.5, correction="bonferroni")
        needed.append([bool(test(votes_of([[1, 0]] * pixels, counts)).certified[0, 0]) for counts in tried].index(True))
    assert needed[0] < needed[1]


def test_radii_of_votes_that_were_looked_at_are_smaller():
    for form in ("one", "two"):
        fixed, looked = (
            PixelRadii(form=form)(votes_of([[1, 0, 0]] * 3, [[100, 0, 0], [80, 15, 5], [40, 30, 30]], looks=looks))
            for looks in (False, True)
        )
        assert (looked.radius <= fixed.radius).all()
        assert 0 < looked.radius[0, 0] < fixed.radius[0, 0]


@pytest.mark.parametrize("bound", sorted(SOFT_BOUNDS))
def test_soft_radii_are_the_bound_of_the_mean_confidence(bound):
    image = torch.rand((3, 4, 5), generator=torch.Generator().manual_seed(1))
    sampling = Sampling(Noise(0.2), 5, 60)

    def probabilities(x):
        return (6 * x).softmax(1)

    found = SoftRadii(0.01, bound)(probabilities, image, 3, sampling, KEY)
    each = torch.cat([probabilities(sampling.noise.copies(image, KEY, j, 1)) for j in range(65)])
    guess = each[:5].double().mean(0).argmax(0)
    confidence = each[5:].gather(1, guess.expand(60, 1, -1, -1)).squeeze(1)
    made = SOFT_BOUNDS[bound](0.01 / 20, 60)
    low = made.lower(made.add(made.start((4, 5)), confidence))
    expected = 0.2 * torch.special.ndtri(low).clamp_min(0)
    assert torch.equal(found.guess, guess)
    assert torch.allclose(found.radius.double(), expected, atol=1e-5)
    assert torch.equal(found.certified, expected > 0)


def test_soft_radii_survive_a_kill():
    class Kept:
        standing, saves = None, 0

        def load(self):
            return self.standing

        def save(self, standing):
            self.standing = {
                k: {n: t.clone() if torch.is_tensor(t) else t for n, t in v.items()} if isinstance(v, dict)
                else v.clone() if torch.is_tensor(v) else v for k, v in standing().items()
            }  # fmt: skip
            self.saves += 1
            if self.saves == 9:
                raise KeyboardInterrupt

    image, sampling = torch.rand(3, 4, 5), Sampling(Noise(0.2), 6, 60, 3)
    certify = [lambda x: (6 * x).softmax(1), image, 3, sampling, KEY]
    whole, journal = SoftRadii(0.01)(*certify), Kept()
    with pytest.raises(KeyboardInterrupt):
        SoftRadii(0.01)(*certify, journal=journal)
    assert torch.equal(SoftRadii(0.01)(*certify, journal=journal).radius, whole.radius)


def test_a_pixel_in_doubt_is_certified_as_a_group():
    hierarchy = Hierarchy.of(("road", "path", "car"), [{"ground": ["road", "path"]}])
    votes = votes_of([[10, 0, 0], [6, 4, 0], [6, 0, 4]], [[100, 0, 0], [60, 40, 0], [60, 0, 40]])
    found = Adaptive(SegCertify(), hierarchy)(votes)
    assert found.level[0].tolist() == [0, 1, 0]
    assert found.certified[0].tolist() == [True, True, False]
    assert SegCertify()(votes).certified[0].tolist() == [True, False, False]
    right = torch.tensor([[True, True, True]])
    gain = information_gain(found, hierarchy.sizes(), right)[0].tolist()
    assert gain == pytest.approx([1.0, 1 - math.log(2) / math.log(3), 0.0])


@pytest.mark.parametrize(
    ("groupings", "message"),
    [
        ([{"ground": ["road", "paths"]}], "path"),
        ([{"a": ["road", "path"], "b": ["path", "car"]}], "path is in two groups, a and b"),
        ([{"a": ["road", "path"]}, {"b": ["path", "car"]}], "splits a group of the finer"),
    ],
)
def test_bad_groupings_are_named(groupings, message):
    with pytest.raises(InputError, match=message):
        Hierarchy.of(("road", "path", "car"), groupings)


def test_an_abstained_pixel_is_wrong_but_no_class():
    guess, labels = torch.tensor([[0, 0, 1, 1]]), torch.tensor([[0, 0, 1, 255]])
    certified = torch.tensor([[True, False, True, True]])
    certificate = Certificate(guess, certified, torch.where(certified, 0.2, 0.0), 0.25, 0.001, "image")
    counts = certified_counts(certificate, labels, 3)
    assert counts.intersection.tolist() == [[1, 1, 0]]
    assert pooled_accuracy(counts) == pytest.approx(2 / 3)
    assert miou(counts) == pytest.approx((1 / 2 + 1) / 2)
    assert certified_counts(certificate, labels, 3, eps=0.2).intersection.sum() == 0


@pytest.mark.parametrize("width", [1, 3])
def test_boundary_is_a_plain_search_of_the_window(width):
    labels = torch.randint(0, 3, (9, 11), generator=torch.Generator().manual_seed(0))
    labels = labels.repeat_interleave(3, 0).repeat_interleave(3, 1)
    labels[4:9, 5:8] = 255
    found = boundary(labels, width)
    for r in range(27):
        for c in range(33):
            window = labels[max(r - width, 0) : r + width + 1, max(c - width, 0) : c + width + 1]
            near = set(window.flatten().tolist()) - {255}
            assert bool(found[r, c]) == (labels[r, c] != 255 and len(near) > 1)


def test_smoothing_only_a_region_leaves_the_rest_of_the_image_as_it_is():
    where = torch.zeros(4, 4, dtype=torch.bool)
    where[:2] = True
    image = torch.rand(3, 4, 4)
    copies = Noise(0.5, where=where).copies(image, KEY, 0, 6)
    assert torch.equal(copies[:, :, 2:], image.expand(6, -1, -1, -1)[:, :, 2:])
    assert (copies[:, :, :2] != image[:, :2]).all()


def test_a_linear_model_is_never_certified_beyond_its_exact_radius():
    """Two classes, 1×1 convolution: the smoothed class changes exactly at the plane (Cohen et al., Appendix)."""
    weight = torch.tensor([0.8, -0.5, 0.3])
    image = torch.rand((3, 8, 8), generator=torch.Generator().manual_seed(2))
    margin = torch.einsum("c,chw->hw", weight, image - 0.5)

    def answer(x):
        value = torch.einsum("c,nchw->nhw", weight, x - 0.5)
        return torch.stack([value, -value], 1)

    votes = vote(answer, image, 2, Sampling(Noise(0.1), 50, 4000), Randomness(1, ("linear",)))
    exact = margin.abs() / weight.norm()
    for certify in (PixelRadii(0.001), PixelRadii(0.001, "two"), SegCertify(tau=0.7)):
        found = certify(votes)
        assert torch.equal(found.guess[found.certified], (margin < 0).long()[found.certified])
        assert (found.radius[found.certified] <= exact[found.certified]).all()
    clear = (exact > 0.1) & (exact < 0.2)
    assert (PixelRadii(0.001)(votes).radius[clear] > 0.7 * exact[clear]).all()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: SegCertify(tau=0.4), "tau is 0.4"),
        (lambda: SegCertify(alpha=1.0), "alpha is 1.0"),
        (lambda: SegCertify(k=3), "k is 3, which does nothing here: it is for correction=kfwer"),
        (lambda: SegCertify(correction="holms"), "holm"),
        (lambda: PixelRadii(form="three"), "form"),
        (lambda: PixelRadii(alpha=0), "alpha is 0"),
        (lambda: SoftRadii(bound="student"), "student"),
        (lambda: Adaptive(SegCertify(), Hierarchy.of(("a",), []), 1.5), "gap is 1.5"),
    ],
)
def test_bad_values_are_named(call, message):
    with pytest.raises(InputError, match=message):
        call()
