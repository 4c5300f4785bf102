"""``segradius paper``: the tables, figures and claims of the paper, re-made at a scale."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from segradius.cli.paper_options import PAPER, PaperOptions
from segradius.cli.workers import WORKERS, WorkerOptions
from segradius.core.errors import InputError, one_of
from segradius.core.screen import COMMAND, console, noting_once, say, warn

if TYPE_CHECKING:
    from segradius.paper.element import Element
    from segradius.paper.measured import Measured
    from segradius.paper.scale import Scale


def paper(asked: list[str], /, options: PaperOptions = PAPER, workers: WorkerOptions = WORKERS) -> int:
    """Re-make the paper: its tables, its figures, and the verdict on each of its claims.

    list tells what there is. run NAME… trains the networks that are missing, measures what the named tables, figures or
    sections need, and shows them: NAME.md, NAME.csv, and pictures as NAME.svg, NAME.pdf and NAME.png in the folder of
    the scale. all runs all of them, and train only the networks. claims tells which claims of the paper hold by what
    was measured. pack writes what was measured in a small form. What is there already is never run again: start the
    same command again to go on.

    Args:
        asked: What to do: list, run and names as table-3 or figure-4, all, train, claims, or pack; names after the
            others choose too.
        options: See `PaperOptions`.
        workers: See `WorkerOptions`.

    Returns:
        The exit status.
    """
    action, *names = asked
    one_of(ACTIONS, action=action)
    return ACTIONS[action](names, options, workers)


def _list(names: Sequence[str], options: PaperOptions, _: WorkerOptions) -> int:
    from segradius.cli.paper_cost import attacks_of
    from segradius.report.cells import Cells

    scale, blocks = options.read()
    rows = []
    for each in _elements(names):
        skipped = [blocks[name].skip for name in each.blocks if blocks[name].skip]
        its = [blocks[name] for name in each.blocks]
        attacks, images = attacks_of(its, scale, options.folder)
        computed = any(block.compute and not block.skip for block in its)
        size = " + ".join([f"{attacks} × {images}"] * bool(attacks) + ["computed"] * computed)
        size = f"left out: {skipped[0]}" if len(skipped) == len(its) else size
        also = f" ({', '.join(each.aliases)})" if each.aliases else ""
        rows.append((f"{each.name}{also}", each.title, each.section, ", ".join(each.blocks), size))
    header = ("name", "what", "section", "blocks", "jobs × images")
    console().print(Cells(f"The paper at scale {scale.name}: {scale.about}", header, rows, words=5).rich())
    if scale.given:
        say(f"Asked for: --given {','.join(f'{name}=PATH' for name in scale.given)}")
    say("What it takes here: the command with --cost. Scales: demo, light, full.")
    return 0


def _run(names: Sequence[str], options: PaperOptions, workers: WorkerOptions) -> int:
    if not names:
        raise InputError(
            "paper run needs names, as table-3; segradius paper list tells them, segradius paper all runs all"
        )
    return _all(names, options, workers)


def _all(names: Sequence[str], options: PaperOptions, workers: WorkerOptions) -> int:
    from segradius.cli.paper_cost import tell_cost
    from segradius.cli.paper_run import Work, carry_out, show

    elements = _elements(names)
    work = Work.of(elements, options)
    if options.cost:
        with noting_once():
            tell_cost(work, options)
        return 0
    work.refuse_missing()
    with noting_once():
        failed = carry_out(work, options, workers) | show(work, elements)
    if failed:
        told = "\n  ".join(f"{name}: {error}" for name, error in failed.items())
        raise InputError(f"{len(failed)} of what was asked for cannot be finished:\n  {told}")
    return 0


def _train(names: Sequence[str], options: PaperOptions, _: WorkerOptions) -> int:
    from segradius.cli.paper_cost import tell_cost
    from segradius.cli.paper_run import Work, train_missing

    work = replace(Work.of(_elements(names), options), parts=(), computed=())
    if options.cost:
        tell_cost(work, options)
        return 0
    work.refuse_missing()
    train_missing(work, options)
    return 0


def _claims(names: Sequence[str], options: PaperOptions, _: WorkerOptions) -> int:
    from segradius.core.storage import write_atomically
    from segradius.paper.claim import claims
    from segradius.paper.element import read_elements
    from segradius.paper.page import About, page, pictures, table, write_verdicts
    from segradius.paper.verdict import judged

    scale, found, about = _found(options)
    elements, chosen = read_elements(), claims()
    if names:
        wanted = {each.name for each in _elements(names)}
        chosen = tuple(each for each in chosen if wanted & set(each.elements))
    if not found.seen and not found.computed and not found.certified:
        warn(f"nothing was measured at scale {scale.name} in {options.packed or options.folder}")
    verdicts = judged(found, chosen)
    console().print(table(verdicts).rich())
    folder = Path(options.packed) if options.packed else options.folder / scale.name
    if not options.packed:
        folder.mkdir(parents=True, exist_ok=True)
        say(f"Files: {', '.join(map(str, write_verdicts(verdicts, folder)))}")
    if options.page:
        page_file = Path(options.page)
        shown = Path(options.pictures) if options.pictures else folder
        told = About(scale, COMMAND.get(), _made(about), elements, pictures(shown, page_file))
        page_file.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(page_file, page(verdicts, found, told))
        say(f"Page: {page_file}")
    return 0


def _pack(names: Sequence[str], options: PaperOptions, _: WorkerOptions) -> int:
    from segradius.cli.paper_run import draw
    from segradius.paper.packed import write_packed
    from segradius.report.provenance import versions

    if options.to is None:
        raise InputError("paper pack needs --to FOLDER, which the results are packed into")
    scale, found, _about = _found(options)
    elements = _elements(names)
    kept = found.of({block for each in elements for block in each.blocks})
    for name in write_packed(kept, scale.name, Path(options.to), {"versions": versions()}):
        warn(f"{name} is too large to be packed, and left out")
    say(f"Packed: {options.to}")
    failed = draw(elements, kept, scale, Path(options.pictures)) if options.pictures else {}
    for name, error in failed.items():
        warn(f"{name}: {error}")
    return 2 if failed else 0


def _found(options: PaperOptions) -> tuple[Scale, Measured, Mapping[str, Any]]:
    """The scale, all that was measured at it, and what is known of that where it is packed."""
    from segradius.paper.measured import measured
    from segradius.paper.packed import read_packed

    scale, blocks = options.read()
    scale = scale.filled(options.names)
    if options.packed:
        return scale, *read_packed(Path(options.packed), scale.name)
    return scale, measured(options.folder, scale, blocks.values()), {}


def _made(about: Mapping[str, Any]) -> list[str]:
    """Lines on what packed results were made with."""
    versions = [f"{name} {version}" for name, version in about.get("versions", {}).items()]
    return [f"Measured with {', '.join(versions)}."] if versions else []


def _elements(names: Sequence[str]) -> tuple[Element, ...]:
    from segradius.paper.element import asked_for, read_elements

    return asked_for(names, read_elements())


ACTIONS: Mapping[str, Callable[[Sequence[str], PaperOptions, WorkerOptions], int]] = {
    "list": _list,
    "run": _run,
    "all": _all,
    "train": _train,
    "claims": _claims,
    "pack": _pack,
}
