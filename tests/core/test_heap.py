"""Freed memory kept at hand: the next block of the size costs no page faults."""

import subprocess
import sys

SCRIPT = """
import resource
import numpy as np
from cgn.core.heap import keep_freed_memory

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(5):
        np.ones(1 << 26, dtype=np.uint8)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

plain = faults()
keep_freed_memory()
faults()  # takes the block that is then kept
print(plain, faults())
"""


def test_blocks_are_used_again() -> None:
    done = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=True)
    plain, kept = map(int, done.stdout.split())
    assert kept < plain / 10, (plain, kept)
