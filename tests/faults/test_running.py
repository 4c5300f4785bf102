"""A model that fails while it runs: for one image, for want of memory, or always."""

from __future__ import annotations

from pathlib import Path

from faults.frame import Case, Tried, fault, test_fault

__all__ = ["test_fault"]

#: What a network's own code may raise.
RAISED = (
    "ValueError('not for me')", "RuntimeError('shape mismatch')", "IndexError(3)", "ZeroDivisionError()",
    "KeyError('x')", "TypeError('?')", "AssertionError()", "NotImplementedError('op')", "OSError('lost a file')",
)  # fmt: skip
SHORT = (
    "MemoryError()", "RuntimeError('DefaultCPUAllocator: not enough memory')",
    "torch.OutOfMemoryError('CUDA out of memory')",
)  # fmt: skip
NETWORK = """
from pathlib import Path
import numpy as np, torch
from PIL import Image
from small_net import network as sound

FILE = next(Path("data/images").rglob("b.png"))
IMAGE = torch.from_numpy(np.array(Image.open(FILE).convert("RGB"))).permute(2, 0, 1) / 255

class Fails(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.net = sound()

    def forward(self, x):
        near = (x.detach() - IMAGE.to(x)) if x.shape[1:] == IMAGE.shape else torch.ones_like(x)
        near = near.abs().amax((1, 2, 3)) < NEAR
        if CONDITION:
            raise RAISED
        return self.net(x)

def network():
    return Fails()
"""


def _run(case: Case, condition: str, raised: str, *more: str, near: float = 1e-6) -> Tried:
    code = NETWORK.replace("NEAR", str(near)).replace("CONDITION", condition).replace("RAISED", raised)
    Path("failing.py").write_text(code)
    return Tried(case.run("--model", "failing:network", *more), aside=("b",))


@fault("a model that raises for one image", expected="set aside", few=2)
def on_the_clean_image(case: Case) -> Tried:
    """When it is first looked at, in a batch with others: another exception each time."""
    return _run(case, "near.any()", RAISED[case.number % len(RAISED)], "--batch-size", "1")


@fault("a model that raises for one image", expected="set aside", prepared="certify")
def among_noisy_copies(case: Case) -> Tried:
    """On a noisy copy of it, while it is certified."""
    return _run(case, "near.any() and len(x) > 1", RAISED[case.number % len(RAISED)], near=0.45)


@fault("a model that raises for one image", expected="set aside", prepared="evaluate")
def in_an_evaluation(case: Case) -> Tried:
    """In a batch of three."""
    return _run(case, "near.any()", RAISED[case.number % len(RAISED)])


@fault("a model that always raises", expected="refused", few=2)
def on_every_image(case: Case) -> Tried:
    """Whatever it is shown: the run ends in one line that names the model."""
    tried = _run(case, "len(x)", RAISED[case.number % len(RAISED)])
    return Tried(tried.ran, names=("failing:network",))


@fault("memory that is short", expected="right", prepared="evaluate", few=2)
def for_a_batch_and_not_for_an_image(case: Case) -> Tried:
    """Batches are halved until they fit, and no number changes."""
    said = (
        "MemoryError()",
        'RuntimeError("DefaultCPUAllocator: can\'t allocate memory")',
        "torch.OutOfMemoryError('CUDA out of memory')",
    )
    return Tried(_run(case, "len(x) > 1", said[case.number % 3]).ran)


@fault("memory that is short", expected="refused")
def for_a_single_image(case: Case) -> Tried:
    """One line, and the status of input that cannot be used."""
    return Tried(_run(case, "len(x)", "MemoryError('no more')").ran, names=("memory", "failing:network"))


@fault("memory that is short", expected="refused", prepared="train", finished=True)
def while_it_learns(case: Case) -> Tried:
    """One line that says how many images of which size, and what was saved before stays."""
    saved = (case.out / "last.safetensors").read_bytes()
    tried = _run(case, "x.requires_grad or torch.is_grad_enabled()", SHORT[case.number % len(SHORT)], "--out", "other")
    untouched = (case.out / "last.safetensors").read_bytes() == saved
    return Tried(tried.ran, names=("2 images of 8x8",), problem="" if untouched else "weights were lost")
