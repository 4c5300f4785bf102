"""``segradius verify``: a folder of results is gone through, and what is damaged is told."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

from segradius.core.errors import DamagedError, InputError
from segradius.core.locking import owned, refuse_owned
from segradius.core.screen import say, warn
from segradius.core.seal import check_archive, read_json, readable
from segradius.core.sums import SUMS, checked, read_sums

ANEW = "the command that made the folder writes it anew"
AGAIN = "started again, the command that made the folder makes it again"
DATABASE, WEIGHTS, SNAPSHOT, OLD = "results.sqlite", "*.safetensors", "last.pt", "experiment.json"


@dataclass(frozen=True)
class Found:
    """What is wrong with a file of a folder, and what mends it; nothing is wrong where ``what`` is empty."""

    file: str
    what: str = ""
    mends: str = ""

    def __str__(self) -> str:
        return f"{self.file}: {self.what}; {self.mends}"


def verify(folder: str, /, mend: bool = False) -> int:
    """Go through a folder of results and say what in it is damaged, and what mends it.

    Looks at what segradius attack, evaluate, certify, run, train, compare and export leave, finished or not: rows of
    results.sqlite, files of the report, checkpoints, kept answers of a server, weights, cards and logs; of a study that
    of all its measurements. Changes nothing unless asked to.

    Args:
        folder: The --out folder.
        mend: Drop the damaged rows of results.sqlite, and what else is known of their images under the same attack, so
            that the same command makes them again.

    Returns:
        0 if all is whole, 1 if something is damaged.
    """
    place = Path(folder)
    if not place.is_dir():
        raise InputError(f"{folder} is no folder; expected the --out folder of a run or a study")
    by_place = {each: _looked_at(each, place) for each in _places(place)}
    found = [each for those in by_place.values() for each in those]
    if not found:
        raise InputError(f"{folder} holds nothing that segradius wrote; expected the --out folder of a run or a study")
    damaged = [each for each in found if each.what]
    for each in damaged:
        say(str(each))
    for there, those in by_place.items() if mend else ():
        if any(each.what and each.file.endswith(DATABASE) for each in those):
            with owned(there, (), warn):
                say(_mended(there / DATABASE))
    files = len({each.file for each in found})
    say(f"{folder}: {len(damaged)} damaged of {len(found)} looked at in {files} files" if damaged else
        f"{folder}: whole, {len(found)} looked at in {files} files")  # fmt: skip
    return 1 if damaged else 0


def _places(folder: Path) -> list[Path]:
    """The folder, and those of a study's measurements in it, as far as they were begun."""
    from segradius.evaluation.folders import STUDY, run_folders

    runs = run_folders([folder]) if (folder / STUDY).is_file() else ()
    return [folder, *(run.path for run in runs if run.path.is_dir())]


def _looked_at(place: Path, whole: Path) -> list[Found]:
    """What is found in a folder, with names of files from the whole on."""
    refuse_owned(place)
    below = "" if place == whole else f"{place.relative_to(whole)}/"
    return [replace(each, file=f"{below}{each.file}") for check in CHECKS for each in check(place)]


def _results(place: Path) -> Iterator[Found]:
    """Every row of the store."""
    from segradius.evaluation.inspection import inspected

    if not (place / DATABASE).exists():
        return
    try:
        rows, sealed, damages = inspected(place / DATABASE)
    except DamagedError as error:
        yield Found(DATABASE, str(error), "what is in it is lost: run the command anew, with --overwrite")
        return
    if not sealed:
        warn(f"{place / DATABASE} is of an earlier version, without checksums of its rows")
    yield from [Found(DATABASE)] * (rows - len(damages))
    for damage in damages:
        lost = "it says what the rows are results of: run the command anew, with --overwrite"
        again = f"segradius verify {place} --mend drops it, and then the same command makes it again"
        yield Found(DATABASE, str(damage), lost if damage.table == "meta" else again)


def _sums(place: Path) -> Iterator[Found]:
    """Every file of a report."""
    try:
        names = read_sums(place)
    except DamagedError as error:
        yield Found(SUMS, str(error), ANEW)
        return
    for name in names:
        yield _tried(name, partial(checked, place, name), ANEW)


def _unfinished(place: Path) -> Iterator[Found]:
    """Checkpoints and answers of a server."""
    from segradius.targets.target import unspooled

    for file in sorted(place.glob("checkpoints/[!.]*.pt")):
        name, anew = str(file.relative_to(place)), "the same command sets it aside and begins its batch anew"
        yield _tried(name, partial(_loaded, file), anew)
    for file in sorted(place.glob("checkpoints/spool/*/[!.]*.np[yz]")):
        name = str(file.relative_to(place))
        yield _tried(name, partial(unspooled, file), "the same command asks the server again")


def _trained(place: Path) -> Iterator[Found]:
    """Snapshot, logs, weights and cards of a training."""
    from segradius.models.cards import check_digest, read_card
    from segradius.models.checkpoints import load_state

    for file in sorted(place.glob(WEIGHTS)):
        yield _tried(file.name, partial(load_state, file), "nothing, if there is no copy: train anew")
        card = file.with_suffix(".yaml")
        if card.exists():
            mends = f"nothing, if there is no copy of {card.name} and {file.name}: train anew"
            yield _tried(card.name, partial(_card_checked, card, read_card, check_digest), mends)
    if not (place / SNAPSHOT).exists():
        return
    found = _tried(SNAPSHOT, partial(_loaded, place / SNAPSHOT), "remove it, and the same command trains anew")
    yield found
    logs = {} if found.what else _loaded(place / SNAPSHOT).get("logs", {})
    for name, text in logs.items():
        there = (place / name).read_bytes() if (place / name).exists() else b""
        whole = there.startswith(text.encode())
        yield Found(name, *(("", "") if whole else ("it is not what was logged", ANEW)))


def _earlier(place: Path) -> Iterator[Found]:
    """What an earlier version kept, and what has no sum."""
    if (place / OLD).exists():
        mends = "nothing, if there is no copy: certify anew, with --overwrite"
        yield _tried(OLD, partial(read_json, place / OLD), mends)
    if (place / SUMS).exists():
        return
    for file in sorted(place.glob("certificates/[!.]*.npz")):
        yield _tried(
            str(file.relative_to(place)), partial(check_archive, file, file), "remove it, and it is made again"
        )
    for file in sorted(place.glob("*.json")):
        if file.name != OLD:
            yield _tried(file.name, partial(readable, partial(_json, file), file, "JSON"), ANEW)


CHECKS: tuple[Callable[[Path], Iterator[Found]], ...] = (_results, _sums, _unfinished, _trained, _earlier)


def _tried(name: str, check: Callable[[], object], mends: str) -> Found:
    try:
        check()
    except (InputError, OSError) as error:
        return Found(name, str(error), mends)
    return Found(name)


def _loaded(file: Path) -> dict[str, Any]:
    """A snapshot, without running code that it may name."""
    import torch

    check_archive(file, file)
    found = readable(lambda: torch.load(file, map_location="cpu", weights_only=True), file, "a snapshot")
    if not isinstance(found, dict):
        raise DamagedError(f"{file} is damaged; expected a snapshot")
    return found


def _card_checked(card: Path, read: Callable[[Path], Any], check: Callable[[Any], None]) -> None:
    check(read(card))


def _json(file: Path) -> object:
    import json

    return json.loads(file.read_bytes())


def _mended(file: Path) -> str:
    from segradius.evaluation.inspection import mended

    dropped = mended(file)
    return f"{DATABASE}: {dropped} damaged results dropped; {AGAIN}" if dropped else f"{DATABASE}: nothing was dropped"
