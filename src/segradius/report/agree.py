"""Whether two deployments of one network agree, for a reader: a verdict, tables, a picture of where they differ."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from torch import Tensor

from segradius.core.ledger import Ledger
from segradius.core.storage import as_csv, as_json, null
from segradius.data.sample import Classes
from segradius.evaluation.agree_causes import LEAST, VERDICTS, Tried, causes_of, verdict_of
from segradius.evaluation.agree_summary import AgreementSummary, summarise_agreement
from segradius.evaluation.agree_trial import try_preparations
from segradius.evaluation.agreeing import Agreement, Look
from segradius.evaluation.batch import class_names, judge
from segradius.evaluation.class_summary import classes_csv
from segradius.evaluation.facts import Finding
from segradius.evaluation.preflight import findings, told, warnings
from segradius.evaluation.rows import CLEAN
from segradius.evaluation.run import Run
from segradius.evaluation.store import Store
from segradius.metrics.shifts import best_shift
from segradius.report.cells import Cells, Report, nothing_usable, page, set_aside_note, share
from segradius.report.overlay import Painter
from segradius.report.panels import grid, height, panel, partly, photo, png, swatch
from segradius.report.provenance import made

#: Of results.json.
SCHEMA = 1
COLUMNS = ("image", "valid", "pixels", "agree", "share", "boundary_pixels", "boundary_agree")
SHIFTED = ("shift_y", "shift_x", "largest", "median")
#: Colour of pixels that differ.
DIFFERS = (213, 94, 0)


def report_agreement(
    run: Run[Agreement],
    store: Store,
    facts: Mapping[str, Any],
    *,
    least: float = LEAST,
    figures: int = 2,
) -> Report:
    """The report of two deployments.

    Args:
        run: What was run.
        store: Its results.
        facts: What changes no result, for the record.
        least: Share of the pixels that must agree.
        figures: Images in the picture, those that agree least.

    Raises:
        InputError: No image could be used.
    """
    second = run.experiment.task.second.model
    names = class_names(run.data.classes, max(run.model.num_classes, second.num_classes))
    structures = int(getattr(run.model, "structures", 0))
    it = summarise_agreement(run.experiment, store, run.data.ids, names, structures)
    if it is None:
        raise nothing_usable(store.all_set_aside(), "the data set is empty, or the scores of the second are not finite")
    good = [image for image in run.data.ids if image in set(it.worst)]
    close = it.pixacc.value >= least
    tried = Tried(why_not="not needed: they agree") if close else try_preparations(run, store, good)
    causes = causes_of(it, tried)
    verdict, seen = verdict_of(it, causes, least), run.facts(store)
    doubts, looks = findings(seen), Ledger(1)
    tables = [agreement_table(it), classes_table(it), checks_table(it, tried)]
    above = _heading(run, it)
    notes = [
        f"Verdict: {verdict}: {VERDICTS[verdict]}; {it.pixacc.value:.2%} of the pixels agree, and {least:.2%} must.",
        *(f"{'Likely cause' if cause.value > 0.8 else 'Part of it'}: {_ended(cause.line)}" for cause in causes),
        *_numbers(run.model.num_classes, second.num_classes),
        *([f"{len(it.invalid)} image(s) left out, as the second's scores are not finite there"] if it.invalid else []),
        *set_aside_note(it.set_aside),
        *warnings(doubts),
    ]

    def files() -> Iterator[tuple[str, str | bytes]]:
        yield "per_image.csv", _per_image(run, store, [*good, *it.invalid])
        yield "classes.csv", classes_csv(((), row) for row in it.classes)
        if it.pairs is not None:
            pairs = [(names[a], names[b], int(it.pairs[a, b])) for a, b in it.pairs.nonzero().tolist()]
            yield "confusion.csv", as_csv(("first", "second", "pixels"), pairs)
        if figures:
            yield "figure.png", _picture(run, store, it, figures, looks)
        yield "table.md", page(tables, [*notes, *made(facts)], above)
        report = {
            "schema": SCHEMA,
            "command": facts.get("command", ""),
            "identity": run.experiment.identity,
            "experiment": run.experiment.as_dict(),
            "verdict": verdict,
            "least": least,
            "causes": [asdict(cause) for cause in causes],
            "rows": [_row(it)],
            "preparations": asdict(tried),
            "set_aside": it.set_aside,
            "invalid": list(it.invalid),
            **told(seen, doubts),
            "digest": asdict(it.digest),
            "runtime": {**facts, "picture": looks.by_purpose()},
        }
        yield "results.json", as_json(report)

    return Report(Told(it, verdict, causes), tables, notes, files(), "images", above, "yellow")


class Told:
    """What a comparison came to: its summary, the verdict and the causes; and what every run's summary has."""

    def __init__(self, summary: AgreementSummary, verdict: str, causes: Sequence[Finding]) -> None:
        self.summary, self.verdict, self.causes = summary, verdict, causes
        self.set_aside, self.digest = summary.set_aside, summary.digest


