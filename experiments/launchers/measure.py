"""The same sweep with each launcher: wall and processor time, memory, decoded images.

python -m experiments.launchers.measure
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from experiments.small_phantoms import ADAM

LAUNCHERS = {
    "serial": ["launcher=serial"],
    "joblib": ["launcher=joblib", "launcher.jobs=2", "launcher.cpus_per_job=1"],
    "ray": ["launcher=ray", "launcher.cpus_per_job=1"],
}
JOBS = [
    "data=upper_limb_phantom",
    "data.counts={train: 200, val: 60, test: 60}",
    "model=resnet18",
    "model.pretrained=false",
    "image_size=64",
    "data.num_workers=0",
    "data.batch_size=16",
    "trainer.accelerator=cpu",
    "logger=none",
    "explain=none",
    *ADAM,
    "callbacks.early_stopping=null",
    "optim.lr=1e-2,3e-3,1e-3,3e-4",
    "seed=0,1",
]


def descendants(root: int) -> list[int]:
    """Process ids of a process and all that it has started."""
    children: dict[int, list[int]] = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        children.setdefault(int(fields[1]), []).append(int(stat.parent.name))
    found = [root]
    for pid in found:
        found += children.get(pid, [])
    return found


def memory_mib(root: int) -> float:
    """Memory of all of them, shared pages divided among those who share them (PSS)."""
    total = 0
    for pid in descendants(root):
        try:
            rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
        except OSError:
            continue
        if match := re.search(r"^Pss:\s+(\d+) kB", rollup, re.MULTILINE):
            total += int(match[1])
    return total / 1024


def cpu_seconds(root: int) -> dict[int, float]:
    """Processor time so far of each of them; unlike wall time it hardly depends on other work."""
    ticks = os.sysconf("SC_CLK_TCK")
    times = {}
    for pid in descendants(root):
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        times[pid] = (int(fields[11]) + int(fields[12])) / ticks
    return times


def measure(name: str, overrides: list[str], folder: Path) -> dict[str, Any]:
    """Run the sweep once, with an empty image cache."""
    sweep, decoded = folder / name, folder / f"{name}.decoded"
    decoded.touch()
    environment = os.environ | {
        "FRACNET_DECODED": str(decoded),
        "FRACNET_CACHE": str(folder / f"{name}.cache"),
    }
    root = f"data.root={folder / 'data'}"
    command = ["experiments.launchers.job", "-m", *JOBS, *overrides, *LAUNCHERS[name], root]
    load, start, peak = os.getloadavg()[0], time.monotonic(), 0.0
    cpu: dict[int, float] = {}
    process = subprocess.Popen(
        [sys.executable, "-m", *command, f"hydra.sweep.dir={sweep}"],
        env=environment,
        stdout=subprocess.DEVNULL,
    )
    while process.poll() is None:
        peak = max(peak, memory_mib(process.pid))
        cpu |= cpu_seconds(process.pid)
        time.sleep(0.5)
    seconds = time.monotonic() - start
    jobs = json.loads((sweep / "sweep.json").read_text())["jobs"]
    provenances = [json.loads((sweep / f"{n}/provenance.json").read_text()) for n in range(8)]
    return {
        "seconds": round(seconds, 1),
        "cpu_seconds": round(sum(cpu.values()), 1),
        "seconds_in_jobs": round(sum(p["seconds"] for p in provenances), 1),
        "peak_mib": round(peak),
        "decoded": decoded.stat().st_size,
        "finished": sum(job["status"] == "finished" for job in jobs),
        "values": [job["value"] for job in jobs],
        "load_before": round(load, 1),
    }


def main() -> None:
    """Measure each launcher in turn and write results.json."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--launchers", nargs="*", default=list(LAUNCHERS), choices=LAUNCHERS)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results.json")
    words = parser.parse_args()
    results: dict[str, Any] = {"epochs": words.epochs, "cores": len(os.sched_getaffinity(0))}
    with tempfile.TemporaryDirectory() as folder:
        for name in words.launchers:
            overrides = [f"trainer.max_epochs={words.epochs}"]
            results[name] = measure(name, overrides, Path(folder))
            print(name, results[name], flush=True)
            words.out.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
