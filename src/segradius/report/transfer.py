"""The transfer matrix of finished runs: what images made on one network leave of another, by attack and budget."""

from __future__ import annotations

import io
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any

from segradius.core import escapes
from segradius.core.errors import InputError
from segradius.core.storage import as_csv
from segradius.evaluation.attack_summary import Row
from segradius.evaluation.folders import run_folders
from segradius.evaluation.loaded import SavedRun, load_results
from segradius.metrics.intervals import Difference, Interval, paired_difference
from segradius.report.cells import Cells, percent
from segradius.report.panels import empty

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

#: What the mean of all other networks is called.
OTHERS = "all others"
#: Above it, of 1, numbers on a colour of the map are black.
DARK = 0.55

Plan = tuple[str, str, float]
"""Label, norm and ε of an attack; ("clean", "", 0) for the unattacked images."""
CLEAN: Plan = ("clean", "", 0.0)


@dataclass(frozen=True)
class Cell:
    """What the images that were made on one network leave of another.

    Attributes:
        left: Share of the labelled pixels that are right, pooled over images, in [0, 1].
        taken: What that is less than unattacked, paired over images, as a share.
        images: How many.
    """

    left: Interval
    taken: Difference
    images: int


@dataclass(frozen=True)
class Matrix:
    """An attack at a budget: networks that images are made on × networks that judge them.

    Attributes:
        data: The images.
        plan: The attack.
        seed: Of it.
        targets: Labels of the networks that judge.
        cells: By (made on, judged on).
        clean: Of each network that judges, what is right unattacked.
    """

    data: str
    plan: Plan
    seed: int
    targets: tuple[str, ...]
    cells: Mapping[tuple[str, str], Cell] = field(repr=False)
    clean: Mapping[str, Interval] = field(repr=False)

    @property
    def made_on(self) -> tuple[str, ...]:
        """Labels of the networks that images are made on, those that judge first and in their order."""
        found = dict.fromkeys(source for source, _ in self.cells)
        return tuple(dict.fromkeys((*(label for label in self.targets if label in found), *found)))

    @property
    def title(self) -> str:
        """For people."""
        name, norm, eps = self.plan
        return f"{name}, {norm}, ε = {eps:g}, {self.data}" + (f", seed {self.seed}" if self.seed else "")


def matrices(folders: Sequence[str | Path]) -> tuple[Matrix, ...]:
    """The transfer matrices of finished runs.

    A network is known by its fingerprint: what it is called is its label in the study where it is attacked itself.

    Args:
        folders: Of runs of ``segradius attack``, or of studies.

    Raises:
        InputError: A run is not finished or is aimed at a class, none was made on another network, or two are of the
            same networks, attack and images.
    """
    runs = [run for run in load_results(*folders).runs if run.kind != "certify"]
    labels = {each.path: each.model for each in run_folders(folders)}
    for run in runs:
        if run.experiment.get("target") is not None:
            raise InputError(f"{run.path} is aimed at {run.experiment['target']}; expected untargeted attacks")
    names = _names(runs, labels)
    if not any(run.experiment["model"].get("surrogates") for run in runs):
        raise InputError("no run has images that were made on another network; expected runs with --from, or transfer:")
    targets = tuple(dict.fromkeys(names[_marks(run)[0]] for run in runs))
    found: dict[tuple[str, Plan, int], dict[tuple[str, str], Cell]] = {}
    clean: dict[tuple[str, int], dict[str, Interval]] = {}
    for run in runs:
        attacked, *made_on = (names[mark] for mark in _marks(run))
        source = _source(attacked, made_on, targets)
        about = _data(run), int(run.experiment["seed"])
        images = _each_image(run)
        for row in run.rows:
            assert isinstance(row, Row)
            plan = (row.name, row.norm or "", row.eps or 0.0)
            if plan == CLEAN:
                clean.setdefault(about, {})[attacked] = row.pixacc
            elif plan in images:
                cells = found.setdefault((about[0], plan, about[1]), {})
                if (source, attacked) in cells:
                    raise InputError(
                        f"{run.path}: {row.name} from {source} on {attacked} is there twice; expected once"
                    )
                cells[source, attacked] = Cell(row.pixacc, _taken(images, plan), row.images)
    return tuple(
        Matrix(data, plan, seed, targets, cells, clean[data, seed]) for (data, plan, seed), cells in found.items()
    )


