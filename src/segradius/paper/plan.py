"""What is run for a block at a scale: a study for each label of data, and in which folders all of it is."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segradius.core.errors import InputError
from segradius.core.names import safe_name
from segradius.paper.block import Block
from segradius.paper.scale import Network, Scale, chosen

#: Of all networks of a scale that are trained.
NETWORKS = "networks"
#: The card of a trained network: of its last weights, as the best ones are chosen by images.
CARD = "last.yaml"
#: The label of all surrogates but the network that is attacked.
OTHERS = "others"
#: What a computed block found.
COMPUTED = "computed.json"


@dataclass(frozen=True)
class Judged:
    """A model of a block's study.

    Attributes:
        network: That is judged.
        surrogate: What the images are made on: the label of another network, or `OTHERS`; empty for itself.
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
    found: dict[str, dict[str, Judged]] = {}
    for subject_name, subject in _subjects(block, scale, out):
        found.setdefault(subject.network.data, {})[subject_name] = subject
    return tuple(Part(block, data, subjects, _study(block, scale, data, subjects)) for data, subjects in found.items())


def networks_of(block: Block, scale: Scale) -> tuple[Network, ...]:
    """Networks that a block needs, those that are surrogates alone among them."""
    if block.skip or not block.networks:
        return ()
    targets = chosen(scale.networks, block.networks, block.file)
    return tuple(dict.fromkeys((*targets, *_surrogates(block, scale))).keys()) if targets else ()


def images_of(block: Block, scale: Scale) -> dict[str, Mapping[str, Any]]:
    """Options of images by label: those of the networks of a block; of one without networks all."""
    labels = {each.data for each in networks_of(block, scale)} if block.networks else set(scale.data)
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


def is_trained(network: Network, out: Path, scale: Scale) -> bool:
    """Whether what the scale trains is there: its last weights and their card, which are written at the end."""
    folder = network_folder(out, scale, network.label)
    return (folder / CARD).is_file() and (folder / CARD).with_suffix(".safetensors").is_file()


def model_of(network: Network, out: Path, scale: Scale) -> dict[str, Any]:
    """Options of a network's model, as a study has them."""
    if network.train is not None:
        return {"model": str(network_folder(out, scale, network.label) / CARD), **network.options}
    weights = {} if network.weights is None else {"weights": network.weights}
    return {"model": network.model, **weights, **network.options}


def _surrogates(block: Block, scale: Scale) -> tuple[Network, ...]:
    by = {key: value for key, value in block.surrogates.items() if key != "ensemble"}
    return chosen(scale.networks, by, f"{block.file}: surrogates") if block.surrogates else ()


def _subjects(block: Block, scale: Scale, out: Path) -> Iterator[tuple[str, Judged]]:
    targets, surrogates = chosen(scale.networks, block.networks, block.file), _surrogates(block, scale)
    for each in targets:
        own = model_of(each, out, scale)
        if not block.surrogates:
            yield each.label, Judged(each, "", own)
            continue
        near = [other for other in surrogates if other.data == each.data]
        if block.surrogates.get("ensemble"):
            others = [_text(other, out, scale) for other in near if other.label != each.label]
            if others:
                yield f"{each.label} from {OTHERS}", Judged(each, OTHERS, own | {"from": others})
            continue
        for other in near:
            options = own | {"from": [_text(other, out, scale)]}
            yield f"{each.label} from {other.label}", Judged(each, other.label, options)


def _text(network: Network, out: Path, scale: Scale) -> str:
    """A surrogate as one text."""
    options = model_of(network, out, scale)
    extra = [name for name in options if name != "model"]
    if extra:
        raise InputError(
            f"{scale.file}: networks.{network.label} has {extra[0]}; a surrogate is one text, as of a card"
        )
    return str(options["model"])


def _study(block: Block, scale: Scale, data: str, subjects: Mapping[str, Judged]) -> dict[str, Any]:
    models = {label: dict(subject.options) for label, subject in subjects.items()}
    return {"models": models, "data": {data: {**scale.data[data], **block.images}}, **block.study}
