"""How a run was made: code, data, packages, seed, command, device, time, memory."""

import platform
import resource
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

import torch

from fracnet.runs.run_folder import (
    HASHES,
    RunFolder,
    code_version,
    predictions_hashes,
    read_mapping,
    with_format,
    write_end,
    write_json,
)
from fracnet.utils import processes
from fracnet.utils.errors import UserError
from fracnet.utils.shared import shared
from fracnet.utils.text import time_text

PACKAGES = (
    "albumentations",
    "hydra-core",
    "lightning",
    "numpy",
    "omegaconf",
    "opencv-python-headless",
    "pillow",
    "scikit-learn",
    "timm",
    "torch",
    "torchmetrics",
    "torchvision",
)


class Provenance:
    """provenance.json: written at the start of a run and completed at its end."""

    def __init__(
        self,
        folder: RunFolder,
        command: Sequence[str],
        seed: int,
        fingerprint: str,
        device: str,
        resumed: bool = False,
        data: Mapping[str, Any] | None = None,
        weights: str = "",
    ) -> None:
        self._folder = folder
        self.times: Callable[[], Mapping[str, Any]] = dict
        """What the run knows of its time so far; see `fracnet.training.run_times`."""
        self._clock = time.monotonic()
        content: dict[str, Any] = {
            "status": "running",
            "started": _now(),
            "command": list(command),
            "seed": seed,
            "data_fingerprint": fingerprint,
            "data": dict(data or {}),
            "device": device,
            "process": processes.this_process(),
        } | shared("environment", "", _environment)
        if weights:  # a sentence on what `model.weights` gave the network
            content["weights"] = weights
        if resumed:
            before = read_mapping(folder.provenance)
            earlier = before.get("data_fingerprint")
            if earlier != fingerprint:
                raise UserError(
                    f"resume={folder.path}: the data have changed since the run started "
                    f"(fingerprint {earlier} then, {fingerprint} now)."
                )
            content["resumed_from"] = [*before.pop("resumed_from", []), before]
            if "weights" in before:  # the checkpoint replaces them, but they were the start
                content["weights"] = before["weights"]
        self._content = with_format(content)
        write_json(folder.provenance, self._content)

    def add_hashes(self) -> None:
        """Add the hashes of the predictions, once they are written."""
        self._content[HASHES] = predictions_hashes(self._folder)
        write_json(self._folder.provenance, self._content)

    def update(self) -> None:
        """Add the time and memory used so far, which the report states."""
        self._measure()
        write_json(self._folder.provenance, self._content)

    def _measure(self) -> None:
        self._content |= {
            "seconds": round(time.monotonic() - self._clock, 1),
            # Linux counts KiB; it includes mapped files such as the image cache.
            "peak_resident_mib": round(
                resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1
            ),
        }
        self._content |= self.times()
        if torch.cuda.is_available():
            peak = torch.cuda.max_memory_allocated() / 2**20
            self._content["peak_gpu_mib"] = round(peak, 1)

    def lines(self) -> list[str]:
        """Time, speed, memory and what would make the run faster, for the terminal."""
        content = {**self._content, **self.times()}  # with the report
        memory = f"memory {content['peak_resident_mib'] / 1024:.1f} GiB at most"
        if "peak_gpu_mib" in content:
            memory += f", on the GPU {content['peak_gpu_mib'] / 1024:.1f} GiB"
        speed = content.get("images_per_second")
        advice = content.get("advice")
        return [
            f"Time    {time_text(content['seconds_by_phase'])}",
            f"Speed   {f'{speed:g} images/s in training; ' if speed else ''}{memory}",
            *([f"Faster  {advice}"] if advice else []),
        ]

    def finish(self, status: str, reason: str = "") -> None:
        """Add the final status, its reason if there is one, and time and memory if missing."""
        self._content |= {"status": status, "finished": _now()}
        self._content |= {"reason": reason} if reason else {}
        if "seconds" not in self._content:
            self._measure()
        self._content |= self.times()  # with the report
        write_end(self._folder, self._content)


def _environment() -> dict[str, Any]:
    """The code, packages and machine of this process."""
    return {
        "code": code_version(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name: version(name) for name in PACKAGES},
    }


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
