"""What a run keeps in its folder: the snapshot that it goes on from after it was killed, and its logs.

The logs are CSV, TensorBoard, and a line or a progress bar with the time left on the screen.
"""

from __future__ import annotations

import csv
import io
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from segradius.core.errors import InputError
from segradius.core.escapes import visible
from segradius.core.seal import check_archive
from segradius.core.storage import replacing, write_atomically
from segradius.training.watch import Robustness

CHECKPOINT = "last.pt"
TRAIN_LOG, EVALUATION_LOG = "train.csv", "evaluations.csv"


@dataclass
class Position:
    """Where a run stands.

    Attributes:
        step: Steps done.
        best: Highest score of an evaluation so far.
        best_epoch: Its epoch, counted from 1; 0 for none.
        by: What that score is, ``"accuracy"`` or ``"miou"``.
    """

    step: int = 0
    best: float = float("-inf")
    best_epoch: int = 0
    by: str = "accuracy"


@dataclass(frozen=True)
class Snapshot:
    """A run at one step: weights, optimiser, averaged weights and position. Random numbers are keyed by the step.

    Attributes:
        identity: Text that two runs share only if one may go on from the other.
        position: Where it stands.
        network: State dict.
        optimiser: State dict.
        average: Averaged weights by name; empty for none.
        scaler: State of the loss scale of precision ``"16"``; empty for none.
        content: What it learns from; see `segradius.training.content`; empty in one of an earlier version.
        logs: Text of the CSV logs up to the step, by the name of the file; a run that goes on writes them anew. Empty
            in a snapshot of an earlier version.
    """

    identity: str
    position: Position
    network: Mapping[str, Any]
    optimiser: Mapping[str, Any]
    average: Mapping[str, Any] = field(default_factory=dict)
    scaler: Mapping[str, Any] = field(default_factory=dict)
    content: Mapping[str, Any] = field(default_factory=dict)
    logs: Mapping[str, str] = field(default_factory=dict)

    def save(self, folder: Path) -> None:
        """Write it to ``last.pt`` of a folder, whole or not at all."""
        with replacing(folder / CHECKPOINT) as path:
            torch.save({**vars(self), "position": asdict(self.position)}, path)

    @classmethod
    def load(cls, folder: Path, identity: str) -> Snapshot | None:
        """The snapshot in a folder, on the CPU; None if there is none.

        Raises:
            InputError: If it is unreadable, or of a run with another recipe, network or data.
        """
        found = cls.read(folder)
        if found is not None and lines(found.identity) != lines(identity):
            raise InputError(
                f"{folder} holds another run: {_difference(found.identity, identity)}. Choose another folder, or "
                "remove it to start anew"
            )
        return found

    @classmethod
    def read(cls, folder: Path) -> Snapshot | None:
        """The same, of whatever run."""
        path = folder / CHECKPOINT
        if not path.exists():
            return None
        try:
            check_archive(path, path)
            content = torch.load(path, map_location="cpu", weights_only=True)
            found = cls(**content | {"position": Position(**content["position"])})
        except Exception as error:
            again = "remove it to start anew"
            raise InputError(f"{path} is not a readable training checkpoint: {error}; {again}") from error
        return found


def sweep(folder: Path, names: Sequence[str]) -> None:
    """Remove what a process that was killed in the middle of writing files of these names has left in a folder.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> (folder / ".last.pt.x1.pt").touch(), (folder / "last.pt").touch()
        (None, None)
        >>> sweep(folder, [CHECKPOINT])
        >>> [path.name for path in folder.iterdir()]
        ['last.pt']
    """
    for name in names:
        for path in folder.glob(f".{name}.*"):
            path.unlink(missing_ok=True)


def lines(identity: str) -> dict[str, str]:
    r"""The lines of an identity by their key; 0.0 from a file of options is the 0 of a command line.

    Example:
        >>> lines("model: tiny\nprecision: '32'")
        {'model': 'tiny', 'precision': "'32'"}
        >>> lines("optimiser.lr: 1.0") == lines("optimiser.lr: 1")
        True
    """
    found = dict(line.partition(": ")[::2] for line in identity.splitlines())
    return {key: re.sub(r"^(-?\d+)\.0$", r"\1", value) for key, value in found.items()}


