"""Small networks, and the files that people make of them."""

from __future__ import annotations

import io
import warnings
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional

SIZE = (16, 24)
ANY = torch.export.Dim.AUTO


class Net(nn.Module):
    """Strided, normalised, with dropout, a grid that it makes itself, and a second output."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk, self.norm = nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.BatchNorm2d(8)
        self.drop, self.head = nn.Dropout(0.5), nn.Conv2d(8, 3, 1)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        y = self.drop(functional.relu(self.norm(self.trunk(x))))
        y = y + 0.01 * torch.arange(y.shape[-1], device=y.device).to(y.dtype)
        z = functional.interpolate(self.head(y), size=x.shape[-2:], mode="bilinear", align_corners=False)
        return {"out": z, "aux": y}


def net() -> Net:
    """The same weights at every call, of a network that has seen images, in evaluation mode."""
    torch.manual_seed(0)
    network = Net()
    network(torch.rand(4, 3, *SIZE))
    return network.eval()


@contextmanager
def quiet():
    """Without torch's news that TorchScript is deprecated, and the tracer's that sizes become constants."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def script(network: nn.Module, path: Path) -> Path:
    with quiet():
        torch.jit.save(torch.jit.script(network), str(path))
    return path


def trace(network: nn.Module, path: Path, images: torch.Tensor | None = None) -> Path:
    images = torch.rand(2, 3, *SIZE) if images is None else images
    with quiet():
        torch.jit.save(torch.jit.trace(network, images, strict=False, check_trace=False), str(path))
    return path


def freeze(network: nn.Module, path: Path) -> Path:
    with quiet():
        torch.jit.save(torch.jit.freeze(torch.jit.script(network)), str(path))
    return path


def export(network: nn.Module, path: Path, images: torch.Tensor | None = None, shapes: object = None) -> Path:
    images = torch.rand(2, 3, *SIZE) if images is None else images
    with quiet():
        torch.export.save(torch.export.export(network, (images,), dynamic_shapes=shapes), str(path))
    return path


def rewritten(source: Path, target: Path, change) -> Path:
    """An archive with records changed: ``change`` is a function of them by name."""
    reader = torch._C.PyTorchFileReader(str(source))
    records = {name: reader.get_record(name) for name in reader.get_all_records()}
    buffer = io.BytesIO()
    writer = torch._C.PyTorchFileWriter(buffer)
    if "models/model.json" in records:  # as torch.export does
        writer.set_min_version(6)
    for name, content in change(records).items():
        if not name.startswith(".data/") and name not in ("version", "byteorder"):
            writer.write_record(name, content, len(content))
    writer.write_end_of_file()
    target.write_bytes(buffer.getvalue())
    return target
