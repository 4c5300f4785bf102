"""Images and masks that cannot be used: set aside by name, and the rest is finished."""

from __future__ import annotations

from faults.frame import Case, Tried, fault, test_fault

__all__ = ["test_fault"]


@fault("hostile image", expected="set aside", prepared="attack", few=2)
def cut_short(case: Case) -> Tried:
    """One image file ends early."""
    file = case.folder / "data" / "images" / "b.png"
    file.write_bytes(file.read_bytes()[: case.random.randrange(100)])
    return Tried(case.run(), aside=("b",))
