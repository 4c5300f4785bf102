"""The page on the claims of the paper, docs/reproduction.md, and its figures as CSV and JSON, made of measurements."""

from __future__ import annotations

import os
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from segradius.core.escapes import markdown
from segradius.core.storage import as_csv, as_json, write_atomically
from segradius.paper.claim import ABSENT, FAILS, HOLDS, OPEN
from segradius.paper.element import Element
from segradius.paper.estimate import Estimate
from segradius.paper.measured import Measured, Of
from segradius.paper.scale import Scale
from segradius.paper.verdict import Judged, Verdict, facts, label
from segradius.report.cells import Cells

MANY = {HOLDS: "hold", FAILS: "do not hold", OPEN: "are not decidable at this scale", ABSENT: "are not measured"}
WIDTH = 180
POINTS = "points"
HEADER = (
    "#", "claim of the paper", "where", "the paper's figures", "here [95 % interval]", "verdict", "n", "seeds", "±",
)  # fmt: skip
CELL_HEADER = ("cell", "here [95 % interval]", "expected", "n", "seeds", "verdict", "p against")
FIELDS = (
    "number", "name", "cell", "unit", "value", "low", "high", "half_width", "df", "images", "seeds", "rule", "verdict",
    "why", "p_value",
)  # fmt: skip

READING = """
**How a verdict comes about.** Each claim has a contrast, the region in which it would lie were the claim true, and,
where that region begins at zero, a least size that matters. They stand in `src/segradius/paper/claims.yaml` and
were written before there were data. *Holds*: the whole 95 % interval is in that region, in every cell of the claim.
*Does not hold*: in some cell the interval is outside it, or where the effect would not matter, after Holm's
adjustment over all cells of the claim. *Not decidable at this scale*: neither, or fewer than three trained networks
a group where networks or defences are compared, or too few images. *Not measured*: the command is beside it. Claims
are not adjusted for one another: of forty that are false, one would be taken to hold by chance.

**Intervals.** Differences are paired over images: share of the labelled pixels, pooled. Where several networks of a
family were trained, from seeds of their own, the interval is over both: the jackknife's variance over images and
that over networks are added, with Satterthwaite's degrees of freedom for Student's t. In simulated tables of three
networks and 24 images [it covers](data/intervals/claim_coverage.csv) in 93 to 99 % of cases, where quantiles of
means of networks and images drawn anew do in 73 to 99 % and an interval over images alone in 0 to 95 % (`python
studies/claim_coverage.py`). With one network it is an interval over images, and says nothing of other trainings.
*±* is half the widest interval of a claim: an effect has to be about that large to be told from none.
""".strip()


@dataclass(frozen=True)
class About:
    """What a page tells beside verdicts.

    Attributes:
        scale: At which the paper was re-made.
        command: That made the page.
        made: Further lines of where the figures come from: versions, dates, machines.
        elements: Of the paper, by name.
        pictures: Path of a picture, relative to the page, by name of what is shown.
    """

    scale: Scale
    command: str = ""
    made: Sequence[str] = ()
    elements: Mapping[str, Element] = field(default_factory=dict)
    pictures: Mapping[str, str] = field(default_factory=dict)


def pictures(folder: Path, page: Path, ending: str = "svg") -> dict[str, str]:
    """Pictures in a folder, by name, as a page links them.

    Args:
        folder: Of the pictures; none are found where it is not there.
        page: File of the page.
        ending: Of the files' names.

    Example:
        >>> pictures(Path("nowhere"), Path("docs/reproduction.md"))
        {}
    """
    root = page.resolve().parent
    return {it.stem: Path(os.path.relpath(it.resolve(), root)).as_posix() for it in sorted(folder.glob(f"*.{ending}"))}


def table(verdicts: Sequence[Verdict]) -> Cells:
    """All claims, a line each.

    Example:
        >>> len(table([]).header)
        9
    """
    rows = [
        (
            str(each.claim.number), each.claim.says, each.claim.where, each.claim.paper, here(each), each.word,
            span(each.images), span(each.seeds), half(each),
        )
        for each in verdicts
    ]  # fmt: skip
    return Cells("Claims of the paper", HEADER, rows, words=6)


