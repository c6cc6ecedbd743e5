"""Latency and memory of an exported model against eager PyTorch, on one core, in one run."""

import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from fracnet.inference.onnx_model import OnnxModel
from fracnet.inference.predictor import Predictor
from fracnet.onnx_export.golden import golden_images

ROUNDS, BATCH = 15, 8
TORCH, BATCHED, ONNX = "PyTorch, one image", f"PyTorch, batches of {BATCH}", "ONNX Runtime"


@dataclass(frozen=True)
class Speed:
    """Milliseconds per image, each the minimum, median and maximum of `ROUNDS` rounds in turn.

    memory: MiB at the peak of a process that loads the model and predicts one image.
    """

    image: tuple[int, int]
    times: dict[str, tuple[float, float, float]]
    memory: dict[str, float]
    processor: str

    @property
    def ratio(self) -> float:
        """How many times as fast as PyTorch with one image at a time, by the medians."""
        return self.times[TORCH][1] / self.times[ONNX][1]


def measure(path: Path, predictor: Predictor) -> Speed:
    """Preprocessing, network, OOD score and decision of a decoded phantom, on the CPU."""
    image = golden_images()[0]
    model, look = OnnxModel(path, threads=1), predictor._look()
    assert predictor.device == "cpu"
    tasks: dict[str, tuple[Callable[[], object], int]] = {
        TORCH: (lambda: look([predictor.preprocess(image)]), 1),
        BATCHED: (lambda: look([predictor.preprocess(image) for _ in range(BATCH)]), BATCH),
        ONNX: (lambda: model.run(image), 1),
    }
    times: dict[str, list[float]] = {name: [] for name in tasks}
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for round_number in range(ROUNDS + 1):
            for name, (task, n) in tasks.items():
                start = time.perf_counter()
                task()
                if round_number:  # the first one only warms up
                    times[name].append(1000 * (time.perf_counter() - start) / n)
    finally:
        torch.set_num_threads(threads)
    return Speed(
        (image.shape[0], image.shape[1]),
        {name: (min(t), statistics.median(t), max(t)) for name, t in times.items()},
        {"PyTorch": _peak(predictor.path), "ONNX Runtime": _peak(path)},
        processor_name(),
    )


def _peak(source: Path) -> float:
    """MiB of a process that loads a run or an exported model and predicts one image."""
    code = (
        "import sys, numpy, fracnet\n"
        "options = {'device': 'cpu', 'trust': True}\n"
        "image = numpy.zeros((300, 200), numpy.uint8)\n"
        "fracnet.load(sys.argv[1], **options).predict(image)\n"
        # Not getrusage: its peak includes that of the process that started this one.
        "lines = open('/proc/self/status').read().splitlines()\n"
        "print(*(int(line.split()[1]) / 1024 for line in lines if line.startswith('VmHWM')))"
    )
    # The user has already trusted the run, where that was needed.
    done = subprocess.run(
        [sys.executable, "-c", code, str(source)], capture_output=True, text=True, check=True
    )
    return float(done.stdout.split()[-1])


def processor_name() -> str:
    """The model of this machine's processor."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()
