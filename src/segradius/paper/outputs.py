"""What a table or figure of the paper becomes: Markdown, CSV, and a picture as SVG, PDF and PNG."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segradius.core import escapes
from segradius.core.storage import as_csv, write_atomically
from segradius.report.cells import Cells

if TYPE_CHECKING:  # a run without pictures does without Matplotlib, which takes half a second
    from matplotlib.figure import Figure

#: Of pictures, without what changes from one day or machine to another.
METADATA: Mapping[str, Mapping[str, Any]] = {
    "svg": {"Date": None, "Creator": None},
    "pdf": {"CreationDate": None, "Creator": None, "Producer": None},
    "png": {"Software": None},
}
DPI = 200


@dataclass(frozen=True)
class Shown:
    """A table or figure as it is shown.

    Attributes:
        name: Of its files.
        tables: Below the picture.
        figure: The picture; None of a table, and where nothing was measured.
        caption: What is to be known: images, networks, intervals, what marks mean.
        values: Every number, a flat line each, for the CSV file; the first table is taken where there are none.
    """

    name: str
    tables: tuple[Cells, ...]
    figure: Figure | None
    caption: str
    values: tuple[Mapping[str, Any], ...] = ()


def nothing(name: str, why: str) -> Shown:
    """What is shown where nothing was measured.

    Example:
        >>> nothing("table-2", "no block was run").caption
        'Nothing is shown: no block was run.'
    """
    return Shown(name, (), None, f"Nothing is shown: {why}.")


def write_shown(shown: Shown, folder: Path, title: str = "", also: Sequence[str] = ()) -> list[Path]:
    """Write the files of what is shown, each whole or not at all; pictures that it has no more go.

    Args:
        shown: A table or figure.
        folder: Made where it is not there.
        title: Heading of the page.
        also: Paragraphs between the heading and the picture, as what the paper finds.

    Returns:
        Paths of the files.
    """
    folder.mkdir(parents=True, exist_ok=True)
    pictures = {end: picture(shown.figure, end) for end in METADATA} if shown.figure is not None else {}
    files: dict[str, str | bytes] = {"md": page(shown, title, also), **pictures}
    if shown.values or shown.tables:
        files["csv"] = table(shown)
    for end in {"csv", *METADATA} - set(files):
        (folder / f"{shown.name}.{end}").unlink(missing_ok=True)
    for end, content in files.items():
        write_atomically(folder / f"{shown.name}.{end}", content)
    return [folder / f"{shown.name}.{end}" for end in files]


def page(shown: Shown, title: str = "", also: Sequence[str] = ()) -> str:
    """It in Markdown, its picture beside it as ``NAME.svg``.

    Example:
        >>> print(page(nothing("table-2", "no block was run"), "Table 2"))
        # Table 2
        <BLANKLINE>
        Nothing is shown: no block was run.
        <BLANKLINE>
    """
    parts = [f"# {escapes.markdown(title)}"] if title else []
    parts += map(escapes.markdown, also)
    if shown.figure is not None:
        parts.append(f"![{escapes.markdown(title or shown.name)}]({shown.name}.svg)")
    parts += [each.markdown() for each in shown.tables]
    parts.append(escapes.markdown(shown.caption))
    return "\n\n".join(part for part in parts if part) + "\n"


def table(shown: Shown) -> str:
    """Its numbers as CSV, nothing for what is not known."""
    if not shown.values:
        return as_csv(shown.tables[0].header, shown.tables[0].rows)
    header = dict.fromkeys(name for line in shown.values for name in line)
    return as_csv(header, ([_cell(line.get(name)) for name in header] for line in shown.values))


def _cell(value: Any) -> Any:
    return "" if isinstance(value, float) and value != value else value


def picture(figure: Figure, end: str) -> bytes:
    """A figure as the bytes of a file, equal for equal figures.

    Args:
        figure: Drawn.
        end: ``svg``, ``pdf`` or ``png``.
    """
    from matplotlib import rc_context

    file = io.BytesIO()
    if figure.get_layout_engine() is not None:  # once for all files: it takes longer than to draw
        figure.draw_without_rendering()
        figure.set_layout_engine("none")
    with rc_context({"svg.hashsalt": "segradius", "svg.fonttype": "path", "pdf.fonttype": 42, "path.simplify": False}):
        figure.savefig(file, format=end, dpi=DPI, metadata=dict(METADATA[end]))
    return file.getvalue()