def _heading(run: Run[Agreement], it: AgreementSummary) -> str:
    study = run.experiment
    first, second = (f"{each.spec} ({each.fingerprint or 'unknown'})" for each in (study.model, study.task.other))
    size = "" if study.data.size is None else f", at {study.data.size[0]}x{study.data.size[1]}"
    of = "" if it.images == len(run.data) else f" of {len(run.data)}"
    asked = f"asked {it.asked['first']} and {it.asked['second']} times"
    return (
        f"Compared: first {first}; second {second}; data {run.data.name}, {it.images}{of} images{size}; {asked}; the "
        "first's predictions are the reference, no labels were looked at."
    )


def agreement_table(it: AgreementSummary) -> Cells:
    """One line: how far the two agree."""
    header = ("images", "agree %", "MIoU %", "at boundaries %", "inside %", "share at boundaries %")
    row = [str(it.images), *map(share, (it.pixacc, it.miou, it.boundary, it.interior)), f"{100 * it.at_boundary:.1f}"]
    return Cells("Agreement of the second with the first, per cent [95 % interval over images]", header, [row])


def classes_table(it: AgreementSummary) -> Cells:
    """One line for each class that either says."""
    rows = []
    for row in it.classes:
        place = it.names.index(row.name)
        calls = "–"
        if it.pairs is not None and row.pixels:
            mostly = int(it.pairs[place].argmax())
            calls = f"{it.names[mostly]} ({100 * float(it.pairs[place, mostly]) / row.pixels:.1f} %)"
        rows.append([row.name, str(row.pixels), share(row.accuracy), share(row.iou), calls])
    header = ("class of the first", "pixels", "called so %", "IoU %", "the second mostly says")
    return Cells("By class, over all images", header, rows)


def checks_table(it: AgreementSummary, tried: Tried) -> Cells:
    """What was tried, each with the share that agrees then."""
    moved = f"shift ({it.shift[0]}, {it.shift[1]}) of up to ±{it.reach}"
    rows = [
        ["as they are, without the margin of the shifts", _percent(it.unshifted)],
        [moved, _percent(it.shift_share)],
    ]
    if it.order:
        renames = sum(it.order[c] != c for c in it.seen)
        rows.append([f"classes in the best order ({renames} renamed)", _percent(it.renamed)])
    if tried.of:
        rows.append([f"as they are, on {tried.images} images", _percent(tried.as_is)])
        rows += [[f"{tried.of}: {name}", _percent(share)] for name, share in tried.shares.items()]
    else:
        rows.append([f"other preparations: {tried.why_not}", "–"])
    if not math.isnan(it.largest):
        rows.append(["largest difference of two scores", f"{it.largest:.3g}"])
        rows.append(["median difference of scores", f"{it.median:.3g}"])
    else:
        rows.append(["difference of scores: not both give all scores, of equally many classes, for nothing", "–"])
    return Cells("What was tried", ("agreement, per cent", "value"), rows)


def _ended(sentence: str) -> str:
    """With a full stop, where nothing ends it yet.

    Example:
        >>> _ended("It is"), _ended("Is it?")
        ('It is.', 'Is it?')
    """
    return sentence if sentence.endswith(("?", ".")) else f"{sentence}."


