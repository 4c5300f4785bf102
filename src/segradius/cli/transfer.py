"""``segradius transfer``."""

from __future__ import annotations

from pathlib import Path

from segradius.core.screen import say

#: What stands below the tables.
NOTE = (
    "Where a row's network is the column's, the attack follows the gradient of the network that judges. Elsewhere that "
    "network was asked once about each image: what is left there bounds no attack that sees it."
)


def transfer(folders: list[str], /, out: str | None = None) -> int:
    """Put runs whose images were made on other networks into a matrix: networks made on × networks judged on.

    Prints, for each attack and budget, how much each network still gets right of the images that were made on each, and
    how much that is less than unattacked, paired over images. With out it writes transfer.md, transfer.csv, and the
    matrix as a picture, transfer.png and transfer.svg.

    Args:
        folders: Folders of segradius attack, with --from and without, or of a study with transfer.
        out: Folder of the files; by default none are written.
    """
    from segradius.core.screen import console
    from segradius.core.sums import write_files
    from segradius.report.cells import page
    from segradius.report.transfer import as_file, as_lines, draw, matrices, tables

    found = matrices(folders)
    cells = tables(found)
    if out is not None:
        Path(out).mkdir(parents=True, exist_ok=True)
        figure = draw(found)
        pictures = [(f"transfer.{kind}", as_file(figure, kind)) for kind in ("png", "svg")]
        texts = [("transfer.md", page(cells, [NOTE])), ("transfer.csv", as_lines(found))]
        write_files(Path(out), [*texts, *pictures])
    for each in cells:
        console().print(each.rich())
    say(NOTE)
    return 0