def _difference(theirs: str, ours: str) -> str:
    old, new = lines(theirs), lines(ours)
    keys = [key for key in old | new if old.get(key) != new.get(key)]
    told = "; ".join(f"{key} is {new.get(key, 'absent')}, and was {old.get(key, 'absent')}" for key in keys)
    seed = ". Seed the network before it is built" if keys == ["first weights"] else ""
    return told + seed


@dataclass(frozen=True)
class Evaluation:
    """How good the network is on held-out images after an epoch.

    Attributes:
        epoch: Counted from 1.
        step: Steps done.
        pixacc: Pixel accuracy, pooled over the images.
        miou: Mean IoU over the data set.
        miou_image: Mean of the images' IoUs, as the paper has it.
        robustness: PixAcc under FGSM and PGD, where it is watched.
        one_class: The class that nearly every pixel is predicted as though others are labelled; None for none.
        dice: Dice of the foreground of two classes, or the mean over structures; NaN for other classes. On the screen
            and the board.
    """

    epoch: int
    step: int
    pixacc: float
    miou: float
    miou_image: float
    robustness: Robustness | None = None
    one_class: int | None = None
    dice: float = math.nan

    @property
    def score(self) -> float:
        """What the best epoch is chosen by: PixAcc under PGD where it is watched, clean PixAcc elsewhere."""
        return self.chosen_by("accuracy")

    def chosen_by(self, best: Literal["accuracy", "miou"]) -> float:
        """PixAcc or MIoU, under PGD where it is watched.

        Example:
            >>> clean = Evaluation(1, 10, pixacc=0.8, miou=0.4, miou_image=0.5)
            >>> watched = Evaluation(1, 10, 0.8, 0.4, 0.5, Robustness(fgsm=0.5, pgd=0.3, pgd_miou=0.1))
            >>> [each.chosen_by(by) for each in (clean, watched) for by in ("accuracy", "miou")]
            [0.8, 0.4, 0.3, 0.1]
        """
        clean, attacked = {"accuracy": self.pixacc, "miou": self.miou}, self.robustness
        return clean[best] if attacked is None else {"accuracy": attacked.pgd, "miou": attacked.pgd_miou}[best]

    def figures(self) -> dict[str, float]:
        """The measured numbers by name."""
        found = {} if math.isnan(self.dice) else {"dice": self.dice}
        found |= {"pixacc": self.pixacc, "miou": self.miou, "miou_image": self.miou_image}
        if self.robustness is not None:
            found |= {"pixacc_fgsm": self.robustness.fgsm, "pixacc_pgd": self.robustness.pgd}
            found |= {} if math.isnan(self.robustness.pgd_miou) else {"miou_pgd": self.robustness.pgd_miou}
        return found


@dataclass
class Table:
    """A CSV file of rows with a column ``step``, cut back to a step when a run is resumed.

    Args:
        path: The file.
        columns: Its columns; the first is ``step``.
    """

    path: Path
    columns: Sequence[str]
    text: str = field(default="", init=False)

    def begin(self, step: int, known: str | None) -> None:
        """Write it as it was at a step.

        Args:
            step: Steps done.
            known: What it was; None for the rows up to the step that are in the file, if there is one.
        """
        self.text = self._cut(step) if known is None else known
        if not self.path.exists() or self.path.read_bytes() != self.text.encode():
            write_atomically(self.path, self.text)

    def _cut(self, step: int) -> str:
        rows: list[dict[str, str]] = []
        if step and self.path.exists():
            with self.path.open(newline="", encoding="utf-8", errors="replace") as file:
                whole = [row for row in csv.DictReader(file) if None not in row.values() and row["step"].isdigit()]
            rows = [row for row in whole if int(row["step"]) <= step]
        return ",".join(self.columns) + "\n" + self._lines(rows)

    def add(self, rows: Sequence[Mapping[str, Any]]) -> None:
        """Append rows."""
        lines = self._lines(rows)
        self.text += lines
        with self.path.open("a", newline="", encoding="utf-8") as file:
            file.write(lines)

    def _lines(self, rows: Sequence[Mapping[str, Any]]) -> str:
        text = io.StringIO()
        csv.DictWriter(text, self.columns, extrasaction="ignore", lineterminator="\n").writerows(rows)
        return text.getvalue()


