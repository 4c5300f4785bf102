"""What memory there is, from files as Linux writes them, with and without a control group that allows less."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from segradius.core.memory import available, held


def made(root: Path, files: dict[str, str]) -> Path:
    for name, content in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(content)
    return root


PROC = {
    "proc/meminfo": "MemTotal:       100 kB\nMemAvailable:   90 kB\nHugePages_Total:       0\n",
    "proc/self/status": "Name:\tpython\nVmHWM:\t      30 kB\nVmRSS:\t      20 kB\nThreads:\t2\n",
}
GROUPS = {
    "no group": ({"proc/self/cgroup": "0::/\n"}, 90 * 1024),
    "no limit": ({"proc/self/cgroup": "0::/a\n", "sys/fs/cgroup/a/memory.max": "max\n"}, 90 * 1024),
    "a limit": (
        {
            "proc/self/cgroup": "0::/a/b\n",
            "sys/fs/cgroup/a/memory.max": "50000\n",
            "sys/fs/cgroup/a/memory.current": "30000\n",
            "sys/fs/cgroup/a/memory.stat": "anon 20000\ninactive_file 9000\n",
        },
        29000,
    ),
    "a limit of the first version": (
        {
            "proc/self/cgroup": "9:cpu:/x\n4:memory:/job\n0::/\n",
            "sys/fs/cgroup/memory/job/memory.limit_in_bytes": "1000\n",
            "sys/fs/cgroup/memory/job/memory.usage_in_bytes": "1400\n",
        },
        0,
    ),
}


@pytest.mark.parametrize("kind", GROUPS)
def test_what_is_available_is_the_least_that_anybody_allows(tmp_path: Path, kind: str):
    files, expected = GROUPS[kind]
    assert available(made(tmp_path, PROC | files)) == expected


def test_what_is_held_is_read_in_bytes_and_nothing_is_known_of_another_system(tmp_path: Path):
    assert (held(tmp_path), available(tmp_path)) == (None, None)
    found = held(made(tmp_path, PROC))
    assert found is not None
    assert (found.now, found.most) == (20 * 1024, 30 * 1024)


@pytest.mark.skipif(held() is None, reason="the system does not say what a process holds")
def test_the_most_that_was_held_is_seen_after_it_was_given_back():
    # In a process of its own, as another test may have told this one to keep what it frees.
    code = "import numpy as np; from segradius.core.memory import held; before = held().now; block = np.ones(1 << 25)"
    code += "; del block; after = held(); print(before, after.now, after.most)"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    before, after, most = map(int, said.split())
    assert most >= before + 0.9 * (1 << 28)
    assert after < most
