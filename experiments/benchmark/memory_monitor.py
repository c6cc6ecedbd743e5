"""The memory of a process and its descendants while it runs (Linux)."""

import json
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

EVERY = 0.25  # seconds


def run_and_monitor(overrides: Sequence[str], folder: Path) -> dict[str, Any]:
    """Run `training_process` with these overrides; its stages, and its peak memory in MiB.

    rss_anon: the largest sum of RssAnon over all its processes: pages that belong to no file. A
        page that a worker shares with its parent counts once for each.
    pss_anon: the same with shared pages counted once.
    """
    log = folder / "child.log"
    with log.open("w", encoding="utf-8") as errors:
        child = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "experiments.benchmark.training_process",
                str(folder),
                *overrides,
            ],
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        )
        peak = {"rss_anon": 0.0, "pss_anon": 0.0, "processes": 0.0}
        try:
            while child.poll() is None:
                usage = memory_of(child.pid)
                peak = {name: max(value, usage[name]) for name, value in peak.items()}
                time.sleep(EVERY)
        finally:
            child.kill()
            out, _ = child.communicate()
    if child.returncode != 0:
        raise RuntimeError(f"the monitored training failed: {log.read_text()[-2000:]}")
    stages: dict[str, Any] = json.loads(out.splitlines()[-1])
    return stages | {name: round(value, 1) for name, value in peak.items()}


def memory_of(pid: int) -> dict[str, float]:
    """MiB of anonymous memory of a process and its descendants, and their number."""
    result = {"rss_anon": 0.0, "pss_anon": 0.0, "processes": 0.0}
    for member in process_tree(pid):
        try:
            status = (Path("/proc") / str(member) / "status").read_text()
            shared = (Path("/proc") / str(member) / "smaps_rollup").read_text()
        except (FileNotFoundError, ProcessLookupError):
            continue  # it has ended
        result["rss_anon"] += _kib(status, "RssAnon:") / 1024
        result["pss_anon"] += _kib(shared, "Pss_Anon:") / 1024
        result["processes"] += 1
    return result


def process_tree(pid: int) -> list[int]:
    """A process and its descendants."""
    members = [pid]
    for member in members:
        for task in (Path("/proc") / str(member) / "task").glob("*/children"):
            try:
                members += [int(word) for word in task.read_text().split()]
            except (FileNotFoundError, ProcessLookupError):
                continue
    return members


def _kib(text: str, key: str) -> float:
    for line in text.splitlines():
        if line.startswith(key):
            return float(line.split()[1])
    return 0.0  # a process that is just ending has no memory left