def _marks(run: SavedRun) -> list[str]:
    """What tells the attacked network and those that images were made on from others."""
    model = run.experiment["model"]
    specs, marks = model.get("surrogates") or (), model.get("surrogate_fingerprints") or ()
    made_on = [mark or spec for spec, mark in zip(specs, marks, strict=True)]
    return [str(model.get("fingerprint") or model["spec"]), *map(str, made_on)]


def _names(runs: Iterable[SavedRun], labels: Mapping[Path, str]) -> dict[str, str]:
    """What each network is called: its label in the study, without *from …*; else its text."""
    own: dict[str, str] = {}
    other: dict[str, str] = {}
    for run in runs:
        mark, *made_on = _marks(run)
        model, label = run.experiment["model"], labels.get(run.path, "")
        if not made_on and label:
            own.setdefault(mark, label)
        other.setdefault(mark, label.partition(" from ")[0] or _short(model["spec"]))
        for each, spec in zip(made_on, model.get("surrogates") or (), strict=True):
            other.setdefault(each, _short(spec))
    return other | own


def _short(spec: str) -> str:
    """Of a card or file its name, or where that says nothing its folder's."""
    path = PurePath(spec.partition(",")[0])
    said = path.parent.name if path.stem in ("last", "best", "model", "card") else path.stem
    return said or str(spec)


def _source(attacked: str, made_on: Sequence[str], targets: Sequence[str]) -> str:
    if not made_on:
        return attacked
    everybody = set(made_on) == set(targets) - {attacked}
    return OTHERS if len(made_on) > 1 and everybody else " + ".join(made_on)


def _data(run: SavedRun) -> str:
    data = run.experiment["data"]
    size = f" at {data['size'][0]}×{data['size'][1]}" if data.get("size") else ""
    return f"{data['spec'].partition(':')[0]}{size}"


def _each_image(run: SavedRun) -> dict[Plan, dict[str, float]]:
    """Accuracy of every image under each attack, NaN where it is invalid."""
    found: dict[Plan, dict[str, float]] = {}
    for line in run.per_image():
        plan = str(line["attack"]), str(line["norm"] or ""), float(line["eps"] or 0)
        accuracy = float(line["pixacc"]) if line["valid"] and line["pixacc"] is not None else math.nan
        found.setdefault(plan, {})[str(line["image"])] = accuracy
    return found


def _taken(images: Mapping[Plan, Mapping[str, float]], plan: Plan) -> Difference:
    before = images[CLEAN]
    return paired_difference(list(before.values()), [images[plan].get(image, math.nan) for image in before])


def tables(found: Sequence[Matrix]) -> list[Cells]:
    """Of each matrix, what is left of each network and what was taken from it."""
    return [each for matrix in found for each in (_left(matrix), _lost(matrix))]


def _left(it: Matrix) -> Cells:
    body = [[source, *(_of(it, source, target, taken=False) for target in it.targets)] for source in it.made_on]
    clean = ["unattacked", *(percent(it.clean[t].value, it.clean[t]) if t in it.clean else "" for t in it.targets)]
    title = f"{it.title}: PixAcc left, per cent [95 % interval over images]; a row is what images were made on"
    return Cells(title, ("made on", *(f"judged on {target}" for target in it.targets)), [clean, *body])


def _lost(it: Matrix) -> Cells:
    body = [[source, *(_of(it, source, target, taken=True) for target in it.targets)] for source in it.made_on]
    title = f"{it.title}: points of PixAcc taken, paired over images [95 %]"
    return Cells(title, ("made on", *(f"judged on {target}" for target in it.targets)), body)


