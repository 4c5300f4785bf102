"""Traces of single images: where they end, and that they come back."""

from __future__ import annotations

import math

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import segradius as sr
from segradius.attacks import Result, Trace
from segradius.core.ledger import Ledger
from segradius.evaluation.trace import ImageTrace, image_traces, pack, trace_csv, unpack

values = st.floats(0, 1) | st.just(math.nan)
rows = st.lists(st.tuples(st.integers(1, 10**6), st.booleans(), values, values, values), max_size=6)


@settings(deadline=None)
@given(rows)
def test_a_trace_comes_back_as_it_went_in(given_rows):
    trace = ImageTrace(*zip(*given_rows, strict=True)) if given_rows else ImageTrace((), (), (), (), ())
    assert str(unpack(pack(trace))) == str(trace)


def result(spent: list[int], valid: list[bool]) -> Result:
    """Three rows at 2, 4 and 6 queries."""
    blank = torch.zeros(len(spent), 1, 1)
    book = Ledger(len(spent), {"attack": np.array([spent, [0] * len(spent)])})
    curve = torch.tensor([[0.5], [0.4], [0.3]]).expand(3, len(spent))
    trace = Trace(torch.tensor([2, 4, 6]), torch.tensor([False, False, True]), curve + 1, curve, curve)
    return Result(blank, blank, blank, blank, torch.tensor(valid), book, trace=trace)


def test_an_image_that_was_finished_early_ends_with_all_its_pixels_fooled():
    early, late = image_traces(result([4, 6], [True, True]))
    assert (early.queries, late.queries) == ((2, 4), (2, 4, 6))
    (between,) = image_traces(result([5], [True]))
    assert (between.queries, between.best[-1], between.judged[-1]) == ((2, 4, 5), 0.0, True)
    (invalid,) = image_traces(result([5], [False]))
    assert invalid.queries == (2, 4)


def test_a_real_attack_that_fools_everything_stops_with_a_trace_that_ends_at_its_last_query():
    """Class 1 where the mean is above one half; all images are within ε of it, one after another."""

    def network(x):
        mean = x.mean((1, 2, 3), keepdim=True).expand(-1, 1, *x.shape[2:])
        return torch.cat([10 * (0.5 - mean), 10 * (mean - 0.5)], 1)

    model = sr.wrap(network, num_classes=2)
    images = torch.tensor([0.499, 0.45, 0.1]).view(3, 1, 1, 1).expand(3, 3, 4, 4).clone()
    labels = torch.zeros(3, 4, 4, dtype=torch.int64)
    found = sr.make_attack("local_search", norm="linf", eps=0.1, queries=60, tile=2, window=9)(model, images, labels)
    traces = image_traces(found)
    spent = found.ledger.forward.tolist()
    assert spent[0] < spent[2] == 60
    for trace, queries in zip(traces, spent, strict=True):
        assert trace.queries[-1] == queries
        assert list(trace.queries) == sorted(set(trace.queries))
    assert [trace.best[-1] for trace in traces] == [0.0, traces[1].best[-1], 1.0]


def test_the_file_has_a_line_for_each_row_and_blanks_for_nan():
    trace = ImageTrace((2, 5), (False, True), (0.25, math.nan), (1.0, 0.5), (math.nan, 0.5))
    assert trace_csv([(("pbgd", "l2", 10.0, "a"), trace)]) == (
        "attack,norm,eps,image,queries,judged,loss,pixacc,best\n"
        "pbgd,l2,10.0,a,2,0,0.25,1,\n"
        "pbgd,l2,10.0,a,5,1,,0.5,0.5\n"
    )
