"""What it gains to read the next batch while one is worked on: runs with and without, in interleaved rounds.

    python benchmarks/reading.py
    python benchmarks/reading.py --size 1024x2048 --images 24 --batch 4 --threads 2 --steps 3 --device cuda

Scenes are drawn, enlarged, grained and written as PNG into a temporary folder, and read back as ``folder:``; every
round runs over all of them with the thread that reads ahead and without, into stores in memory. Wall time is what the
thread saves where there is a core for it; on a busy machine the main thread's own processor time tells it: what is
read aside is not in it. The processor time of all threads tells what the thread costs. With steps = 0 the network only
judges the images, so that there is much to read; an attack of T steps makes it less.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from jsonargparse import auto_cli
from PIL import Image
from rich.console import Console
from rich.table import Table

import segradius as sr
from segradius.core import text
from segradius.data import SCENE_CLASSES, Scenes, SegmentationData
from segradius.data.files import PairedFiles
from segradius.evaluation import DataChoice, Experiment, InProcess, ModelChoice, Run, Store, execute, make_plans

CLOCKS = {"wall": time.perf_counter, "main thread": time.thread_time, "all threads": time.process_time}
WITH, WITHOUT, READING = "read ahead", "read in turn", "reading alone"


def write(folder: Path, images: int, height: int, width: int) -> None:
    """So many scenes with a grain, as a camera has it, so that they are as large on the disk as photographs."""
    scenes, grain = Scenes((height // 4, width // 4), images), np.random.default_rng(0)
    for kind in ("images", "masks"):
        (folder / kind).mkdir()
    for place, name in enumerate(scenes.ids):
        sample = scenes[place]
        small = Image.fromarray((255 * sample.image).byte().permute(1, 2, 0).numpy())
        large = np.asarray(small.resize((width, height), Image.Resampling.BICUBIC)).astype(np.int16)
        noisy = (large + grain.integers(-3, 4, large.shape)).clip(0, 255).astype(np.uint8)
        Image.fromarray(noisy).save(folder / "images" / f"{name}.png")
        mask = Image.fromarray(sample.label.byte().numpy()).resize((width, height), Image.Resampling.NEAREST)
        mask.save(folder / "masks" / f"{name}.png")
    (folder / "segradius.yaml").write_text(f"classes: [{', '.join(SCENE_CLASSES.names)}]\n")


@contextmanager
def ahead(wanted: bool) -> Iterator[None]:
    """Whether files are read ahead."""
    PairedFiles.thread_safe = wanted
    try:
        yield
    finally:
        PairedFiles.thread_safe = True


def run(model: sr.Segmenter, data: SegmentationData, steps: int, batch: int) -> None:
    plans = make_plans(["pgd"], [("l2", 1.5)], {"steps": steps}) if steps else ()
    experiment = Experiment(ModelChoice("demo"), DataChoice("folder"), plans)
    with Store(":memory:") as store:
        execute(Run(experiment, model, data, batch), store, InProcess(model, data))


def measure(
    model: str = "demo",
    size: str = "1024x2048",
    images: int = 16,
    batch: int = 2,
    steps: int = 0,
    rounds: int = 5,
    threads: int = 1,
    device: str = "cpu",
) -> None:
    """Time runs over files.

    Args:
        model: As ``segradius attack --model``.
        size: HEIGHTxWIDTH of the files.
        images: How many.
        batch: At a time.
        steps: Of PGD; 0 only judges the images.
        rounds: Rounds, after one to warm up.
        threads: Of torch; the one that reads is beside them.
        device: As ``cpu`` or ``cuda``.
    """
    torch.set_num_threads(threads)
    height, width = text.size(size) or (0, 0)
    times: dict[str, list[tuple[float, ...]]] = {name: [] for name in (WITHOUT, WITH, READING)}
    with tempfile.TemporaryDirectory() as name:
        write(Path(name), images, height, width)
        network, data = sr.load_model(model, device=device), sr.open_data(f"folder:{name}")
        for turn in range(rounds + 1):
            for kind, found in times.items():
                began = [clock() for clock in CLOCKS.values()]
                if kind == READING:
                    read(data)
                else:
                    with ahead(kind == WITH):
                        run(network, data, steps, batch)
                spent = tuple(clock() - start for clock, start in zip(CLOCKS.values(), began, strict=True))
                found += [spent] if turn else []
    console = Console(width=110)
    what = f"pgd of {steps} steps" if steps else "judging"
    console.print(f"{model}, {images} PNG of {size}, {what}, batch {batch}, {threads} thread(s), {device}")
    console.print(f"seconds, and in brackets the share of those of '{WITHOUT}': median, least, most of {rounds} rounds")
    table = Table("", *CLOCKS)
    for kind, found in times.items():
        cells = (cell([row[at] for row in found], [row[at] for row in times[WITHOUT]]) for at in range(len(CLOCKS)))
        table.add_row(kind, *cells)
    console.print(table)


def read(data: SegmentationData) -> None:
    for place in range(len(data)):
        _ = data[place]


def cell(mine: Sequence[float], theirs: Sequence[float]) -> str:
    shares = [one / other for one, other in zip(mine, theirs, strict=True)]
    told = ", ".join(f"{value:.3f}" for value in (statistics.median(shares), min(shares), max(shares)))
    return f"{statistics.median(mine):.2f} ({told})"


if __name__ == "__main__":
    auto_cli(measure, as_positional=False)
