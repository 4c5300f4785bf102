"""Freed memory that is kept is not cleared again by the system."""

from __future__ import annotations

import subprocess
import sys

import pytest

FAULTS = """
import resource, sys
from segradius.core import allocation
if "older" in sys.argv:
    allocation._MMAP_THRESHOLD = 1  # that of small blocks, which is refused as well
if len(sys.argv) > 1 and not allocation.keep_freed_memory():
    print("no glibc")
    raise SystemExit
for turn in range(21):
    bytearray(32 << 20)
    if not turn:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(*words: str) -> int:
    """Pages that the system gave while 32 MiB were asked for and freed twenty times."""
    said = subprocess.run([sys.executable, "-c", FAULTS, *words], capture_output=True, text=True, check=True).stdout
    if "no glibc" in said:
        pytest.skip("the C library is not glibc")
    return int(said)


def test_pages_are_given_once():
    assert faults("kept") < 100
    assert faults("kept", "older") < 100
    assert faults() >= 20 or sys.platform != "linux"
