"""What a run was made from: code, data, packages, seed, command, device, time, memory."""

import json
import platform
import resource
import subprocess
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

from fracnet.runs.run_folder import RunFolder, write_json
from fracnet.utils.errors import UserError

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
    """What a run was made from; written at its start and completed at its end."""

    def __init__(
        self,
        folder: RunFolder,
        command: Sequence[str],
        seed: int,
        fingerprint: str,
        device: str,
        resumed: bool = False,
        data: Mapping[str, Any] | None = None,
    ) -> None:
        self._folder = folder
        self._clock = time.monotonic()
        self._content: dict[str, Any] = {
            "status": "running",
            "started": _now(),
            "command": list(command),
            "seed": seed,
            "data_fingerprint": fingerprint,
            "data": dict(data or {}),
            "device": device,
            "code": code_version(),
            "python": platform.python_version(),
            "platform": platform.platform(),
            "packages": {name: version(name) for name in PACKAGES},
        }
        if resumed:
            before = json.loads(folder.provenance.read_text(encoding="utf-8"))
            if before["data_fingerprint"] != fingerprint:
                raise UserError(
                    f"resume={folder.path}: the data have changed since the run began (fingerprint "
                    f"{before['data_fingerprint']} then, {fingerprint} now)."
                )
            self._content["resumed_from"] = [*before.pop("resumed_from", []), before]
        write_json(folder.provenance, self._content)

    def so_far(self) -> None:
        """Add time and memory up to now, which stand: the report that follows tells them."""
        import torch  # seconds, which who only asks for the code's version need not wait

        self._content |= {
            "seconds": round(time.monotonic() - self._clock, 1),
            # Linux counts KiB; mapped files (the image cache) are part of it.
            "peak_resident_mib": round(
                resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, 1
            ),
        }
        if torch.cuda.is_available():
            peak = torch.cuda.max_memory_allocated() / 2**20
            self._content["peak_gpu_mib"] = round(peak, 1)
        write_json(self._folder.provenance, self._content)

    def finish(self, status: str) -> None:
        """Add how the run ended, how long it took and the most memory it held."""
        self._content |= {"status": status, "finished": _now()}
        if "seconds" not in self._content:
            self.so_far()
        write_json(self._folder.provenance, self._content)


def code_version() -> dict[str, Any]:
    """fracnet's version, and its commit where it runs from a git checkout."""
    found: dict[str, Any] = {"fracnet": version("fracnet")}
    checkout = Path(__file__).resolve().parents[2]
    if (checkout / ".git").exists():
        found["commit"] = _git(checkout, "rev-parse", "HEAD")
        found["modified"] = bool(_git(checkout, "status", "--porcelain"))
    return found


def _git(checkout: Path, *arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(checkout), *arguments], capture_output=True, text=True, timeout=20
        )
    except (OSError, subprocess.TimeoutExpired):
        return None  # no git on this machine: the commit stays unknown
    return done.stdout.strip() if done.returncode == 0 else None


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
