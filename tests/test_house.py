"""The house is as it is drawn: docs/design.md names the files, and no import goes up in docs/figures/house.svg."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SOURCE = ROOT / "src" / "segradius"
ROOMS = [path for path in SOURCE.iterdir() if (path / "__init__.py").exists()]


def tabled() -> dict[str, set[str]]:
    """Files by room, as the table of docs/design.md has them."""
    found: dict[str, set[str]] = {}
    table = [line for line in (ROOT / "docs" / "design.md").read_text("utf-8").splitlines() if line.startswith("| ")]
    for line in table[1:]:
        room = None
        for word in re.findall(
            r"`\w+/`|\w+", line if line.startswith("| `") else line.partition("|")[2].partition("|")[2]
        ):
            room = word.strip("`/") if word.endswith("/`") else room
            if room is not None and not word.endswith("/`"):
                found.setdefault(room, set()).add(word)
    return found


def registers(file: Path) -> bool:
    """Whether the file adds a thing to a registry, which then lists it."""
    return re.search(r"^@(\w+\.register|white_box|black_box)\(", file.read_text("utf-8"), re.M) is not None


def test_the_table_of_the_design_names_every_file_but_things_that_are_listed_by_name():
    files = {room.name: {file.stem: file for file in room.glob("*.py") if file.stem != "__init__"} for room in ROOMS}
    named = tabled()
    assert {room: names - set(files[room]) for room, names in named.items() if names - set(files[room])} == {}
    assert [
        f for room in files for name, f in files[room].items() if name not in named[room] and not registers(f)
    ] == []


def heights() -> dict[str, int]:
    """How far below the roof each room is drawn."""
    picture = (ROOT / "docs" / "figures" / "house.svg").read_text("utf-8")
    names = re.findall(r'class="name" x="\d+" y="(\d+)">([^<]+)<', picture)
    return {room: int(y) for y, text in names for room in text.split(" · ")}


def imports() -> Iterator[tuple[str, str, str]]:
    """(file, its room, room that it imports from), wherever in the file the import is."""
    for file in (file for suffix in ("py", "pyi") for room in ROOMS for file in room.rglob(f"*.{suffix}")):
        for node in ast.walk(ast.parse(file.read_text("utf-8"))):
            found = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            found += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            for module in found:
                if module.startswith("segradius."):
                    yield str(file.relative_to(SOURCE)), file.relative_to(SOURCE).parts[0], module.split(".")[1]


def test_the_picture_has_every_room_in_twelve_boxes_at_most():
    assert set(heights()) == {room.name for room in ROOMS}
    picture = (ROOT / "docs" / "figures" / "house.svg").read_text("utf-8")
    assert picture.count('class="box ') <= 12


def test_no_import_goes_up_or_sideways():
    drawn = heights()
    assert [each for each in imports() if each[1] != each[2] and drawn[each[2]] <= drawn[each[1]]] == []


def test_certificates_are_made_without_the_attacks_that_test_them():
    code = "import sys; from segradius.certification import SegCertify, SoftRadii, vote; print(*sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert not [name for name in found if re.match(r"segradius\.(attacks|objectives|models|targets)", name)]


def test_scripts_and_helpers_of_tests_have_names_of_their_own():
    """One process imports them all, by name: of two of one name, the second would be the first."""
    files = [file for room in ("benchmarks", "examples", "studies", "tests") for file in (ROOT / room).rglob("*.py")]
    names = [file.stem for file in files if file.stem not in ("__init__", "conftest")]
    assert sorted({name for name in names if names.count(name) > 1}) == []
