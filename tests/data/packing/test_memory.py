"""A process that keeps its freed memory does not get the same pages from the kernel again and again."""

import platform
import subprocess
import sys

import pytest

PROGRAM = """
import resource
from theworld.data.packing.memory import keep_freed_memory
if {keep}:
    keep_freed_memory(3)
for _ in range(20):
    block = b"x" * (40 << 20)
    del block
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)
"""


def _page_faults(keep):
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM.format(keep=keep)], capture_output=True, text=True, check=True, timeout=60
    )
    return int(done.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library keeps memory in its own way")
def test_blocks_are_reused():
    kept, returned = _page_faults(True), _page_faults(False)
    assert returned > 100_000  # control: by default each of the 20 blocks costs its 10,240 pages
    assert kept < returned / 4
