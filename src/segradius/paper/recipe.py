"""How a network of a scale is trained: options of ``segradius train``, from ``recipes/NAME.yaml``."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segradius.core.errors import InputError
from segradius.core.safe_yaml import read_yaml
from segradius.core.storage import write_atomically
from segradius.paper.opened import weights_of
from segradius.paper.plan import CARD, network_folder
from segradius.paper.scale import Network, Scale
from segradius.paper.spec import ROOM, Spec, merged, names

#: Options that the scale gives, not the recipe.
OURS = ("model", "weights", "seed", "out", "device")
#: Options that decide nothing of the last weights, or are paths.
UNTOLD = (
    "out", "weights", "data", "in_memory", "memory", "workers", "devices", "save_every", "held_out", "held_out_limit",
    "every", "watch", "best",
)  # fmt: skip
#: What a network was trained with, beside its weights.
ASKED = "asked.yaml"


@dataclass(frozen=True)
class Recipe:
    """How networks are trained.

    Attributes:
        name: Of the recipe.
        about: It, in a sentence.
        options: Of ``segradius train``, without those that the scale gives.
    """

    name: str
    about: str
    options: Mapping[str, Any]

    @staticmethod
    def read(name: str, scale: Scale, room: Path = ROOM) -> Recipe:
        """That of a file at a scale: what stands under ``all``, and over it what stands under the scale's name.

        Raises:
            InputError: There is none, or a key is unknown, missing or wrong; the message names file and key.
        """
        it = Spec.read("recipes", name, room)
        it.refuse_unknown(("about", "all", *names("scales", room)))
        options = merged(it.mapping("all"), it.mapping(scale.name))
        for option in OURS:
            if option in options:
                raise InputError(f"{it.file} has {option}, which the scale gives")
        return Recipe(name, it.text("about", ""), options)


def training(network: Network, scale: Scale, out: Path, room: Path = ROOM) -> dict[str, Any]:
    """Options of ``segradius train`` by which a network is trained.

    Args:
        network: Of the scale, with a recipe.
        scale: Filled.
        out: Folder of all scales.
        room: Folder that ``recipes`` is in.

    Raises:
        InputError: The recipe is not as it must be.
    """
    images = scale.data[network.data]
    own: dict[str, Any] = {"model": network.model, "data": images["data"], "seed": network.seed}
    own |= {"size": images["size"]} if images.get("size") else {}
    if network.start is not None:
        start = weights_of(scale.networks[network.start], out, scale)
        own |= {} if start is None else {"weights": str(start)}
    recipe = Recipe.read(network.train or "", scale, room).options
    return {**own, **recipe, "out": str(network_folder(out, scale, network.label))}


def is_trained(network: Network, scale: Scale, out: Path, room: Path = ROOM) -> bool:
    """Whether a network's training is over; weights that were put there with their card are taken as they are.

    Raises:
        InputError: It was trained by other options than those that are asked for now.
    """
    folder = network_folder(out, scale, network.label)
    card = folder / CARD
    if not (card.is_file() and card.with_suffix(".safetensors").is_file()):
        return False
    asked = training(network, scale, out, room)
    if (folder / ASKED).is_file():
        before = read_yaml(folder / ASKED)
        if differs := [key for key in {**before, **known(asked)} if before.get(key) != known(asked).get(key)]:
            was, now = before.get(differs[0]), known(asked).get(differs[0])
            raise InputError(
                f"{folder} was trained with {differs[0]} {was!r}, and {now!r} is asked for: choose another --out, or "
                "remove it to train anew"
            )
    return _epochs(folder) in (None, int(asked.get("epochs", 50)))


def note_asked(network: Network, scale: Scale, out: Path, room: Path = ROOM) -> None:
    """Write down what a network is trained with, in its folder."""
    import yaml

    folder = network_folder(out, scale, network.label)
    folder.mkdir(parents=True, exist_ok=True)
    told = yaml.safe_dump(known(training(network, scale, out, room)), sort_keys=True, allow_unicode=True)
    write_atomically(folder / ASKED, told)


def known(asked: Mapping[str, Any]) -> dict[str, Any]:
    """Options of a training that decide what is learnt, wherever the files lie."""
    return {key: value for key, value in asked.items() if key not in UNTOLD}


def _epochs(folder: Path) -> int | None:
    """The epoch of the last evaluation; None where the folder has no record of the training."""
    log = folder / "evaluations.csv"
    if not log.is_file():
        return None
    with log.open(newline="") as lines:
        return max((int(line["epoch"]) for line in csv.DictReader(lines)), default=0)
