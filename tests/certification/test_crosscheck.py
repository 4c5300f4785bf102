"""Cross-checks where everything is known: a linear model, on which attacks attain the bound behind certified radii."""

import math
from dataclasses import replace
from functools import partial
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

import segradius as sr
from segradius.certification import (
    Certificate,
    Noise,
    PixelRadii,
    Sampling,
    SegCertify,
    Votes,
    aims,
    crosscheck,
    refuted,
    self_test,
    summarise,
    vote,
)
from segradius.certification.crosscheck import AT_REST, CR_PGD, Aim, CrossCheck, Verdict, _levels, _lower_tail
from segradius.certification.selftest import Brightness, margins
from segradius.core.errors import InputError
from segradius.core.ledger import Ledger
from segradius.core.randomness import Randomness
from tiny import CLASSES, Counting, batch, network

SIGMA = 0.25
U = torch.linspace(0, 3, 64).view(8, 8)  # Φ⁻¹ of the probability of class 1 on each pixel of `margins`
ONES = torch.ones(8, 8, dtype=torch.bool)


def certificate(radius, certified=ONES, level=None):
    """Of class 1."""
    return Certificate(torch.ones(8, 8).long(), certified, radius.float(), SIGMA, 0.001, "image", level)


def darker(pixel, eps, cut=0.0):
    """An attack that makes one pixel darker by a length of ε: what a best attack would do."""

    def attack(model, images, labels, **others):
        delta = torch.zeros_like(images)
        delta[:, :, pixel // 8, pixel % 8] = -(eps - cut) / math.sqrt(3)
        return SimpleNamespace(adversarial=images + delta, ledger=Ledger(1))

    return attack


def check(claim, attacks, copies=1500, **options):
    """Verdicts on the linear model under attacks given by name as (ε, attacked pixel)."""
    tried = {name: Aim(eps, torch.arange(64).view(8, 8) == pixel) for name, (eps, pixel) in attacks.items()}
    pixels = iter([pixel for _, pixel in attacks.values()])
    return crosscheck(
        Brightness(), Noise(SIGMA), margins(SIGMA), claim, tried,
        attack=lambda eps: darker(next(pixels), eps), copies=copies, **options,
    )  # fmt: skip


def test_true_radii_are_never_refuted_and_the_best_attack_uses_all_of_the_bound():
    attacks = {str(pixel): (0.99 * SIGMA * float(U.flatten()[pixel]), pixel) for pixel in (8, 20, 33, 50)}
    found = check(certificate(SIGMA * U), attacks)
    for name, verdict in found.verdicts.items():
        assert (verdict.lost, verdict.below, verdict.finite) == (0, 0, True)
        if name != AT_REST:
            assert verdict.used == pytest.approx(1, abs=0.15)
            assert verdict.length == pytest.approx(attacks[name][0], rel=1e-5)
            assert verdict.pixels == (verdict.length < SIGMA * U).sum()
    assert found.ledger.by_purpose() == {"certification": {"forward": 5 * 1500, "backward": 0}}


def test_radii_that_are_too_large_fall_below_their_bound_at_rest_and_lose_the_class_under_attack():
    found = check(certificate(1.5 * SIGMA * U), {"attack": (1.45 * SIGMA * float(U.flatten()[20]), 20)}).verdicts
    # Pixels with Φ(1.5u) − Φ(u) beyond five standard deviations of a share of 1500 votes.
    gap = torch.special.ndtr(1.5 * U) - torch.special.ndtr(U)
    assert found[AT_REST].below >= (gap > 5 * 0.5 / math.sqrt(1500)).sum() > 10
    assert found[AT_REST].lost == 0
    assert found["attack"].lost == found["attack"].flipped == 1
    assert found["attack"].below >= 1


def test_a_flip_near_a_tie_proves_nothing():
    """At u = 0.02 the class has 50.8 % of the votes: in 200 of them the other one wins now and then."""
    claim = certificate(torch.full((8, 8), 0.02 * SIGMA))
    image = torch.full((3, 8, 8), 0.5 + SIGMA * 0.02 / math.sqrt(3))
    found = crosscheck(Brightness(), Noise(SIGMA), image, claim, {}, copies=200).verdicts[AT_REST]
    assert found.flipped > 10
    assert (found.lost, found.below) == (0, 0)


def test_pixels_certified_as_a_group_are_left_out():
    level = (U > 1).long()
    found = check(certificate(SIGMA * U, level=level), {}, copies=50).verdicts[AT_REST]
    assert found.pixels == ((level == 0) & (U > 0)).sum()


def test_the_gradient_attack_uses_the_bound_as_the_closed_form_says():
    """Weakest pixels that are independent and alike share the budget: each gets the root of its share of it."""
    image = torch.full((3, 8, 8), 0.5 + SIGMA * 1.2 / math.sqrt(3))
    claim = certificate(torch.full((8, 8), SIGMA))
    victims = {str(count): Aim(0.99 * SIGMA, torch.arange(64).view(8, 8) < count) for count in (1, 9)}
    found = crosscheck(
        Brightness(), Noise(SIGMA), image, claim, victims, attack=partial(CR_PGD, steps=5), samples=16, copies=1000
    ).verdicts
    for count in (1, 9):
        assert found[str(count)].used == pytest.approx(1 / math.sqrt(count), abs=0.1)
        assert found[str(count)].length == pytest.approx(0.99 * SIGMA, rel=1e-3)
        assert (found[str(count)].lost, found[str(count)].below) == (0, 0)


def test_only_pixels_with_noise_are_attacked_and_every_pass_is_in_the_ledger():
    counting = Counting(sr.wrap(network(dtype=torch.float32), num_classes=CLASSES))
    image = batch(1, dtype=torch.float32)[0][0]
    where, seen = U > 1, []

    def maker(eps):
        attack = sr.make_attack("pgd", eps=eps, steps=3, keep="last")

        def spy(*given, **options):
            seen.append(attack(*given, **options))
            return seen[-1]

        return spy

    guess = counting.model.logits(image[None]).argmax(1)[0]
    claim = replace(certificate(torch.full((8, 8), 0.3)), guess=guess)
    found = crosscheck(
        counting, Noise(SIGMA, where=where), image, claim, {"all": Aim(0.2, ONES)}, attack=maker, samples=3, copies=10
    )
    assert not seen[0].delta[0][:, ~where].any()
    assert seen[0].delta[0][:, where].any()
    assert found.ledger.forward.sum() == counting.forward
    assert found.ledger.backward.sum() == counting.backward


def certifier(test, n=500, sampled=SIGMA, claimed=SIGMA):
    def certify(model, image, keys):
        votes = vote(model.logits, image, model.num_classes, Sampling(Noise(sampled), 20, n), keys)
        votes = replace(votes, sigma=claimed)
        return votes, test(votes)

    return certify


@pytest.mark.parametrize("test", [SegCertify(), SegCertify(0.9), SegCertify(correction="bonferroni"), PixelRadii()])
def test_the_self_test_passes_certifiers_that_hold(test):
    found = self_test(certifier(test), SIGMA, 0.001, images=3, weakest=(1, 3), copies=600)
    assert refuted(found) == []
    assert found["all"].pixels > 0
    assert found["weakest 1"].used == pytest.approx(1, abs=0.25)


def test_the_self_test_finds_a_certifier_that_votes_under_half_the_noise_even_at_rest():
    found = refuted(self_test(certifier(SegCertify(), sampled=SIGMA / 2), SIGMA, 0.001, images=6))
    assert {"below, at rest", "below, weakest 1", "lost, weakest 1"} <= set(found)


def test_the_self_test_finds_a_certifier_that_claims_twice_the_radius_by_its_lost_classes_alone():
    found = refuted(self_test(certifier(SegCertify(), claimed=2 * SIGMA), SIGMA, 0.001, images=4, copies=600))
    assert "lost, weakest 1" in found
    assert "below, at rest" not in found


@pytest.mark.parametrize("broken", [{"sampled": SIGMA / 2}, {"claimed": 2 * SIGMA}])
def test_the_self_test_finds_broken_radii_of_single_pixels(broken):
    assert refuted(self_test(certifier(PixelRadii(), **broken), SIGMA, 0.001, images=4, copies=600))


def test_radii_from_two_bounds_promise_the_class_and_not_its_probability():
    """Probabilities 0.45 and eleven of 0.05: the class is certified at ½(Φ⁻¹(0.45) − Φ⁻¹(0.05)) = 0.76 σ or so."""
    edges = torch.special.ndtri(torch.tensor([0.45 + 0.05 * k for k in range(11)], dtype=torch.float64)).float()

    def logits(images):
        place = ((images[:, :1] - 0.5) / SIGMA > edges.view(1, -1, 1, 1)).sum(1, keepdim=True)
        return -9.0 * (place - torch.arange(12).view(1, -1, 1, 1)).abs()

    image = torch.full((3, 8, 8), 0.5)
    votes = vote(logits, image, 12, Sampling(Noise(SIGMA), 100, 2000), Randomness(0, ("two",)))
    claim = PixelRadii(form="two")(votes)
    assert claim.certified.all()
    found = crosscheck(sr.wrap(logits, num_classes=12), Noise(SIGMA), image, claim, {}, copies=500)
    summary = summarise([found] * 4, 0.001)
    assert refuted(summary, statements=("lost",)) == []
    assert refuted(summary) == ["below, at rest"]


def test_aims_lie_inside_the_radii_and_take_the_fewest_votes():
    counts = torch.stack([1000 - torch.arange(64), torch.arange(64)]).view(2, 8, 8).int()
    votes = Votes(torch.tensor([0, 10]).int().view(2, 1, 1).expand(2, 8, 8), counts, 10, 1000, SIGMA)
    claim = certificate(torch.where(U > 1, U, 0.0), certified=U > 1)
    found = aims(claim, votes, weakest=(1, 5), quantiles=(0.0, 0.5), share=0.9)
    names = [f"{kind}{label}" for label in ("", " at quantile 0.5") for kind in ("all", "weakest 1", "weakest 5")]
    assert list(found) == names
    for label in ("", " at quantile 0.5"):
        every, one, five = (found[f"{kind}{label}"] for kind in ("all", "weakest 1", "weakest 5"))
        assert torch.equal(every.victims, (U > 1) & (every.eps < U))
        place = every.victims.flatten().nonzero().flatten()
        assert five.victims.flatten().nonzero().flatten().tolist() == place[:5].tolist()
        assert one.victims.flatten().nonzero().item() == place[0]
        assert every.eps == one.eps == five.eps
    assert list(aims(replace(claim, radius=torch.full((8, 8), 0.1)), votes, quantiles=(0.0, 0.5))) == ["all"]
    assert aims(replace(claim, certified=~ONES), votes, weakest=(1,)) == {}
    with pytest.raises(InputError, match="share is 1"):
        aims(claim, votes, share=1)


@given(st.integers(1, 40), st.integers(0, 64), st.floats(1e-6, 0.1))
def test_levels_of_the_pixels_sum_to_alpha(step, certified, alpha):
    there = torch.arange(64).view(8, 8) < certified
    victims = torch.arange(64).view(8, 8) % step == 0
    levels = _levels(there, victims, alpha)
    assert (levels[~there] < 0).all()
    assert float(levels[there].sum()) == pytest.approx(alpha if certified else 0)


@given(st.integers(0, 50), st.integers(0, 50), st.floats(0.01, 0.99))
def test_the_lower_tail_is_the_binomial_one(hits, more, p):
    found = _lower_tail(torch.tensor([hits]), torch.tensor([hits + more]), torch.tensor([p], dtype=torch.float64))
    assert found.item() == pytest.approx(stats.binom.cdf(hits, hits + more, p), rel=1e-9)


def test_a_summary_counts_images_against_the_sum_of_both_error_rates():
    def of(below, lost=0, used=None):
        verdict = Verdict(0.1, 100, 7, lost, below, used, finite=True)
        return CrossCheck("a", {"all": verdict}, 0.02, Ledger(1))

    found = summarise([of(3, used=0.5), of(0, used=0.7), of(0)], alpha=0.03)["all"]
    assert (found.images, found.pixels, found.flipped, found.below, found.images_below) == (3, 300, 21, 3, 1)
    assert found.used == pytest.approx(0.6)
    assert found.p_below == pytest.approx(1 - 0.95**3)
    assert found.p_lost == 1
    assert refuted({"all": found}) == []
    assert refuted({"all": found}, level=0.5) == ["below, all"]
    assert refuted({"all": found}, level=0.15, statements=("below",)) == ["below, all"]


def test_one_copy_judges_nothing():
    with pytest.raises(InputError, match="copies is 1"):
        crosscheck(Brightness(), Noise(SIGMA), margins(SIGMA), certificate(SIGMA * U), {}, copies=1)
