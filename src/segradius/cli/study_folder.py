"""The folder of a study: what was asked, which measurements that is, and one owner at a time."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import yaml

from segradius.core.errors import InputError
from segradius.core.escapes import listed
from segradius.core.locking import owned
from segradius.core.screen import warn
from segradius.core.secrets import without_secrets
from segradius.core.storage import as_json, write_atomically
from segradius.evaluation.folders import ASKED, RUNS, SCHEMA, STUDY, described
from segradius.evaluation.sizing import USUAL
from segradius.evaluation.study import Study

#: All images.
WHOLE = (1, 1)


def shard_folder(folder: str | Path, shard: tuple[int, int]) -> Path:
    """Where a part of a study is; the study's own folder where that is all of it.

    Example:
        >>> shard_folder("out", (3, 16)).name, shard_folder("out", (1, 1)).name
        ('shard-3-of-16', 'out')
    """
    return Path(folder) if shard == WHOLE else Path(folder) / f"shard-{shard[0]}-of-{shard[1]}"


@contextmanager
def owned_study(folder: Path, study: Study, shard: tuple[int, int] = WHOLE, batch_size: int = USUAL) -> Iterator[None]:
    """A context in which the folder of a study is this process's, and says what the study is.

    Args:
        folder: Made where absent.
        study: That is carried out in it.
        shard: Which part of its images.
        batch_size: Images at a time, by which parts are cut.

    Raises:
        InputError: Another process has it, or the part is cut by batches of another size.
    """
    folder.mkdir(parents=True, exist_ok=True)
    with owned(folder, (), warn):
        _refuse_cut(folder, shard, batch_size)
        write_study(folder, study, shard, batch_size)
        yield


def write_study(folder: Path, study: Study, shard: tuple[int, int] = WHOLE, batch_size: int = USUAL) -> None:
    """Write what a study is: the YAML, without secrets, and then its measurements."""
    names = [each.name for each in study.measurements]
    there = {each.name for each in (folder / RUNS).glob("*") if each.is_dir()}
    if left := sorted(there - set(names)):
        warn(f"{folder / RUNS} holds what the study does not ask for any more, and is left as it is: {listed(left)}")
    part = {} if shard == WHOLE else {"shard": {"index": shard[0], "of": shard[1], "batch_size": batch_size}}
    found: dict[str, Any] = {"schema": SCHEMA, "measurements": [each.as_dict for each in study.measurements], **part}
    asked = yaml.safe_dump(without_secrets(dict(study.given)), sort_keys=False, allow_unicode=True)
    for name, content in ((ASKED, asked), (STUDY, as_json(found))):
        path = folder / name
        if not path.is_file() or path.read_text("utf-8") != content:
            write_atomically(path, content)


def _refuse_cut(folder: Path, shard: tuple[int, int], batch_size: int) -> None:
    if shard == WHOLE or not (folder / STUDY).is_file():
        return
    before = described(folder).get("shard", {}).get("batch_size")
    if before != batch_size:
        told = f"{folder} was cut by --batch-size {before}, and --batch-size is {batch_size} now"
        raise InputError(f"{told}: it would be a part of other images")
