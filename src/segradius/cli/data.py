"""``segradius data``: what a data set is, before anything is run on it."""

from __future__ import annotations

from typing import Annotated, Literal

from segradius.core import text
from segradius.core.declared import Images, Range


def data(
    action: Literal["check"],
    spec: str,
    /,
    split: str | None = None,
    limit: Images | None = None,
    stride: Images = 1,
    size: str | None = None,
    protocol: str | None = None,
    void: Literal["ignore", "background"] | None = None,
    against: str | None = None,
    against_split: str | None = None,
    sheet: Annotated[int, Range("[0, 24]")] = 24,
    out: str = "segradius-data",
) -> int:
    """Look at a data set: read every image and mask once, and say what is there.

    Prints how many images can be used and why others cannot, sizes, types and ranges of the files, classes with their
    shares of pixels and images, the share of void, images that are there twice, and what is probably a mistake. Writes
    check.md, check.json, check.csv (a line for each image) and sheet.png (images with their masks drawn over them) into
    a folder. The exit status is 3 where an image cannot be used.

    Args:
        action: What to do, check.
        spec: Images: scenes, or NAME:PATH as folder:PATH; see segradius list data.
        split: Part of the data set; its evaluation part by default.
        limit: Only the first so many images.
        stride: Only every stride-th image.
        size: Resize to height x width, as in 240x320.
        protocol: Named preparation of images, instead of size.
        void: What pixels without a class count as: ignore for nothing, or background, as the class of that name or a
            new first one. Default: as the protocol has it, else ignore.
        against: Another data set, as that which a network learns from: images that are in both are named.
        against_split: Part of that; without --against, another part of the same data set.
        sheet: Panels of the sheet at most, one of them the legend; 0 for none.
        out: Folder of the files.

    Returns:
        The exit status.
    """
    from pathlib import Path

    from segradius.cli.run_folder import SET_ASIDE
    from segradius.core.escapes import listed
    from segradius.core.locking import owned
    from segradius.core.screen import console, note, progress, say, warn
    from segradius.core.sums import write_files
    from segradius.data import counted, open_data
    from segradius.evaluation.check import check_data
    from segradius.report.check import check_files, check_notes, check_tables

    to = text.size(size)
    opened = open_data(spec, split=split, limit=limit, stride=stride, size=to, protocol=protocol, void=void)
    note(counted(opened))
    other = None
    if against is not None or against_split is not None:
        other = open_data(against or spec, split=against_split, size=to, protocol=protocol, void=void)
        note(f"against {counted(other)}")
    total = len(opened) + (0 if other is None else len(other))
    with progress("images", total, first="reading") as advance:
        found = check_data(opened, other, advance)
    for cells in check_tables(found):
        console().print(cells.rich())
    for each in check_notes(found):
        say(each, "yellow")
    folder = Path(out)
    folder.mkdir(parents=True, exist_ok=True)
    with owned(folder, (), warn):
        write_files(folder, check_files(found, opened, counted(opened), sheet))
    say(f"Files: {folder}")
    if not found.faults:
        return 0
    warn(f"{len(found.faults)} image(s) cannot be used, {listed(list(found.faults))}: exit status {SET_ASIDE}")
    return SET_ASIDE