def here(verdict: Verdict) -> str:
    """What was found of a claim: the value of its only cell with its interval, or of several from which to which."""
    cells = verdict.cells
    if len(cells) == 1:
        return told(cells[0].found.estimate, cells[0].found.unit)
    parts = []
    for part in verdict.claim.parts:
        its = [each for each in cells if each.part is part]
        known = sorted(each.found.estimate.value for each in its if each.found.estimate.known)
        if len(its) == 1:
            parts.append(told(its[0].found.estimate, its[0].found.unit))
        elif known:
            unit = its[0].found.unit
            ends = [figure(each, unit) for each in (known[0], known[-1])]
            parts.append(f"{ends[0]} to {ends[1]}{f' {unit}' if unit else ''} in {len(its)} cells")
    return "; ".join(parts) or "–"


def told(found: Estimate, unit: str) -> str:
    """A value and its interval."""
    after = f" {unit}" if unit else ""
    if found.value != found.value:
        return "–"
    value, low, high = (figure(each, unit) for each in (found.value, found.low, found.high))
    if not found.known:
        return f"{value}{after}"
    if found.low == found.high:
        return f"{value}{after}, exact"
    return f"{value} [{low}, {high}]{after}"


def figure(value: float, unit: str = POINTS) -> str:
    """A number, of points with its sign, so that it is read as a difference; two places where one would hide it.

    Example:
        >>> figure(-12.34), figure(0.046), figure(1234.5), figure(55.0, "%")
        ('-12.3', '+0.05', '+1234', '55.0')
    """
    size, sign = abs(value), "+" if unit == POINTS else ""
    text = f"{value:{sign}.0f}" if size >= 1000 else f"{value:{sign}.1f}" if size >= 10 else f"{value:{sign}.2f}"
    return text.replace("+0.00", "0.00").replace("-0.00", "0.00")


def span(ends: tuple[int, int]) -> str:
    """Two numbers, or one where they are equal."""
    return "–" if ends == (0, 0) else f"{ends[0]}" if ends[0] == ends[1] else f"{ends[0]}–{ends[1]}"


def half(verdict: Verdict) -> str:
    """Half the widest interval of a claim."""
    widest = max((each.found.estimate.half for each in verdict.cells if each.found.estimate.known), default=None)
    return "–" if widest is None else figure(widest, "")


def page(verdicts: Sequence[Verdict], measured: Measured, about: About) -> str:
    """The whole page in Markdown; the same measurements give the same page."""
    parts = [
        "# The paper's claims, re-made",
        *_intro(verdicts, measured, about),
        *(_wrapped(each) for each in READING.split("\n\n")),
        "## All claims",
        _bare(table(verdicts)),
        *_sections(verdicts, about),
    ]
    return "\n\n".join(parts) + "\n"


def _intro(verdicts: Sequence[Verdict], measured: Measured, about: About) -> Iterator[str]:
    counts = [f"{sum(each.word == word for each in verdicts)} {many}" for word, many in MANY.items()]
    yield _wrapped(
        "Each claim of *A Certified Radius-Guided Attack Framework to Image Segmentation Models* (Qu, Li, Wang, IEEE "
        "EuroS&P 2023) in one line of our own words, beside it the paper's figures and what was measured here, at "
        f"scale `{about.scale.name}`: {about.scale.about} Where a claim does not hold on these networks, images and "
        "sizes it may hold on the paper's, and the other way round."
    )
    yield f"**Of {len(verdicts)} claims**: {', '.join(counts)}."
    lines = [*_what(measured, about.scale), *about.made]
    if lines:
        yield "\n".join(f"- {line}" for line in lines)
    if about.command:
        yield f"The page is made of data by\n\n```bash\n{about.command}\n```"
    yield (
        f"`segradius paper run NAME --scale {about.scale.name}` measures an element of the paper anew, "
        "[Reproducing](reproducing.md) tells how; `--scale full` has the paper's networks and images."
    )


