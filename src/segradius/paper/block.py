"""A block: what is measured for some elements of the paper, from ``blocks/NAME.yaml``, as it is at a scale."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from segradius.core.errors import InputError, shown
from segradius.core.text import refuse_unknown
from segradius.evaluation.study import KEYS as STUDY
from segradius.paper.scale import Scale
from segradius.paper.spec import ROOM, Spec, merged, names, naming, with_values

KEYS = ("about", "networks", "images", "study", "compute", "options", "skip")
#: Of a study, those that the networks and images of a block stand for.
GIVEN = ("models", "data")


@dataclass(frozen=True)
class Block:
    """What is measured.

    Attributes:
        name: Of the block.
        about: It, in a sentence.
        networks: Which networks, as `segradius.paper.scale.chosen` takes it; empty where it needs none.
        images: Options of images, over those of the scale's data.
        study: Keys of a study but ``models`` and ``data``; empty of a computed block.
        compute: Name of what is computed instead.
        options: Of that.
        skip: Why it is left out at the scale; empty where it is not.
        file: Where it is from, for messages.
    """

    name: str
    about: str
    networks: Mapping[str, Any] = field(default_factory=dict)
    images: Mapping[str, Any] = field(default_factory=dict)
    study: Mapping[str, Any] = field(default_factory=dict)
    compute: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    skip: str = ""
    file: str = "the block"

    @staticmethod
    def read(name: str, scale: Scale, room: Path = ROOM) -> Block:
        """That of a file, as it is at a scale: what stands under ``scales: NAME`` put over the rest.

        Args:
            name: Of the block.
            scale: Of whose values are those that ``$NAME`` stands for.
            room: Folder that ``blocks`` is in.

        Raises:
            InputError: There is none, or a key is unknown, missing or wrong; the message names file and key.
        """
        whole = Spec.read("blocks", name, room)
        whole.refuse_unknown((*KEYS, "scales"))
        over = whole.mapping("scales")
        refuse_unknown(f"scale in {whole.file}", over, names("scales", room))
        own = {key: value for key, value in whole.content.items() if key != "scales"}
        here = over.get(scale.name) or {}
        if not isinstance(here, Mapping):
            whole.wrong(f"scales.{scale.name}", here, "a mapping of keys of the block")
        with naming(f"{whole.file} at scale {scale.name}"):
            it = Spec(with_values(merged(own, here), scale.values), whole.file)
        it.refuse_unknown(KEYS)
        return _checked(name, it)


def read_blocks(scale: Scale, room: Path = ROOM) -> dict[str, Block]:
    """All blocks as they are at a scale, by name."""
    return {name: Block.read(name, scale, room) for name in names("blocks", room)}


def _checked(name: str, it: Spec) -> Block:
    study, compute = it.mapping("study"), it.text("compute", "")
    if bool(study) == bool(compute) and not it.value("skip"):
        raise InputError(f"{it.file} has {'both' if study else 'neither'} study and compute; expected one of them")
    if compute == "" and it.mapping("options"):
        raise InputError(f"{it.file}: options is {shown(it.value('options'))}; expected study.options, or compute")
    with it.under("study"):
        refuse_unknown("key", study, [key for key in STUDY if key not in GIVEN])
    mappings = {key: it.mapping(key) for key in ("networks", "images", "options")}
    if study and not mappings["networks"]:
        it.wrong("networks", None, "which networks it is measured on, as {role: plain}")
    return Block(
        name, it.text("about"), **mappings, study=study, compute=compute, skip=it.text("skip", ""), file=it.file
    )
