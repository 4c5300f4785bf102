"""A network that a file holds as a program: called in the batches that it takes, moved as far as it can be."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from segradius.core.digests import file_digest
from segradius.core.errors import InputError, is_whole
from segradius.models.file_kinds import FileKind, kind_of
from segradius.models.preprocessing import SizeRule, as_size_rule
from segradius.models.segmenter import Weights

#: Arguments of every program: how many images it takes at once, what sizes, how many bands.
ARGUMENTS = ("batch", "size", "bands")


class Program(nn.Module):
    """A program as a network, with the parameters and names of the program.

    Args:
        program: What is called. One without flags of training, as ``torch.jit.freeze`` leaves it, has its weights as
            constants, and no parameters here.
        name: Of the file, for messages.
        batch: How many images it takes at once, at least and at most; None for no bound. Larger batches are cut,
            smaller ones filled up with their last image.
        untrainable: Why it cannot be trained; its parameters require no gradient then. Empty if it can be.
        cast: Whether its parameters may be of another type.
        moved: Called after parameters went to another device; None for a program that stays where it is.

    Example:
        >>> Program(nn.Conv2d(3, 2, 1), "net.pt", batch=(1, 1))(torch.rand(3, 3, 4, 4)).shape
        torch.Size([3, 2, 4, 4])
    """

    def __init__(
        self,
        program: Any,
        name: str,
        *,
        batch: tuple[int, int | None] = (1, None),
        untrainable: str = "",
        cast: bool = True,
        moved: Callable[[nn.Module, torch.device], None] | None = None,
    ) -> None:
        super().__init__()
        self.untrainable, self.batch = untrainable, batch
        self._name, self._cast, self._moved = name, cast, moved
        held = all(hasattr(module, "training") for module in program.modules())
        self._call = [program]  # in a list, so that it is no part of this module unless it can be
        if held:
            self.program = program
        for parameter in self.parameters() if untrainable else ():
            parameter.requires_grad_(False)

    def forward(self, images: Tensor) -> Any:
        """What the program makes of images (N, B, H, W), of all of them together."""
        least, most = self.batch
        if len(images) >= least and (most is None or len(images) <= most):
            return self._run(images)
        parts = torch.split(images, most or len(images))
        return joined([_cut(self._run(_filled(part, least)), max(len(part), least), len(part)) for part in parts])

    def _run(self, images: Tensor) -> Any:
        try:
            return self._call[0](images)
        except Exception as error:  # an assertion of a script is no RuntimeError
            lines = str(error).strip().splitlines()
            if lines and "TorchScript interpreter" in lines[0]:  # a trace of its code, with the reason at the end
                raise RuntimeError(lines[-1].removeprefix("RuntimeError: ")) from error
            raise

    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """Those of the program, by its names."""
        return self._call[0].state_dict(*args, **kwargs)

    def load_state_dict(self, *args: Any, **kwargs: Any) -> Any:
        """Into the program, by its names."""
        return self._call[0].load_state_dict(*args, **kwargs)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Program:
        own = next((p for p in self.parameters() if p.is_floating_point()), torch.zeros(()))
        asked = fn(torch.zeros((), dtype=own.dtype, device=own.device))
        if asked.dtype != own.dtype and not self._cast:
            raise InputError(f"dtype cannot be set: the types in {self._name!r} are fixed as {own.dtype}")
        if asked.device != own.device and self._moved is None:
            raise InputError(
                f"device {str(asked.device)!r} cannot be used: the weights of {self._name!r} are constants of its "
                "program, on the CPU"
            )
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        if asked.device != own.device and self._moved is not None:
            self._moved(self._call[0], asked.device)
        return self


def stays(program: nn.Module, device: torch.device) -> None:
    """Nothing more to do after the parameters of a program went to a device."""


def program_file(source: str, name: str, kind: FileKind) -> Path:
    """A file that holds a program of a kind.

    Args:
        source: What stands before the colon.
        name: The path.
        kind: Expected, told by content.

    Raises:
        InputError: There is none, or it is something else; the message says what to write.
    """
    path = Path(name)
    if not path.is_file():
        at = "" if path.is_absolute() else f" in {str(Path.cwd())!r}, where the command runs"
        what = "is a folder" if path.is_dir() else f"does not exist{at}"
        raise InputError(f"{source}:{name}: expected the path of {kind.what}; {str(path)!r} {what}")
    try:
        found = kind_of(path)
    except OSError as error:
        raise InputError(f"cannot read {name!r}: {error.strerror}") from error
    if found is kind:
        return path
    if found is None:
        raise InputError(f"{source}:{name}: expected {kind.what}; the file is truncated, corrupt or another format")
    advice = found.advice or f"give the network that it belongs to, and --weights {name} beside it"
    raise InputError(f"{source}:{name}: the file is {found.what}: {advice.replace('FILE', name)}")


def weights_of(path: Path) -> Weights:
    """Of a network whose weights are in the file of its program."""
    return Weights(path.name, whole=True, digest=file_digest(path))


def batch_of(arguments: Mapping[str, Any], usual: tuple[int, int | None]) -> tuple[int, int | None]:
    """The batch that an argument ``batch`` gives; ``usual`` where there is none.

    Raises:
        InputError: It is no whole number above 0.
    """
    if (given := arguments.get("batch")) is None:
        return usual
    if not is_whole(given, 1):
        raise InputError(f"batch={given!r}: expected how many images the program takes at once, a whole number above 0")
    return given, given


def size_of(arguments: Mapping[str, Any]) -> SizeRule | None:
    """The rule of sizes that an argument ``size`` gives, as ``size={multiple_of: 32}``; None where there is none.

    Raises:
        InputError: It is no such mapping.
    """
    return as_size_rule(arguments["size"]) if arguments.get("size") is not None else None


def _filled(images: Tensor, least: int) -> Tensor:
    missing = least - len(images)
    return torch.cat([images, images[-1:].expand(missing, *images.shape[1:])]) if missing > 0 else images


def _cut(raw: Any, full: int, rows: int) -> Any:
    if isinstance(raw, Tensor):
        return raw[:rows] if raw.ndim and len(raw) == full else raw
    return _rebuilt(raw, [_cut(part, full, rows) for part in _parts(raw)])


def joined(answers: Sequence[Any]) -> Any:
    """Answers about parts of a batch as one about all of it, whatever tuples, lists and mappings hold the tensors.

    Example:
        >>> joined([{"out": torch.zeros(1, 2)}, {"out": torch.ones(2, 2)}])["out"].shape
        torch.Size([3, 2])
    """
    first = answers[0]
    if isinstance(first, Tensor):
        return torch.cat(list(answers)) if first.ndim else first
    return _rebuilt(first, [joined(each) for each in zip(*map(_parts, answers), strict=True)])


def _parts(raw: Any) -> list[Any]:
    if isinstance(raw, Mapping):
        return list(raw.values())
    return list(raw) if isinstance(raw, tuple | list) else []


def _rebuilt(raw: Any, parts: list[Any]) -> Any:
    if isinstance(raw, Mapping):
        return dict(zip(raw, parts, strict=True))
    if isinstance(raw, tuple | list):
        return type(raw)(*parts) if hasattr(raw, "_fields") else type(raw)(parts)
    return raw
