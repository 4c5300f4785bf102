"""ImageNet weights for the trunk of a network: from a file, torchvision or timm; heads keep their first values."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from segradius.core.border import in_a_line
from segradius.core.errors import InputError, missing_extra, unknown_name
from segradius.models.checkpoints import load_state
from segradius.models.downloads import offline
from segradius.models.fitting import strip_prefixes

#: Names of trunks: ResNet's layers (hszhao/semseg), HRNet's stem, stages and transitions. ``conv3x3_ocr`` is a head.
TRUNK = re.compile(r"(layer|conv|bn|stage|transition)\d+\.")
#: The stem of PSPNet and PSANet and what reads it, whose shapes follow the stem's channels.
ENTRY = re.compile(r"(layer0|layer1\.0\.(conv1|bn1|downsample))\.")
COUNTER = ".num_batches_tracked"
#: The stem of hszhao/semseg's ImageNet ResNets, three 3 × 3 convolutions, under its places in PSPNet and PSANet.
DEEP_STEM = {"conv1": 0, "bn1": 1, "conv2": 3, "bn2": 4, "conv3": 6, "bn3": 7}
SHOWN = 3


@dataclass(frozen=True)
class Backbone:
    """What became of a backbone's tensors.

    Attributes:
        taken: How many were copied into the network.
        left: Names in the network's trunk that keep their first values: its entry, or nothing.
        unused: Names in the source that have no place in the network: classifiers, and an entry of another kind.

    Example:
        >>> print(Backbone(300, ("layer0.0.weight", "layer0.1.weight"), ("fc.weight",)))
        Backbone: 300 tensors taken, 2 left as initialised (layer0.0.weight, layer0.1.weight)
    """

    taken: int
    left: tuple[str, ...]
    unused: tuple[str, ...]

    def __str__(self) -> str:
        """One line."""
        more = ", …" if len(self.left) > SHOWN else ""
        names = f" ({', '.join(self.left[:SHOWN])}{more})" if self.left else ""
        return f"Backbone: {self.taken} tensors taken, {len(self.left)} left as initialised{names}"


def load_backbone(
    network: nn.Module | Callable[[Tensor], Any], source: str | Path, *, allow_download: bool = False
) -> Backbone:
    """Copy ImageNet weights into the trunk of a PSPNet, PSANet or HRNet-OCR, in the network's dtypes.

    Everything must fit, name by name and shape by shape, or nothing is copied; except that the entry of a PSPNet or
    PSANet is left as a whole where it does not fit as a whole. It is the stem, and in the first block what reads the
    stem: one 7 × 7 convolution to 64 channels in the ResNets of torchvision and timm, three of 3 × 3 to 128 in these
    networks and in the ImageNet files of hszhao/semseg (``resnet50_v2.pth``), which are therefore the better start.
    Heads are never taken, so the checkpoint of a whole network gives its trunk to one with other classes.

    Args:
        network: The network to change.
        source: A file (see `load_state`); ``torchvision:NAME``, as ``torchvision:resnet50``, or ``timm:NAME``, as
            ``timm:hrnet_w48``: that library's default weights, from its cache, or downloaded if that is allowed.
        allow_download: Whether it may be downloaded.

    Returns:
        What was taken, what was left and what was of no use.

    Raises:
        InputError: If the network has no such trunk, the source cannot be read or fetched, or it is of another network;
            the message tells how many tensors fit and names some that do not.
        MissingExtraError: If timm is asked for and not installed.

    Example:
        >>> import tempfile
        >>> from segradius.models.networks import PSPNet
        >>> trained, fresh = PSPNet(21, layers=18, width=8), PSPNet(5, layers=18, width=8)
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     torch.save(trained.state_dict(), Path(folder) / "voc.pth")
        ...     found = load_backbone(fresh, Path(folder) / "voc.pth")
        >>> print(found)
        Backbone: 138 tensors taken, 0 left as initialised
        >>> torch.equal(fresh.layer4[1].conv2.weight, trained.layer4[1].conv2.weight)
        True
    """
    if not isinstance(network, nn.Module):
        raise InputError(f"a backbone is for an nn.Module; got a {type(network).__name__}")
    state = network.state_dict()
    trunk = {name: tensor for name, tensor in state.items() if TRUNK.match(name)}
    if not trunk:
        raise InputError(
            f"{type(network).__name__} has no trunk of layer1, stage2, …; expected a PSPNet, PSANet or HRNet-OCR of "
            "this library. Others take ImageNet weights as arguments: smp encoder_weights, torchvision weights_backbone"
        )
    with offline(f"backbone {str(source)!r}", allowed=allow_download):
        opened = _open(source)
    given = _placed(strip_prefixes(opened, state), trunk)
    fitting = _fitting(given, trunk)
    _check(given, trunk, fitting, str(source), type(network).__name__)
    with torch.no_grad():
        for name in fitting:
            trunk[name].copy_(given[name][1])
    left = tuple(name for name in trunk if name not in fitting and not name.endswith(COUNTER))
    return Backbone(len(fitting), left, tuple(theirs for name, (theirs, _) in given.items() if name not in fitting))


def _placed(state: Mapping[str, Tensor], trunk: Mapping[str, Tensor]) -> dict[str, tuple[str, Tensor]]:
    """The source's names and tensors under the names that they have in the network."""
    deep = any(name.startswith("layer0.") for name in trunk)
    return {(_renamed(name) if deep else name): (name, tensor) for name, tensor in state.items()}