def _numbers(first: int, second: int) -> list[str]:
    """That one of the two has more classes, which it need not say on these images."""
    told = f"The first has {first} classes and the second {second}: on other images one may say what the other cannot."
    return [told] if first != second else []


def _percent(value: float) -> str:
    return "–" if math.isnan(value) else f"{100 * value:.2f}"


def _row(it: AgreementSummary) -> dict[str, Any]:
    """All figures, for JSON."""
    return {
        "images": it.images,
        **{name: asdict(getattr(it, name)) for name in ("pixacc", "miou", "boundary", "interior")},
        "at_boundary": it.at_boundary,
        "classes": [asdict(row) for row in it.classes],
        "shift": {"by": list(it.shift), "agree": it.shift_share, "unshifted": it.unshifted, "reach": it.reach},
        "quarters": {"by": [list(each) for each in it.quarters], "agree": it.quarters_share},
        "renamed": {"order": list(it.order), "agree": it.renamed},
        "scores": {"largest": it.largest, "median": it.median},
        "asked": dict(it.asked),
    }


def _per_image(run: Run[Agreement], store: Store, ids: Sequence[str]) -> str:
    (job,) = run.experiment.jobs
    results, lines = store.results(job.key), []
    for image in ids:
        record, found = store.record(job.key, image), results[image]
        if record is None:
            continue
        look, pixels, agree = Look.unpacked(record), sum(found.pixels.labelled), sum(found.pixels.intersection)
        edge = look.edge.tolist()
        about = [image, int(found.valid), pixels, agree, f"{agree / pixels:.9g}", edge[1], edge[0]]
        lines.append([*about, *best_shift(look.shifts.sum(-1)), *null([*look.gaps])])
    return as_csv((*COLUMNS, *SHIFTED), lines)


def _picture(run: Run[Agreement], store: Store, it: AgreementSummary, figures: int, looks: Ledger) -> bytes:
    """The images that agree least, with what each of the two sees and where that differs."""
    (job,) = run.experiment.jobs
    places = {image: place for place, image in enumerate(run.data.ids)}
    shown = []
    for image in it.worst[:figures]:
        sample, theirs = run.data[places[image]], store.prediction(job.key, image)
        assert theirs is not None
        shown.append((image, sample.image, _first(run, store, image, sample.image, looks), theirs))
    return draw_agreement(shown, run.data.classes)


def _first(run: Run[Agreement], store: Store, image: str, pixels: Tensor, looks: Ledger) -> Tensor:
    kept = store.prediction(CLEAN, image)
    if kept is not None:
        return kept
    looks.enter("picture", forward=1)
    with run.model.frozen():
        return judge(run.model, pixels[None].to(run.model.device))[0][0].cpu()


def draw_agreement(shown: Sequence[tuple[str, Tensor, Tensor, Tensor]], classes: Classes) -> bytes:
    """A PNG with a row for each image: it, both predictions, and the pixels that differ.

    Args:
        shown: Name, image (B, H, W), and what the two predict, (H, W) each.
        classes: Names and palette.
    """
    figure, axes = grid([height(image) for _, image, _, _ in shown], 5, "Where two deployments differ")
    painter = Painter.of(classes, [seen for _, _, *both in shown for seen in both])
    for row, (name, image, mine, theirs) in zip(axes, shown, strict=True):
        panel(row[0], photo(image), f"image {name}{partly(image)}")
        panel(row[1], painter.paint(image, mine), "first")
        panel(row[2], painter.paint(image, theirs), "second")
        pale = (photo(0.6 + 0.4 * image.mean(0, keepdim=True).expand(3, -1, -1)) * 255).astype(np.uint8)
        pale[(mine != theirs).numpy()] = DIFFERS
        panel(row[3], pale, f"differ: {100 * float((mine != theirs).double().mean()):.2f} %")
    maps: list[Tensor] = [torch.cat([seen.flatten() for _, _, *both in shown for seen in both])[None]]
    painter.legend(axes[0, 4], maps, [swatch(DIFFERS, "differs")])
    return png(figure)
