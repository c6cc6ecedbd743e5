"""Memory of a process with all that it has started."""

import subprocess
import sys

from experiments.benchmark.memory_monitor import memory_of, process_tree

CODE = """
import os, sys
held = bytearray(b"x") * (60 << 20)
child = os.fork()
if child == 0:
    own = bytearray(b"y") * (40 << 20)
print("prepared_data", flush=True)
sys.stdin.read()
"""


def test_child_processes_count_and_shared_pages_once_or_per_process() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", CODE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        for _ in range(2):
            assert process.stdout.readline() == "prepared_data\n"
        assert len(process_tree(process.pid)) == 2
        result = memory_of(process.pid)
        process.stdin.close()
    assert result["processes"] == 2
    assert 160 <= result["rss_anon"] < 200  # 60 in both, 40 in one
    assert 100 <= result["pss_anon"] < 130


def test_an_ended_process_has_no_memory() -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    assert memory_of(process.pid) == {"rss_anon": 0.0, "pss_anon": 0.0, "processes": 0.0}
