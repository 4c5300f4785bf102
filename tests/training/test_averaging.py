"""The average of the weights: closed form, PyTorch's own, and trained weights that come back bit for bit."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from segradius.core.errors import InputError
from segradius.training.averaging import WeightAverage


def network(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, 2, 1))


def train(module: nn.Module, steps: int):
    """Steps of gradient descent on noise, yielding after each."""
    optimizer = torch.optim.SGD(module.parameters(), lr=0.5)
    for step in range(steps):
        optimizer.zero_grad()
        module(torch.rand(2, 3, 6, 6)).square().mean().backward()
        optimizer.step()
        yield step


def snapshot(module: nn.Module):
    return {name: value.clone() for name, value in module.state_dict().items()}


def same(a, b) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_closed_form_on_a_sequence_of_numbers():
    module = nn.Linear(1, 1, bias=False).double()
    values = [3.0, -1.0, 4.0, 1.0, -5.0, 9.0]
    average = WeightAverage(decay=0.8, warmup=False)
    module.weight.data.fill_(values[0])
    state = average.init(module)
    for step, value in enumerate(values[1:]):
        module.weight.data.fill_(value)
        average.update(state, module, step)
    n = len(values) - 1
    expected = 0.8**n * values[0] + sum(0.2 * 0.8 ** (n - i) * values[i] for i in range(1, n + 1))
    assert state["weight"].item() == pytest.approx(expected, rel=1e-12)


def test_warm_up_follows_the_published_rule():
    average = WeightAverage(decay=0.99)
    assert [average.decay_at(t) for t in (0, 1, 90, 890, 891, 10**7)] == pytest.approx(
        [1 / 10, 2 / 11, 91 / 100, 891 / 900, 0.99, 0.99]
    )
    module = nn.Linear(1, 1, bias=False).double()
    module.weight.data.fill_(1.0)
    state = average.init(module)
    expected = 1.0
    for step, value in enumerate([2.0, -3.0, 0.5]):
        module.weight.data.fill_(value)
        average.update(state, module, step)
        d = (1 + step) / (10 + step)
        expected = d * expected + (1 - d) * value
        assert state["weight"].item() == pytest.approx(expected, rel=1e-12)


def test_equals_torchs_averaged_model():
    module = network()
    average = WeightAverage(decay=0.9, warmup=False)
    state = average.init(module)
    theirs = AveragedModel(module, multi_avg_fn=get_ema_multi_avg_fn(0.9), use_buffers=True)
    theirs.update_parameters(module)  # the first call copies
    for step in train(module, 20):
        average.update(state, module, step)
        theirs.update_parameters(module)
    expected = theirs.module.state_dict()
    for name, value in state.items():
        if value.is_floating_point():
            assert torch.allclose(value, expected[name], atol=1e-7), name
    assert state["1.num_batches_tracked"] == 20


def test_the_average_is_a_checkpoint_and_shares_no_memory():
    module = network()
    state = WeightAverage().init(module)
    before = {name: value.clone() for name, value in state.items()}
    for _ in train(module, 3):
        pass
    assert same(state, before)
    other = network(seed=1)
    other.load_state_dict(state)
    assert same(snapshot(other), before)


def test_applied_puts_the_average_in_and_restores_bit_for_bit():
    module = network()
    average = WeightAverage(decay=0.5)
    state = average.init(module)
    for step in train(module, 5):
        average.update(state, module, step)
    trained, pointers = snapshot(module), [p.data_ptr() for p in module.parameters()]
    kept = copy.deepcopy(state)
    with average.applied(module, state):
        assert same(snapshot(module), state)
        assert not torch.equal(module[0].weight, trained["0.weight"])
        module.train()(torch.rand(2, 3, 6, 6))  # moves the statistics of the batch norm
    assert same(snapshot(module), trained)
    assert same(state, kept)
    assert [p.data_ptr() for p in module.parameters()] == pointers


def test_applied_restores_after_an_error():
    module = network()
    average = WeightAverage()
    state = average.init(network(seed=1))
    trained = snapshot(module)
    with pytest.raises(KeyError, match="evaluation"), average.applied(module, state):
        raise KeyError("evaluation failed")
    assert same(snapshot(module), trained)


def test_half_precision_is_averaged_in_float32():
    module = nn.Linear(1, 1, bias=False).bfloat16()
    module.weight.data.fill_(1.0)
    average = WeightAverage(decay=0.999, warmup=False)
    state = average.init(module)
    module.weight.data.fill_(2.0)
    for step in range(3):
        average.update(state, module, step)
    assert state["weight"].item() == pytest.approx(2 - 0.999**3, rel=1e-6)  # in bfloat16 it would still be 1
    with average.applied(module, state):
        assert module.weight.dtype == torch.bfloat16
        assert module.weight.item() == 1.0
    assert module.weight.item() == 2.0


def test_gradients_do_not_flow_into_the_average():
    module = network()
    state = WeightAverage().init(module)
    WeightAverage().update(state, module, 0)
    assert not any(value.requires_grad for value in state.values())


def test_the_average_of_another_network_is_refused():
    average, module = WeightAverage(), network()
    state = average.init(module)
    with pytest.raises(InputError, match="is in the average, not in the network"):
        average.update(state, module[:3], 0)
    with pytest.raises(InputError, match="is in the network, not in the average"):
        average.update(average.init(module[:3]), module, 0)
    state["0.weight"] = torch.zeros(1)
    trained = snapshot(module)
    with (
        pytest.raises(InputError, match=r"'0.weight' is \(4, 3, 3, 3\) in the network"),
        average.applied(module, state),
    ):
        pass
    assert same(snapshot(module), trained)


@pytest.mark.parametrize("decay", [-0.1, 1.0, float("nan")])
def test_bad_decays_are_named(decay):
    with pytest.raises(InputError, match=f"decay is {decay}"):
        WeightAverage(decay=decay)
