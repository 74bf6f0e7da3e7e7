"""Freed memory is kept, unless the environment says otherwise."""

import os
import sys

import pytest

from tests.checks import run_python

# Five times eight arrays of 2,000 pages: each page that the system hands out anew is a fault.
CODE = """
import resource, tape
import numpy as np
def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt
def step():
    return len([np.ones(1_000_000) for _ in range(8)])
for _ in range(3): step()
before = faults()
for _ in range(5): step()
print(faults() - before)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc's malloc")
def test_importing_tape_keeps_freed_memory_unless_it_is_told_not_to():
    assert int(run_python("-c", CODE).stdout) < 1000
    off = run_python("-c", CODE, env={**os.environ, "TAPE_KEEP_FREED_MEMORY": "0"})
    assert int(off.stdout) > 10_000
