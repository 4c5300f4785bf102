"""``segradius demo``."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from segradius.core.declared import Count, Eps
from segradius.core.screen import say

if TYPE_CHECKING:
    from segradius.evaluation import Row


def demo(out: str = "segradius-demo", limit: Count = 16, steps: Count = 50, eps: Eps = 5.0) -> int:
    """Attack the network that comes with segradius on drawn scenes: PGD against CR-PGD.

    Takes under a minute on two CPU cores; needs no download. Replaces what an earlier demo left in the folder.

    Args:
        out: Folder of the table and the picture.
        limit: Number of images.
        steps: Steps T of each attack.
        eps: l2 budget for images in [0, 1].

    Returns:
        The exit status.
    """
    from segradius.cli.options import RunOptions
    from segradius.cli.run_folder import carry_out
    from segradius.data import open_data
    from segradius.evaluation import DataChoice, Experiment, ModelChoice, Run, make_plans
    from segradius.models import fingerprint, load_model
    from segradius.report import report_attacks

    spec = "scenes:96x128"
    say(f"PGD and CR-PGD against a small network on {limit} drawn scenes, l2 ε = {eps:g}, {steps} steps each.")
    model, data = load_model("demo"), open_data(spec, split="test", limit=limit)
    plans = make_plans(["pgd", "cr_pgd"], [("l2", eps)], {"steps": steps})
    chosen = ModelChoice("demo", fingerprint=fingerprint(model))
    experiment = Experiment(chosen, DataChoice(spec, "test", limit=limit), plans)
    run = Run(experiment, model, data, shown=data.ids[:2])
    with _one_thread():
        found = carry_out(run, RunOptions(out, overwrite=True), report_attacks)
    clean, pgd, cr_pgd, *_ = found.summary.rows
    say(
        f"\nThe network labels {_share(clean)} of the pixels right. A change of length {eps:g}, a faint grain in "
        "the picture's first row and magnified in its second, leaves "
        f"{_share(pgd)} after PGD and {_share(cr_pgd)} after CR-PGD, which looks where the radius is small.",
    )
    say(f"The picture: {Path(out) / 'figure.png'}")
    return 0


@contextmanager
def _one_thread() -> Iterator[None]:
    """For so small a network threads cost more than they bring, many times so on a busy machine."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _share(row: Row) -> str:
    return f"{100 * row.pixacc.value:.0f} %"