def _renamed(name: str) -> str:
    module, _, rest = name.partition(".")
    return f"layer0.{DEEP_STEM[module]}.{rest}" if module in DEEP_STEM else name


def _fitting(given: Mapping[str, tuple[str, Tensor]], trunk: Mapping[str, Tensor]) -> set[str]:
    """Names that can be copied; none of an entry in part, whose batch norms would come without their convolutions."""
    fitting = {name for name, tensor in trunk.items() if name in given and given[name][1].shape == tensor.shape}
    entry = {name for name in trunk if ENTRY.match(name)}
    whole = all(name in fitting for name in entry if not name.endswith(COUNTER))
    return fitting if whole else fitting - entry


def _check(
    given: Mapping[str, tuple[str, Tensor]],
    trunk: Mapping[str, Tensor],
    fitting: set[str],
    source: str,
    network: str,
) -> None:
    """Raise `InputError` if anything but an entry does not fit, on either side."""

    def matters(name: str) -> bool:
        return bool(TRUNK.match(name)) and not ENTRY.match(name) and not name.endswith(COUNTER)

    wrong = [name for name in (*trunk, *(name for name in given if name not in trunk)) if matters(name)]
    wrong = [name for name in wrong if name not in fitting]
    if not wrong:
        return
    total = sum(not name.endswith(COUNTER) for name in trunk)
    fit = sum(not name.endswith(COUNTER) for name in fitting)
    shown = ", ".join(f"{name} ({_reason(name, given, trunk)})" for name in wrong[:SHOWN])
    more = f" and {len(wrong) - SHOWN} more" if len(wrong) > SHOWN else ""
    raise InputError(
        f"{source!r} is no backbone of this {network}: {fit} of its {total} tensors fit. Not so: {shown}{more}"
    )


def _reason(name: str, given: Mapping[str, tuple[str, Tensor]], trunk: Mapping[str, Tensor]) -> str:
    if name not in trunk:
        return "not in the network"
    if name not in given:
        return "not in the source"
    return f"{tuple(given[name][1].shape)}, expected {tuple(trunk[name].shape)}"


def _open(source: str | Path) -> Mapping[str, Tensor]:
    library, _, name = str(source).partition(":")
    if library in LIBRARIES:
        return LIBRARIES[library](name)
    if not Path(source).is_file():
        raise InputError(f"backbone {str(source)!r} is no file; expected one, torchvision:NAME or timm:NAME")
    return load_state(source)


def _torchvision(name: str) -> Mapping[str, Tensor]:
    from torchvision import models

    if name not in models.list_models(module=models):
        raise unknown_name("torchvision network", name, models.list_models(module=models, include="resnet*"))
    weights = models.get_model_weights(name).DEFAULT
    return _fetched(f"torchvision:{name}", lambda: weights.get_state_dict(progress=False, check_hash=True))


def _timm(name: str) -> Mapping[str, Tensor]:
    try:
        import timm
    except ModuleNotFoundError as error:
        raise missing_extra("timm", "smp") from error
    if not timm.is_model(name):
        raise unknown_name("timm network", name, timm.list_models(["hrnet_w??", "resnet??", "resnet???"]))
    return _fetched(f"timm:{name}", lambda: timm.create_model(name, pretrained=True).state_dict())


def _fetched(source: str, fetch: Callable[[], Any]) -> Mapping[str, Tensor]:
    try:
        state: Mapping[str, Tensor] = fetch()
    except Exception as error:  # each library and its network client has its own
        raise InputError(
            f"the weights of {source} cannot be had: {in_a_line(error)}. Without a network connection, give a file"
        ) from error
    return state


LIBRARIES: dict[str, Callable[[str], Mapping[str, Tensor]]] = {"torchvision": _torchvision, "timm": _timm}
