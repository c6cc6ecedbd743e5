"""Memory of a process with all that it has started."""

import subprocess
import sys

from experiments.benchmark.memory_monitor import family, memory_of

CODE = """
import os, sys
held = bytearray(b"x") * (60 << 20)
child = os.fork()
if child == 0:
    own = bytearray(b"y") * (40 << 20)
print("ready", flush=True)
sys.stdin.read()
"""


def test_children_count_and_shared_pages_once_or_for_each() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", CODE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        for _ in range(2):
            assert process.stdout.readline() == "ready\n"
        assert len(family(process.pid)) == 2
        found = memory_of(process.pid)
        process.stdin.close()
    assert found["processes"] == 2
    assert 160 <= found["rss_anon"] < 200  # 60 in both, 40 in one
    assert 100 <= found["pss_anon"] < 130


def test_a_process_that_has_ended_has_none() -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    assert memory_of(process.pid) == {"rss_anon": 0.0, "pss_anon": 0.0, "processes": 0.0}
