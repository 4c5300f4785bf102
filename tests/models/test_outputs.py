"""Raw outputs to logits, against formulas written out."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from segradius.core.errors import InputError
from segradius.models.outputs import as_decode, log_probabilities, main_output, query_log_scores


def test_forms_of_output():
    z = torch.rand(1, 4, 2, 2)
    for raw in (z, {"out": z, "aux": z + 1}, {"logits": z}, SimpleNamespace(logits=z), (z, z + 1), [{"out": z}]):
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
    assert as_decode("probabilities") is log_probabilities
    with pytest.raises(InputError, match="did you mean 'logits'"):
        as_decode("logit")