def _what(measured: Measured, scale: Scale) -> Iterator[str]:
    """Lines on networks and images, of what was measured."""
    rows: list[Of] = [*measured.seen, *measured.certified, *measured.traced]
    networks = {row.network: row for row in rows}
    kinds: dict[tuple[str, str, str], list[int]] = {}
    for name, row in networks.items():
        norm = scale.networks[name].norm if name in scale.networks else None
        kinds.setdefault((row.role, row.family, norm or ""), []).append(row.seed)
    words = [" ".join(filter(None, [_role(role), family, norm])) for role, family, norm in kinds]
    seeds = [f"{word} × {len(of)}" for word, of in zip(words, kinds.values(), strict=True)]
    if seeds:
        yield f"Networks, each from a seed of its own: {', '.join(seeds)}."
    for data in dict.fromkeys(row.data for row in rows):
        options = scale.data.get(data, {})
        used = len({row.image for row in rows if row.data == data})
        attacked = len({row.image for row in measured.seen if row.data == data and row.attack})
        size = f", at {options['size']}" if "size" in options else ""
        most = f"{attacked} at most under attack, {used} unattacked" if attacked < used else f"{used}"
        yield f"Images of {data}{size}: {most}, spread over the set; n has those of a claim."


def _role(role: str) -> str:
    return "" if role == "plain" else role


def _sections(verdicts: Sequence[Verdict], about: About) -> Iterator[str]:
    for group in dict.fromkeys(each.claim.group for each in verdicts):
        mine = [each for each in verdicts if each.claim.group == group]
        yield f"## {markdown(group)}"
        elements = dict.fromkeys(name for each in mine for name in each.claim.elements)
        links = list(_links(elements, about))
        if links:
            yield "\n".join(links)
        for each in mine:
            yield from _claim(each, about)


def _links(names: Mapping[str, None], about: About) -> Iterator[str]:
    """Pictures of elements."""
    for name in names:
        if name not in about.elements:
            continue
        it = about.elements[name]
        for show in it.shows:
            if show.name in about.pictures:
                yield f"![{markdown(f'{it.paper}: {it.title}')}]({about.pictures[show.name]})"


def _claim(verdict: Verdict, about: About) -> Iterator[str]:
    it = verdict.claim
    yield f"### {it.number}. {markdown(it.says)}"
    why = f" ({markdown(verdict.why)})" if verdict.why else ""
    command = f"segradius paper run {' '.join(it.elements)} --scale {about.scale.name}"
    absent = f": `{command}`" if verdict.word == ABSENT else f"{why}."
    yield _wrapped(f"*{markdown(it.where)}.* The paper: {markdown(it.paper)}. **{verdict.word.capitalize()}**{absent}")
    for words in filter(None, (it.reason, it.notes.get(verdict.word, ""))):
        yield _wrapped(markdown(words))
    if verdict.cells:
        yield _bare(Cells("", CELL_HEADER, [_row(each, verdict.cells) for each in verdict.cells], words=3))


def _row(cell: Judged, cells: Sequence[Judged]) -> tuple[str, ...]:
    found = cell.found
    why = f": {cell.why}" if cell.why and cell.word == OPEN and not found.estimate.known else ""
    return (
        label(cell, cells),
        told(found.estimate, found.unit),
        cell.part.rule.told(found.unit),
        str(found.estimate.images or "–"),
        str(found.estimate.seeds or "–"),
        ("open" if cell.word == OPEN else cell.word) + why,
        f"{cell.p_value:.2g}",
    )


def _bare(cells: Cells) -> str:
    """A table without its title."""
    whole = cells.markdown()
    return whole[whole.index("| ") :]


def _wrapped(words: str) -> str:
    return "\n".join(textwrap.wrap(words, WIDTH, break_long_words=False, break_on_hyphens=False))


def write_verdicts(verdicts: Sequence[Verdict], folder: Path) -> list[Path]:
    """Write claims.csv, a line for each cell, and claims.json; the folder exists.

    Returns:
        Paths of the files.
    """
    rows = []
    for each in verdicts:
        for cell in each.cells:
            found = cell.found.estimate
            about = (each.claim.number, each.claim.name, label(cell, each.cells), cell.found.unit)
            ends = (found.value, found.low, found.high, found.half, found.df, found.images, found.seeds)
            rows.append((*about, *ends, cell.part.rule.told(cell.found.unit), cell.word, cell.why, cell.p_value))
    contents = {
        "claims.csv": as_csv(FIELDS, rows),
        "claims.json": as_json({"claims": [facts(each) for each in verdicts]}),
    }
    for name, content in contents.items():
        write_atomically(folder / name, content)
    return [folder / name for name in contents]
