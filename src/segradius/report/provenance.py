"""Where figures come from: model, data, seed, date, command, versions and device, without which they prove nothing."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

import torch

from segradius.core.contracts import Seen, surrogate_of
from segradius.core.screen import COMMAND
from segradius.evaluation.job import DataChoice, Experiment
from segradius.evaluation.run import Run, surrogate_marks
from segradius.evaluation.store import Store
from segradius.targets.target import Metered


def heading(run: Run[Experiment], used: int) -> str:
    """What was evaluated or attacked, in a line: without it no figure below can be read; ``used`` images are in it."""
    it = run.experiment
    aim = [] if it.aim is None else [f"aim {it.aim}"]
    speed = [] if it.model.speed is None else [f"speed {it.model.speed} (verdicts by the plain model)"]
    options = [
        f"model {run.model.name} ({it.model.fingerprint})",
        *made_on(run),
        data_line(run, used),
        *aim,
        *speed,
        f"seed {it.seed}",
    ]
    return f"{'Attacked' if it.attacks else 'Evaluated'}: {'; '.join(options)}."


def made_on(run: Run[Experiment]) -> list[str]:
    """On which other network adversarial images were made, in a few words; nothing where it is the same."""
    surrogate = surrogate_of(run.model)
    if surrogate is None:
        return []
    marks = ", ".join(run.experiment.model.surrogate_fingerprints or surrogate_marks(run.model))
    return [f"adversarial images made on {surrogate.name} ({marks}) and judged here: a transfer attack"]


def data_line(run: Run[Experiment], used: int) -> str:
    """Which images, in a few words."""
    it = run.experiment.data
    size = [] if it.size is None else [f"at {it.size[0]}x{it.size[1]}"]
    protocol = [] if it.protocol is None else [f"protocol {it.protocol}"]
    void = ["void counts as background"] if it.void == "background" else []
    whole = len(run.data)
    images = f"{whole} images" if used == whole else f"{used} of {whole} images"
    return ", ".join([f"data {run.data.name}", images, *size, *protocol, *void, *labels_line(it)])


def labels_line(it: DataChoice) -> list[str]:
    """What the labels are, where they are not those of the data."""
    return ["labels: the model's own predictions, so that accuracy is stability"] if it.predicted else []


def made(facts: Mapping[str, Any]) -> list[str]:
    """When, by which version and by which command a report was made, as far as ``facts`` tell.

    Example:
        >>> made({"date": "2026-11-28T12:00:00+00:00", "command": "segradius demo", "versions": {"segradius": "1.0"}})
        ['Made 2026-11-28T12:00:00+00:00 by segradius 1.0: segradius demo']
    """
    if "date" not in facts:
        return []
    version = facts.get("versions", {}).get("segradius", "")
    command = f": {facts['command']}" if facts.get("command") else ""
    return [f"Made {facts['date']} by segradius {version}{command}"]


def begun_at(store: Store) -> str:
    """When the first run in this folder began."""
    if store.noted("begun") is None:
        store.note("begun", datetime.now(UTC).isoformat(timespec="seconds"))
    return str(store.noted("begun"))


def runtime(
    model: Seen, batch_size: int | None, begun: str, speed: Mapping[str, Any] | None = None, trial: str = ""
) -> Mapping[str, Any]:
    """What changes no result, for the record.

    Args:
        model: That was asked.
        batch_size: Images at a time, or noisy copies in a pass.
        begun: See `begun_at`.
        speed: What a trial chose, as `segradius.evaluation.quicken` notes it; None where there was none.
        trial: Why so many images, where that was found by a trial.
    """
    device = model.device
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or platform.machine()
    target = {"target": _asked(model)} if isinstance(model, Metered) else {}
    return (
        target
        | ({"speed": speed} if speed else {})
        | {
            "date": begun,
            "command": COMMAND.get(),
            "versions": versions(),
            "device": f"{device} ({name})",
            "threads": torch.get_num_threads(),
            "batch_size": batch_size,
        }
        | ({"batch_size_trial": trial} if trial else {})
    )


def versions() -> dict[str, str]:
    """Of Python and of the packages that numbers are made with."""
    packages = {package: version(package) for package in ("segradius", "torchvision", "numpy")}
    return {"python": platform.python_version(), "torch": torch.__version__, **packages}


def _asked(target: Metered) -> Mapping[str, Any]:
    """Images answered over all runs in the folder; what went over the wire in this one."""
    from segradius.targets.opening import traffic_of

    traffic = traffic_of(target)
    wire = {} if traffic is None else {k: v for k, v in vars(traffic).items() if not k.startswith("_")}
    return {"answered": target.answered, "budget": target.budget, "traffic": wire}
