"""What is run for a block at a scale: a study for each label of data, and in which folders all of it is."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segradius.core.errors import InputError
from segradius.core.names import safe_name
from segradius.evaluation.transfers import attacked_and_made_on, with_transfers
from segradius.paper.block import Block
from segradius.paper.scale import Network, Scale, chosen

#: Of all networks of a scale that are trained.
NETWORKS = "networks"
#: The card of a trained network: of its last weights, as the best ones are chosen by images.
CARD = "last.yaml"
#: What a computed block found.
COMPUTED = "computed.json"


@dataclass(frozen=True)
class Judged:
    """A model of a block's study.

    Attributes:
        network: That is judged.
        surrogate: What its images are made on: the label of another network, or *the others*; empty for itself.
        options: As a study has them.
    """

    network: Network
    surrogate: str
    options: Mapping[str, Any]


@dataclass(frozen=True)
class Part:
    """The study of a block on the images of one label.

    Attributes:
        block: The block.
        data: Label of the images.
        subjects: By label of the study's models.
        study: What its file would hold.
    """

    block: Block
    data: str
    subjects: Mapping[str, Judged]
    study: Mapping[str, Any]

    @property
    def name(self) -> str:
        """For people, and of its folder below that of the scale."""
        return f"{self.block.name}/{safe_name(self.data)}"


def parts(block: Block, scale: Scale, out: Path) -> tuple[Part, ...]:
    """The studies of a block; none of one that is skipped or computed.

    Args:
        block: As it is at the scale.
        scale: Filled where the studies are to be run.
        out: Folder of all scales.
    """
    if block.skip or not block.study:
        return ()
    labels = dict.fromkeys(each.data for each in networks_of(block, scale))
    subjects = {data: _subjects(block, scale, out, data) for data in labels}
    return tuple(Part(block, data, own, _study(block, scale, data, own)) for data, own in subjects.items())


def networks_of(block: Block, scale: Scale) -> tuple[Network, ...]:
    """Networks that a block needs."""
    return chosen(scale.networks, block.networks, block.file) if block.networks and not block.skip else ()


def images_of(block: Block, scale: Scale) -> dict[str, Mapping[str, Any]]:
    """Options of images by label: those of the networks of a block."""
    labels = {each.data for each in networks_of(block, scale)}
    return {label: {**own, **block.images} for label, own in scale.data.items() if label in labels}


def with_starts(networks: Iterable[Network], scale: Scale) -> tuple[Network, ...]:
    """Networks and those that their trainings start from, in an order in which they can be trained.

    Raises:
        InputError: A training starts, by way of others, from itself; or from what is left out.
    """
    found: dict[str, Network] = {}

    def add(network: Network, above: tuple[str, ...]) -> None:
        if network.label in above:
            raise InputError(f"{scale.file}: networks.{network.label} starts from itself: {' → '.join(above)}")
        if network.start is not None and network.label not in found:
            if network.start not in scale.networks:
                raise InputError(
                    f"{scale.file}: networks.{network.label} starts from {network.start}, which is left out"
                )
            add(scale.networks[network.start], (*above, network.label))
        found.setdefault(network.label, network)

    for each in networks:
        add(each, ())
    return tuple(found.values())


def folder_of(out: Path, scale: Scale | str) -> Path:
    """Of a scale."""
    return out / (scale if isinstance(scale, str) else scale.name)


def network_folder(out: Path, scale: Scale, label: str) -> Path:
    """Of a network that is trained."""
    return folder_of(out, scale) / NETWORKS / safe_name(label)


def model_of(network: Network, out: Path, scale: Scale) -> dict[str, Any]:
    """Options of a network's model, as a study has them."""
    if network.train is not None:
        return {"model": str(network_folder(out, scale, network.label) / CARD), **network.options}
    weights = {} if network.weights is None else {"weights": network.weights}
    return {"model": network.model, **weights, **network.options}


def _subjects(block: Block, scale: Scale, out: Path, data: str) -> dict[str, Judged]:
    """By label of the study's models, each network and, of transfer, each again with what its images are made on."""
    own = {each.label: each for each in chosen(scale.networks, block.networks, block.file) if each.data == data}
    models = {label: model_of(network, out, scale) for label, network in own.items()}
    found: dict[str, Judged] = {}
    for label, options in with_transfers(models, block.study.get("transfer"), block.file).items():
        judged, made_on = attacked_and_made_on(label) if label not in own else (label, label)
        found[label] = Judged(own[judged], made_on if made_on != judged else "", options)
    return found


def _study(block: Block, scale: Scale, data: str, subjects: Mapping[str, Judged]) -> dict[str, Any]:
    models = {label: dict(each.options) for label, each in subjects.items() if not each.surrogate}
    return {"models": models, "data": {data: {**scale.data[data], **block.images}}, **block.study}
