"""Raw outputs to logits, against formulas written out."""

from __future__ import annotations

import math
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import segradius as sr
from segradius.core.errors import InputError
from segradius.models.decoding import Decoding, as_decode, log_probabilities, undo_sigmoids
from segradius.models.picking import main_output, query_log_scores


def test_forms_of_output():
    z = torch.rand(1, 4, 2, 2)
    for raw in (z, {"out": z, "aux": z + 1}, {"logits": z}, SimpleNamespace(logits=z), (z, None), [{"out": z}]):
        assert main_output(raw) is z


@pytest.mark.parametrize("raw", [None, {}, {"masks": torch.zeros(1)}, (), 3.0, ["logits"]])
def test_other_forms_are_refused(raw):
    with pytest.raises(InputError, match="expected a tensor"):
        main_output(raw)


def test_softmax_of_log_probabilities_gives_them_back():
    p = torch.rand(2, 5, 3, 3).softmax(1)
    p[:, 0] = 0
    p = p / p.sum(1, keepdim=True)
    z = log_probabilities(p)
    assert z.isfinite().all()
    torch.testing.assert_close(z.softmax(1), p)


def test_query_scores_equal_the_sum_over_queries():
    torch.manual_seed(0)
    queries, masks = 3 * torch.randn(2, 6, 5, dtype=torch.float64), 3 * torch.randn(2, 6, 3, 4, dtype=torch.float64)
    expected = torch.zeros(2, 4, 3, 4, dtype=torch.float64)
    for q in range(6):
        for c in range(4):
            expected[:, c] += queries[:, q].softmax(-1)[:, c, None, None] * masks[:, q].sigmoid()
    z = query_log_scores(queries, masks)
    torch.testing.assert_close(z.exp(), expected)
    torch.testing.assert_close(z.softmax(1), expected / expected.sum(1, keepdim=True))
    torch.testing.assert_close(main_output({"class_queries_logits": queries, "masks_queries_logits": masks}), z)


def test_query_scores_stay_finite_and_ordered_where_the_product_underflows():
    queries = torch.tensor([[[200.0, 0.0, 100.0], [0.0, 0.0, 300.0]]])
    masks = torch.full((1, 2, 2, 2), -200.0)
    z = query_log_scores(queries, masks)
    assert z.isfinite().all()
    assert (z.argmax(1) == 0).all()
    assert query_log_scores(queries.bfloat16(), masks.bfloat16()).dtype == torch.float32


def test_query_scores_have_the_gradient_of_the_formula():
    queries = torch.randn(1, 3, 4, dtype=torch.float64, requires_grad=True)
    masks = torch.randn(1, 3, 2, 2, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(query_log_scores, (queries, masks))


def test_names_of_outputs():
    assert as_decode("probabilities") == Decoding("probabilities")
    with pytest.raises(InputError, match="did you mean 'logits'"):
        as_decode("logit")


class Ends(nn.Module):
    """A convolution whose logits run far on both sides of zero, and what it ends in."""

    def __init__(self, end: nn.Module) -> None:
        super().__init__()
        self.conv, self.end = nn.Conv2d(3, 4, 1), end
        with torch.no_grad():
            self.conv.weight.copy_(
                torch.tensor([[20.0, -9, -9], [-9, 20, -9], [-9, -9, 20], [7, 7, 7]])[..., None, None]
            )
            self.conv.bias.fill_(-2.0)

    def forward(self, images):
        return self.end(self.conv(images))


IMAGES = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))


LARGER = nn.Sequential(nn.Sigmoid(), nn.Upsample(scale_factor=2, mode="bilinear"))
LOGITS = [nn.Identity(), nn.LogSoftmax(1), nn.ReLU(), nn.Tanh(), nn.Sequential(nn.Sigmoid(), nn.LogSoftmax(1))]


@pytest.mark.parametrize("end", [nn.Sigmoid(), LARGER])
def test_sigmoids_are_no_logits_and_the_refusal_names_the_way_out(end):
    with pytest.raises(InputError, match='remove the sigmoid, or give outputs="sigmoids" \\(--outputs sigmoids\\)'):
        sr.wrap(Ends(end), num_classes=4).check(IMAGES)
    sr.wrap(Ends(nn.Sigmoid()), num_classes=4, outputs="sigmoids").check(IMAGES)


@pytest.mark.parametrize("end", LOGITS)
def test_other_ends_are_taken_for_logits(end):
    sr.wrap(Ends(end), num_classes=4).check(IMAGES)


@given(st.floats(-15, 15))
def test_undone_sigmoids_are_the_logits_as_far_as_float32_tells(z):
    found = undo_sigmoids(torch.tensor(z, dtype=torch.float64).sigmoid().float().view(1, 1, 1, 1))
    assert found.item() == pytest.approx(z, abs=2e-7 * (1 + math.exp(abs(z))))


def test_logits_that_were_said_to_be_sigmoids_are_refused():
    with pytest.raises(InputError, match=r"gives values in \[-.*give outputs=logits"):
        sr.wrap(Ends(nn.Identity()), num_classes=4, outputs="sigmoids").check(IMAGES)


def test_the_attack_on_undone_sigmoids_is_the_attack_on_the_logits():
    labels = sr.wrap(Ends(nn.Identity()), num_classes=4).logits(IMAGES).argmax(1)
    found = [
        sr.attacks.fgsm(norm="linf", eps=0.1)(sr.wrap(Ends(end), num_classes=4, outputs=outputs), IMAGES, labels)
        for end, outputs in ((nn.Identity(), "logits"), (nn.Sigmoid(), "sigmoids"))
    ]
    assert torch.equal(*(each.fooled for each in found))
    assert found[0].fooled.sum() > 0
