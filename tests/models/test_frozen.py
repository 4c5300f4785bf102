"""A network is left exactly as it was found."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from segradius.models import wrap
from segradius.models.segmenter import frozen


def mixed_network():
    """Training and evaluation mode, frozen and free parameters, gradients, batch statistics: all different."""
    network = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.Dropout2d(0.5), nn.Conv2d(4, 5, 1), nn.BatchNorm2d(5)
    )
    network.train()
    network[4].eval()
    network[0].bias.requires_grad_(False)
    network[3].weight.grad = torch.full_like(network[3].weight, 7.0)
    return network


def state(network):
    return (
        [module.training for module in network.modules()],
        [parameter.requires_grad for parameter in network.parameters()],
        [None if parameter.grad is None else parameter.grad.clone() for parameter in network.parameters()],
        [tensor.clone() for tensor in network.state_dict().values()],
        [parameter.stride() for parameter in network.parameters()],
    )


def assert_same(before, after):
    torch.testing.assert_close(after, before, rtol=0, atol=0)


def test_logits_and_backward_leave_a_training_network_untouched():
    network = mixed_network()
    before = state(network)
    model = wrap(network, channels_last=True)
    x = torch.rand(2, 3, 8, 8, requires_grad=True)
    model.logits(x).square().sum().backward()
    assert x.grad.abs().sum() > 0
    model.scores(x)
    model.check(x.detach())
    assert_same(before, state(network))


def test_inside_nothing_trains_and_dropout_is_off():
    network = mixed_network()
    with frozen(network):
        assert not any(module.training for module in network.modules())
        assert not any(parameter.requires_grad for parameter in network.parameters())
        x = torch.rand(1, 3, 4, 4)
        assert torch.equal(network(x), network(x))


def test_contexts_nest_and_only_the_outermost_restores():
    network = mixed_network()
    before = state(network)
    first, second = wrap(network), wrap(network, normalisation="imagenet")
    with first.frozen():
        with second.frozen(), first.frozen():
            pass
        assert not network.training
        second.logits(torch.rand(1, 3, 4, 4))
        assert not network.training
    assert_same(before, state(network))


def test_restored_after_an_exception_and_whatever_happened_inside():
    network = mixed_network()
    before = state(network)

    def meddle():
        network.train()
        network[0].weight.requires_grad_(True)
        raise KeyError

    with pytest.raises(KeyError), frozen(network):
        meddle()
    assert_same(before, state(network))


def test_contexts_that_end_in_another_order_restore_too():
    network = mixed_network()
    before = state(network)
    first, second = frozen(network), frozen(network)
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    assert not network.training
    second.__exit__(None, None, None)
    assert_same(before, state(network))


def test_networks_that_override_train_are_frozen_all_the_same():
    class Stubborn(nn.Module):
        def __init__(self):
            super().__init__()
            self.drop = nn.Dropout(0.5)

        def train(self, mode=True):
            self.training = mode
            return self

    network = Stubborn()
    with frozen(network):
        assert not network.drop.training
    assert network.drop.training


def test_functions_are_called_as_they_are():
    with frozen(lambda x: x):
        pass
