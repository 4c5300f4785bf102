"""Parameters that hold no numbers, or none that were learnt: refused by name; what may be a mistake: told."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from torch import nn
from torch.nn.utils import prune

from segradius.core.errors import InputError
from segradius.models import doubts, tiled, wrap
from segradius.models.parameters import check_parameters

CLASSES = 3


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(), nn.Conv2d(4, CLASSES, 1))


def changed(change, found=None):
    found = network() if found is None else found
    change(found)
    return found


def fill(key, value):
    def change(found):
        with torch.no_grad():
            dict([*found.named_parameters(), *found.named_buffers()])[key].flatten()[-1:].fill_(value)

    return change


def lazy():
    return nn.Sequential(nn.LazyConv2d(CLASSES, 1))


def lazy_norm():
    return nn.Sequential(nn.Conv2d(3, CLASSES, 1), nn.LazyBatchNorm2d())


def partly_offloaded():
    return changed(lambda found: setattr(found, "3", found[3].to("meta")))


def offloaded_buffer():
    return changed(lambda found: found[1].register_buffer("running_mean", torch.empty(4, device="meta")))


def quantised():
    def change(found):
        found[3].weight = nn.Parameter(torch.ones(CLASSES, 4, 1, 1, dtype=torch.int8), requires_grad=False)

    return changed(change)


def zeroed(found):
    for parameter in found.parameters():
        nn.init.zeros_(parameter)


REFUSED = {
    "meta": (lambda: network().to("meta"), r"parameter '0\.weight' is on the meta device"),
    "built under init_empty_weights": (lambda: _on_meta(), r"parameter '0\.weight' is on the meta device"),
    "loaded without assign": (lambda: _loaded(), r"parameter '0\.weight' is on the meta device"),
    "partly offloaded": (partly_offloaded, r"parameter '3\.weight' is on the meta device"),
    "offloaded buffer": (offloaded_buffer, r"buffer '1\.running_mean' is on the meta device"),
    "lazy": (lazy, r"parameter '0\.weight' has no shape yet"),
    "lazy norm": (lazy_norm, r"'1\.weight' has no shape yet"),
    "NaN": (lambda: changed(fill("3.weight", torch.nan)), r"parameter '3\.weight' holds NaN"),
    "infinite": (lambda: changed(fill("0.bias", -torch.inf)), r"parameter '0\.bias' holds NaN or infinite"),
    "NaN statistics": (lambda: changed(fill("1.running_var", torch.nan)), r"buffer '1\.running_var' holds NaN"),
    "quantised": (quantised, r"parameter '3\.weight' is torch\.int8"),
    "one zero": (lambda: changed(zeroed, nn.Conv2d(3, 2, 1)), r"weight 'weight' is zero; load it before"),
    "zero": (lambda: changed(zeroed), r"all 2 weights are zero, '0\.weight' the first"),
}


def _on_meta():
    with torch.device("meta"):
        return network()


def _loaded():
    found = _on_meta()
    with pytest.warns(UserWarning, match="no-op"):
        found.load_state_dict(network().state_dict())
    return found


@pytest.mark.parametrize("name", REFUSED)
def test_each_is_refused_by_wrap_and_by_check_in_one_line(name):
    make, said = REFUSED[name]
    ready = wrap(network())
    for attempt in (
        lambda: wrap(make(), num_classes=CLASSES),
        lambda: wrap(make().forward, num_classes=CLASSES),
        lambda: replace(ready, network=make()).check(torch.rand(1, 3, 8, 8)),
    ):
        with pytest.raises(InputError, match=said) as caught:
            attempt()
        assert "\n" not in str(caught.value)


def test_parameters_on_several_devices_are_refused(monkeypatch):
    # The only other device of a machine without a GPU is meta, which is refused before.
    monkeypatch.setattr("segradius.models.parameters._fault", lambda what, tensor: None)
    with pytest.raises(InputError, match=r"several devices .*'3\.bias' is on meta.*; expected one"):
        check_parameters(partly_offloaded(), "net")


def test_what_is_as_it_should_be_is_taken():
    networks = [
        network(),
        network().half(),
        network().double(),
        nn.Sequential(nn.Conv2d(3, CLASSES, 1), nn.PReLU()),
        nn.utils.parametrizations.weight_norm(nn.Conv2d(3, CLASSES, 1)),
        changed(lambda found: nn.init.zeros_(found[1].weight)),  # as residual blocks begin
        changed(lambda found: found.register_buffer("mask", torch.tensor([0.0, -torch.inf]))),
        changed(lambda found: found.register_buffer("index", torch.arange(3))),
        changed(lambda found: found.register_buffer("phase", torch.ones(2, dtype=torch.complex64))),
        changed(lambda found: found.train()),
    ]
    for each in networks:
        check_parameters(each, "net")
    check_parameters(lambda images: images, "function")


def test_a_network_in_training_mode_answers_as_in_evaluation_mode():
    found, x = network(), torch.rand(2, 3, 8, 8)
    with torch.no_grad():
        expected = copy.deepcopy(found).eval()(x)
    assert torch.equal(wrap(found.train()).logits(x), expected)
    assert found.training


def trained():
    found = network()
    found(torch.rand(4, 3, 8, 8))
    return found


def keep(module, given, made):
    return None


def test_hooks_that_are_left_are_told_by_name():
    found = trained()
    model = wrap(found, normalisation="none")
    assert doubts(model) == []
    handles = [found[0].register_forward_hook(keep), found.register_full_backward_hook(keep)]
    for each in (model, tiled(model, crop=(8, 8))):
        (doubt,) = doubts(each)
        assert (doubt.name, "keep on 'the whole network' and 1 more" in doubt.text) == ("hooks", True)
    for handle in handles:
        handle.remove()
    assert doubts(model) == []


def test_hooks_of_torch_itself_belong_to_the_network():
    normed = nn.utils.parametrizations.spectral_norm(nn.Conv2d(3, CLASSES, 1))
    pruned = nn.Conv2d(3, CLASSES, 1)
    prune.l1_unstructured(pruned, "weight", amount=0.5)
    for found in (normed, pruned):
        assert doubts(wrap(found, normalisation="none")) == []


def test_a_batch_norm_by_which_images_mix_is_told():
    images = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    for tracked in (True, False):
        torch.manual_seed(0)
        mixed = nn.Sequential(nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3, track_running_stats=tracked))
        if tracked:
            mixed[1].running_mean.add_(0.1)
        model = wrap(mixed, normalisation="none")
        alone = torch.cat([model.logits(image[None]) for image in images])
        assert torch.allclose(model.logits(images), alone, atol=1e-5) == tracked
        assert [doubt.name for doubt in doubts(model)] == ([] if tracked else ["batch"])
        assert "'1', so images of a batch mix" in "".join(map(str, doubts(model))) or tracked
