"""Where a command has its units worked on: here, by processes of this machine, or by a Ray cluster."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

from segradius.cli.options import device_name
from segradius.core.declared import Count, Given, Range, only_with
from segradius.core.errors import InputError
from segradius.core.screen import warn

if TYPE_CHECKING:
    from segradius.evaluation import Executor

#: Seconds; a first pass through a large network, and what it downloads, may take a while.
PATIENCE = 1800.0


@dataclass(frozen=True)
class WorkerOptions:
    """The workers.

    Nothing here changes a number but by rounding; see docs/studies.md.

    Args:
        workers: So many processes work at once, each with a share of the cores or an accelerator of its own. Default:
            none, the command works itself.
        executor: What workers are: processes of this machine, or actors of a Ray cluster (extra ray).
        address: Of a Ray cluster that is there, HOST:PORT, or auto for the one of this machine. Default: one is started
            for the run, which nothing else can reach.
        threads: Of each worker on a CPU, or of the command where it has none; lengths and losses have the same digits
            with the same number. Default: the cores, divided among the workers.
        patience: Seconds without a sign of life after which a worker is taken to hang: it is killed, and another one
            goes on.
    """

    workers: Count | None = None
    executor: Annotated[Literal["process", "ray"] | None, only_with(workers=Given())] = None
    address: Annotated[str | None, only_with(executor=["ray"])] = None
    threads: Count | None = None
    patience: Annotated[float, Range("(0, 1e9]"), only_with(workers=Given())] = PATIENCE

    def hired(self, device: str, *, allow_download: bool = False) -> Executor:
        """The executor.

        Args:
            device: As ``--device`` takes it.
            allow_download: Whether libraries may fetch what is not on a worker's machine.

        Raises:
            InputError: Options do not go together, or there are fewer accelerators.
            MissingExtraError: Ray is asked for and not installed.
        """
        import torch

        from segradius.evaluation import InProcess

        if self.workers is None:
            for name in ("executor", "address"):
                if getattr(self, name) is not None:
                    raise InputError(f"{name} is for --workers, which was not given")
            if self.threads is not None:
                torch.set_num_threads(self.threads)
            return InProcess(warn=warn)
        how: dict[str, Any] = {"threads": self.threads, "allow_download": allow_download, "warn": warn}
        how["patience"] = self.patience
        if self.executor == "ray":
            from segradius.evaluation.on_ray import in_cluster

            return in_cluster(self.workers, device_name(device), address=self.address, **how)
        from segradius.evaluation.processes import in_processes

        return in_processes(self.workers, device_name(device), **how)


#: Unless said otherwise.
WORKERS = WorkerOptions()