def _of(it: Matrix, source: str, target: str, *, taken: bool) -> str:
    cell = it.cells.get((source, target))
    if cell is None:
        return ""
    return percent(cell.taken.mean, cell.taken) if taken else percent(cell.left.value, cell.left)


def as_lines(found: Sequence[Matrix]) -> str:
    """A CSV with a line for each cell of each matrix: shares in [0, 1]."""
    header = ("data", "attack", "norm", "eps", "seed", "made_on", "judged_on", "images", "pixacc", "pixacc_low",
              "pixacc_high", "clean", "taken", "taken_low", "taken_high", "p_value")  # fmt: skip
    lines: list[list[Any]] = []
    for it in found:
        for (source, target), cell in it.cells.items():
            clean = it.clean[target].value if target in it.clean else math.nan
            left, taken = cell.left, cell.taken
            values = [left.value, left.low, left.high, clean, taken.mean, taken.low, taken.high, taken.p_value]
            shown = [None if math.isnan(each) else each for each in values]
            lines.append([it.data, *it.plan, it.seed, source, target, cell.images, *shown])
    return as_csv(header, lines)


def draw(found: Sequence[Matrix]) -> Figure:
    """A map of each matrix: points of PixAcc that images made on a row's network take from a column's."""
    across = min(len(found), 3)
    down = -(-len(found) // across)
    rows, columns = (max(len(each) for each in some) for some in ([it.made_on for it in found], [found[0].targets]))
    figure = empty(1.4 + across * (1.2 + 0.75 * columns), down * (1.1 + 0.5 * rows), w_pad=0.04, h_pad=0.06)
    figure.suptitle("points of PixAcc taken from a column's network by images made on a row's", fontsize=9)
    axes = figure.subplots(down, across, squeeze=False).ravel()
    top = max(0.01, *(cell.taken.mean for it in found for cell in it.cells.values() if not math.isnan(cell.taken.mean)))
    for axis in axes[len(found) :]:
        axis.set_axis_off()
    for place, (axis, it) in enumerate(zip(axes, found, strict=False)):
        _map(axis, it, top, first=place % across == 0)
    return figure


def _map(axis: Axes, it: Matrix, top: float, *, first: bool) -> None:
    from matplotlib.patches import Rectangle

    values = [[_mean(it.cells.get((source, target))) for target in it.targets] for source in it.made_on]
    axis.imshow(values, cmap="cividis", vmin=0, vmax=top, aspect="auto")
    for row, source in enumerate(it.made_on):
        for column, target in enumerate(it.targets):
            value = values[row][column]
            if not math.isnan(value):
                ink = "black" if value > DARK * top else "white"
                axis.text(column, row, f"{100 * value:.1f}", ha="center", va="center", color=ink, fontsize=9)
            if source == target:  # the white-box attack
                axis.add_patch(Rectangle((column - 0.47, row - 0.45), 0.94, 0.9, fill=False, edgecolor="white"))
    axis.set_xticks(range(len(it.targets)), [escapes.figure(each) for each in it.targets], fontsize=8, rotation=20)
    axis.set_yticks(range(len(it.made_on)), [escapes.figure(each) for each in it.made_on], fontsize=8)
    axis.set_xlabel("judged on", fontsize=8)
    axis.set_ylabel("made on" if first else "", fontsize=8)
    name, norm, eps = it.plan
    axis.set_title(escapes.figure(f"{name}, {norm}, ε = {eps:g}"), fontsize=9)


def _mean(cell: Cell | None) -> float:
    return math.nan if cell is None else cell.taken.mean


def as_file(figure: Figure, kind: str) -> bytes:
    """A figure as the bytes of a file: ``png`` or ``svg``, the same for the same figure."""
    import matplotlib as mpl

    file = io.BytesIO()
    with mpl.rc_context({"svg.hashsalt": "segradius", "svg.fonttype": "none"}):
        figure.savefig(file, format=kind, dpi=150, metadata={"Software": None} if kind == "png" else {"Date": None})
    return file.getvalue()
