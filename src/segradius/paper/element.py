"""An element of the paper, a table, figure or section: its blocks and what is shown of them, from ``elements/``."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from segradius.core.errors import InputError, unknown_name
from segradius.core.names import safe_name
from segradius.core.text import refuse_unknown
from segradius.paper.spec import ROOM, Spec, names

KEYS = ("title", "paper", "section", "says", "blocks", "shows", "aliases")


@dataclass(frozen=True)
class Show:
    """A table or picture of an element.

    Attributes:
        kind: How it is drawn, a name of `segradius.paper.kinds.KINDS`.
        name: Of its files.
        options: Of the kind.
    """

    kind: str
    name: str
    options: Mapping[str, Any]


@dataclass(frozen=True)
class Element:
    """A table, figure or section of the paper.

    Attributes:
        name: Of the element: figure-3, section-5.3.1.
        title: What it is about.
        paper: What the paper calls it: Figure 3.
        section: Where the paper speaks of it.
        says: What the paper finds, in our words.
        blocks: Names of those that it needs.
        shows: What is drawn of them.
        aliases: Other names that it goes by, as two figures may show the same runs.
    """

    name: str
    title: str
    paper: str
    section: str
    says: str
    blocks: tuple[str, ...]
    shows: tuple[Show, ...]
    aliases: tuple[str, ...] = ()

    @staticmethod
    def read(name: str, room: Path = ROOM) -> Element:
        """That of a file.

        Raises:
            InputError: There is none, or a key is unknown, missing or wrong; the message names file and key.
        """
        it = Spec.read("elements", name, room)
        it.refuse_unknown(KEYS)
        with it.under("blocks"):
            refuse_unknown("block", it.texts("blocks"), names("blocks", room))
        if not it.texts("blocks"):
            it.wrong("blocks", None, "names of what is measured for it")
        shows = it.value("shows", [])
        if not isinstance(shows, list) or not shows:
            it.wrong("shows", it.value("shows"), "a list of {kind: KIND, name: NAME, …}")
        section = str(it.value("section", ""))
        drawn = tuple(_show(it, f"shows.{place}", each) for place, each in enumerate(shows, 1))
        return Element(
            name,
            it.text("title"),
            it.text("paper"),
            section,
            it.text("says"),
            it.texts("blocks"),
            drawn,
            it.texts("aliases"),
        )


def read_elements(room: Path = ROOM) -> dict[str, Element]:
    """All, by name.

    Raises:
        InputError: Two have a name in common, or show under the same.
    """
    found = {name: Element.read(name, room) for name in names("elements", room)}
    for kind, several in (
        ("name", lambda it: (it.name, *it.aliases)),
        ("shows", lambda it: [s.name for s in it.shows]),
    ):
        owner: dict[str, str] = {}
        for element in found.values():
            for name in several(element):
                if name in owner:
                    raise InputError(
                        f"elements/{owner[name]}.yaml and elements/{element.name}.yaml: {kind} {name} twice"
                    )
                owner[name] = element.name
    return found


def asked_for(wanted: Iterable[str], elements: Mapping[str, Element]) -> tuple[Element, ...]:
    """Elements by names or aliases, in the order of the paper, each once.

    Args:
        wanted: The names; none means all.
        elements: All, by name.

    Raises:
        InputError: A name is unknown; the nearest is told.
    """
    by_name = {name: each for each in elements.values() for name in (each.name, *each.aliases)}
    asked = list(wanted)
    for name in asked:
        if name not in by_name:
            raise unknown_name("element of the paper", name, by_name)
    chosen: Collection[str] = {by_name[name].name for name in asked} if asked else elements.keys()
    return tuple(each for name, each in elements.items() if name in chosen)


def _show(it: Spec, key: str, given: Any) -> Show:
    if not isinstance(given, Mapping):
        it.wrong(key, given, "{kind: KIND, name: NAME, …}")
    for needed in ("kind", "name"):
        if not isinstance(given.get(needed), str):
            it.wrong(f"{key}.{needed}", given.get(needed), "a text")
    if given["name"] != safe_name(given["name"]):
        it.wrong(f"{key}.name", given["name"], "a name that files may have")
    return Show(given["kind"], given["name"], {k: v for k, v in given.items() if k not in ("kind", "name")})
