"""Memory of a training on a CPU."""

import platform
from pathlib import Path

import pytest
from helpers.command import in_warm_process

FAULTS = """
import resource, sys, torch
from fracnet.utils.devices import reuse_memory
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(20):
        torch.empty(1 << 24).fill_(1.0)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
before = faults()
reuse_memory()
faults()
print(before, faults())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the allocator is not glibc's")
def test_tensors_reuse_the_memory_of_those_before() -> None:
    done = in_warm_process(["-c", FAULTS], Path.cwd())
    assert done.code == 0, done.err
    before, after = map(int, done.out.split())
    assert after < before / 5