def tables(folder: Path) -> tuple[Table, Table]:
    """The logs of the steps and of the evaluations in a folder."""
    names = ("epoch", "pixacc", "miou", "miou_image", "pixacc_fgsm", "pixacc_pgd", "miou_pgd", "best")
    return (
        Table(folder / TRAIN_LOG, ("step", "epoch", "lr", "loss")),
        Table(folder / EVALUATION_LOG, ("step", *names)),
    )


def restore(folder: Path, step: int, logs: Mapping[str, str]) -> tuple[Table, Table]:
    """The logs in a folder as they were at a step, whatever happened to the files.

    Args:
        folder: Of the run.
        step: Steps done.
        logs: As in a `Snapshot`.
    """
    found = tables(folder)
    for table in found:
        table.begin(step, logs.get(table.path.name))
    return found


class Log:
    """Writes what happens in a run; the logs of a resumed run go on from its step.

    Args:
        folder: Where the logs go.
        step: Steps done before.
        total: Steps of the run.
        logs: What was logged before, as in a `Snapshot`.
        quiet: Whether nothing is shown on the screen.
    """

    def __init__(
        self, folder: Path, step: int, total: int, logs: Mapping[str, str] | None = None, *, quiet: bool = False
    ) -> None:
        self._steps, self._evaluations = restore(folder, step, logs or {})
        self._board = _tensorboard(folder, step)
        columns = (
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("steps"),
        )
        times = (TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn())
        self._console = Console(stderr=True, quiet=quiet)
        self._bar = Progress(*columns, *times, console=self._console, transient=True, disable=quiet)
        self._total, self._last = total, dict[str, Any]()
        self._task = self._bar.add_task("training", total=total, completed=step)

    def __enter__(self) -> Log:
        self._bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._bar.stop()
        if self._board is not None:
            self._board.close()

    @property
    def texts(self) -> dict[str, str]:
        """What was logged, for a `Snapshot`."""
        return {table.path.name: table.text for table in (self._steps, self._evaluations)}

    def steps(self, rows: Sequence[dict[str, Any]]) -> None:
        """Log steps: each with ``step``, ``epoch``, ``lr`` and ``loss``."""
        self._steps.add(rows)
        self._last = rows[-1] if rows else self._last
        for row in rows if self._board is not None else ():
            self._board.add_scalar("train/loss", row["loss"], row["step"])
            self._board.add_scalar("train/lr", row["lr"], row["step"])
        if rows:
            self._bar.update(
                self._task, completed=rows[-1]["step"], description=f"epoch {rows[-1]['epoch']}, {rows[-1]['loss']:.3f}"
            )

    def epoch(self, number: int) -> None:
        """Show a line for an epoch that is done, where there is no progress bar to be seen."""
        if self._last and not self._console.is_terminal:
            self.say(f"epoch {number}: step {self._last['step']} of {self._total}, loss {self._last['loss']:.4f}")

    def evaluation(self, found: Evaluation, *, best: bool) -> None:
        """Log an evaluation, the best so far or not."""
        figures = found.figures()
        self._evaluations.add([{"step": found.step, "epoch": found.epoch, "best": int(best)} | figures])
        for name, value in figures.items() if self._board is not None else ():
            self._board.add_scalar(f"held out/{name}", value, found.step)
        text = ", ".join(f"{name} {value:.4f}" for name, value in figures.items())
        self.say(f"epoch {found.epoch}: {text}")

    def say(self, text: str) -> None:
        """Show a line."""
        self._console.print(visible(text, keep="\n"), markup=False, highlight=False, soft_wrap=True)


def _tensorboard(folder: Path, step: int) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ModuleNotFoundError:
        return None  # the CSV files have all of it
    return SummaryWriter(folder / "tensorboard", purge_step=step + 1 if step else None)


def outcome(folder: Path) -> dict[str, dict[str, str]]:
    """The logged rows of the ``best``, if there is one, and of the ``last`` evaluation in a folder; empty for none."""
    path = folder / EVALUATION_LOG
    if not path.exists():
        return {}
    with path.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    if not rows:
        return {}
    marked = [row for row in rows if row.get("best") == "1"]
    if not marked and not any(row.get("best") for row in rows):  # the log of an earlier version
        marked = [max(rows, key=lambda row: float(row["pixacc_pgd"] or row["pixacc"]))]
    return {"best": marked[-1], "last": rows[-1]} if marked else {"last": rows[-1]}
