"""``segradius report``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from segradius.core.declared import Range, Side
from segradius.core.errors import InputError
from segradius.core.screen import say, warn


def report(
    folders: list[str],
    /,
    out: str = "report.html",
    title: str | None = None,
    images: Annotated[int, Range("[0, 100]")] = 4,
    side: Annotated[Side, Range("[16, 4096]")] = 320,
) -> int:
    """Write finished runs and studies as one page that a person understands.

    The page holds all that it shows and asks nothing of any network: it works from a disk, prints, and can be mailed.
    The verdict stands first, in three sentences; then accuracy against the budget, proof against attack, queries,
    classes, the images most and least hurt, every figure with its interval and the command that made it, and the sanity
    checks. Runs of the same model on the same data are told together. What a folder lacks is named with the command
    that makes it. Needs the extra report.

    Args:
        folders: Folders of finished runs of segradius attack, evaluate, certify or run.
        out: The page.
        title: Above all; by default the names of the models.
        images: Images of its gallery that each attack has in the page, half of them those that it hurt most.
        side: Longest side of a picture, in pixels; larger ones are made smaller.
    """
    from segradius.core.locking import owned
    from segradius.core.storage import write_atomically
    from segradius.evaluation.folders import run_folders
    from segradius.report.story import read_story
    from segradius.report.webpage import webpage

    place = Path(out)
    if place.is_dir():
        raise InputError(f"out is {out}, a folder; expected a file, as in {place / 'report.html'}")
    runs = run_folders(folders)
    finished = [run for run in runs if run.is_reported]
    for run in runs:
        if run not in finished:
            warn(f"{run.path} is not finished, and is in no figure: run the same command again")
    if not finished:
        raise InputError(f"none of {len(runs)} runs is finished; run the same command again")
    place.parent.mkdir(parents=True, exist_ok=True)
    with owned(place, warn=warn):
        page = webpage([read_story(run) for run in finished], title=title or "", images=images, side=side).encode()
        write_atomically(place, page)
    say(f"{out}: {len(finished)} run(s), {len(page) / 1e6:.1f} MB")
    return 0
