"""What every command shares that evaluates a model: a folder that is its own, a progress bar, facts for the record."""

from __future__ import annotations

import platform
import shutil
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from segradius.core.errors import BudgetError, InputError, TargetError
from segradius.evaluation import Seen
from segradius.targets import Metered, traffic_of

DATABASE = "results.sqlite"
EXPERIMENT = "experiment.json"
CERTIFICATES = "certificates"
MAPS = "maps"
CHECKPOINTS = "checkpoints"

TABLES = ("results.json", "per_image.csv", "trace.csv", "table.md")
PICTURES = ("figure*.png", "curve*.png")
#: What `attack` writes into a folder, and what `certify` does.
ATTACKED = (DATABASE, f"{DATABASE}-wal", f"{DATABASE}-shm", *TABLES, *PICTURES)
CERTIFIED = (EXPERIMENT, *TABLES, *PICTURES, "radius.png", f"{CERTIFICATES}/*.npz", f"{MAPS}/*.png")


def must_clear(folder: Path, conflict: str | None, overwrite: bool) -> bool:
    """Whether what a folder holds must go before a run.

    Args:
        folder: Where results go.
        conflict: What keeps the run from going on with them.
        overwrite: Whether they may be replaced.

    Raises:
        InputError: There is a conflict, and they may not.
    """
    if conflict and not overwrite:
        raise InputError(
            f"{folder} holds another experiment: {conflict}. Choose another --out, or add --overwrite to replace it"
        )
    return overwrite


def clear(folder: Path) -> None:
    """Remove what an earlier experiment wrote into a folder, and nothing else."""
    patterns = ATTACKED + (CERTIFIED if (folder / EXPERIMENT).exists() else ())
    for file in {file for pattern in patterns for file in folder.glob(pattern)}:
        file.unlink()
    shutil.rmtree(folder / CHECKPOINTS, ignore_errors=True)


def progress_bar(unit: str) -> Progress:
    """A bar on stderr with the number of units done and the time left, gone when finished."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn(unit))
    times = (TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn())
    return Progress(*columns, *times, console=Console(stderr=True), transient=True)


@contextmanager
def keeping(folder: Path, finished: Path) -> Iterator[None]:
    """Where a run is cut short, say where its results are and how to go on.

    Args:
        folder: Of the results.
        finished: Where in it finished ones are.
    """
    again = "run the same command again to go on"
    try:
        yield
    except KeyboardInterrupt:
        raise KeyboardInterrupt(f"stopped. What was finished is kept in {finished}; {again}") from None
    except TargetError as error:
        raise TargetError(f"{error}. What was answered is kept in {folder}; {again}") from error
    except BudgetError as error:
        told = f"{error}. What was answered is kept in {folder}; {again}, with a larger --budget"
        raise TargetError(told) from error


def runtime(model: Seen, batch_size: int | None) -> Mapping[str, Any]:
    """What changes no result, for the record."""
    device = model.device
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or platform.machine()
    packages = {package: version(package) for package in ("segradius", "torchvision", "numpy")}
    target = {"target": _asked(model)} if isinstance(model, Metered) else {}
    return target | {
        "versions": {"python": platform.python_version(), "torch": torch.__version__, **packages},
        "device": f"{device} ({name})",
        "threads": torch.get_num_threads(),
        "batch_size": batch_size,
    }


def screen() -> Console:
    """The console of the results; a log has no right edge."""
    console = Console()
    if not console.is_terminal:
        console.width = 160
    return console


def warn(text: str) -> None:
    """A warning on stderr."""
    print(f"segradius: warning: {text}", file=sys.stderr)


def _asked(target: Metered) -> Mapping[str, Any]:
    """Images answered over all runs in the folder; what went over the wire in this one."""
    traffic = traffic_of(target)
    wire = {} if traffic is None else {k: v for k, v in vars(traffic).items() if not k.startswith("_")}
    return {"answered": target.answered, "budget": target.budget, "traffic": wire}
