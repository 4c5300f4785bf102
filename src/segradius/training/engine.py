"""Where and how a training runs: nothing here is meant to change its result."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch.multiprocessing.spawn import ProcessRaisedException

from segradius.errors import InputError, missing_extra


@dataclass(frozen=True)
class Engine:
    """Devices, readers and how often things are written.

    Args:
        accelerator: ``auto``, ``cpu``, ``cuda`` or ``mps``.
        devices: Processes, one for each GPU; on CPU, processes that share its cores.
        workers: Processes that read and augment images, for each of the above; 0 reads in the loop.
        in_memory: Read the training set once and keep it.
        save_every: Steps between snapshots from which a killed run goes on.
        log_every: Steps between writes to the logs.

    Raises:
        InputError: If a number is out of range.
    """

    accelerator: str = "auto"
    devices: int = 1
    workers: int = 0
    in_memory: bool = False
    save_every: int = 100
    log_every: int = 10

    def __post_init__(self) -> None:
        for key, least in (("devices", 1), ("workers", 0), ("save_every", 1), ("log_every", 1)):
            if getattr(self, key) < least:
                raise InputError(f"{key} must be at least {least}, got {getattr(self, key)}")

    def fabric(self, precision: str, *, unused: bool = False) -> Any:
        """A Lightning Fabric for this place.

        Args:
            precision: By Fabric's names, as ``bf16-mixed``.
            unused: Whether some parameters may have no part in the loss, which several processes must look for.

        Raises:
            MissingExtraError: If Fabric is not installed.
            InputError: If the accelerator is not there.
        """
        try:
            from lightning_fabric import Fabric
            from lightning_fabric.strategies.ddp import DDPStrategy
        except ModuleNotFoundError as error:
            raise missing_extra("lightning-fabric", "train") from error
        accelerator = "gpu" if self.accelerator == "cuda" else self.accelerator
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Fabric's advice on hardware that the user did not ask for
            try:
                spawned = DDPStrategy(start_method="spawn", find_unused_parameters=unused)
                strategy = "auto" if self.devices == 1 else spawned
                kinds: dict[str, Any] = {"accelerator": accelerator, "strategy": strategy, "precision": precision}
                return Fabric(devices=self.devices, **kinds)
            except (RuntimeError, ValueError, TypeError) as error:
                raise InputError(f"{self.devices} × {self.accelerator!r} cannot be used: {error}") from error


class Sealed:
    """Something that goes from process to process as it is: Fabric looks into dataclasses, and writes into them."""

    def __init__(self, content: Any) -> None:
        self.content = content


def launched(fabric: Any, run: Callable[[Any, Any], Any], job: Any) -> Any:
    """``run(fabric, job)`` in every process of a Fabric; what the first one returns.

    Args:
        fabric: From `Engine.fabric`.
        run: A function of a module, so that other processes find it.
        job: Its second argument.

    Raises:
        InputError: If it is raised in another process.
    """
    if fabric.world_size == 1:
        return fabric.launch(run, job)
    try:
        return fabric.launch(_unsealed, run, Sealed(job)).content
    except ProcessRaisedException as error:
        kind, _, text = str(error).strip().splitlines()[-1].partition(": ")
        if kind.endswith(InputError.__name__):
            raise InputError(text) from error
        raise


def _unsealed(fabric: Any, run: Callable[[Any, Any], Any], sealed: Sealed) -> Sealed:
    return Sealed(run(fabric, sealed.content))
