"""The measurements as text and as a JSON file."""

import json
import os
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments.benchmark.measurements import Measurement

TITLES = {
    "pipeline": "From the file to the normalized batch (one thread, time of work)",
    "training": "Training from files against one batch on the device",
    "loop": "Lightning's loop against a bare loop",
    "cache": "Building the cache, and starting with it built",
    "memory": "Private memory of a training on many images",
}


def format_part(part: str, result: Mapping[str, Any]) -> str:
    """One part's measurements with quartiles and limits, within 80 columns."""
    lines = [TITLES[part]]
    for measurement in result["measurements"]:
        line = f"  {measurement.name:44.44}{_value(measurement):>12}{_spread(measurement):>18}"
        lines.append(line.rstrip())
        if measurement.met is not None:
            limit = f"at least {measurement.at_least:g}" if measurement.at_least is not None else ""
            limit = limit or f"at most {measurement.at_most:g}"
            verdict = "met" if measurement.met else "NOT MET"
            lines.append(f"    limit: {limit}{_unit(measurement)}: {verdict}")
    for name, steps in result.get("spent_ms", {}).items():
        lines.append(f"  {name}, ms per image:")
        lines.append("    " + ", ".join(f"{step} {ms:.2f}" for step, ms in steps.items()))
    return "\n".join(lines)


def _value(measurement: Measurement) -> str:
    return f"{_number(measurement.value)}{_unit(measurement)}"


def _unit(measurement: Measurement) -> str:
    return f" {measurement.unit}" if measurement.unit else ""


def _spread(measurement: Measurement) -> str:
    if measurement.low is None or measurement.high is None:
        return ""
    return f"({_number(measurement.low)}-{_number(measurement.high)})"


def _number(value: float) -> str:
    """Three significant digits, no exponent."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}" if abs(value) >= 1 else f"{value:.3f}"


def machine() -> dict[str, Any]:
    """The machine and the versions of Python and torch."""
    import torch

    result: dict[str, Any] = {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "load_before": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "torch": torch.__version__,
        "torch_threads": torch.get_num_threads(),
    }
    if torch.cuda.is_available():
        result["gpu"] = torch.cuda.get_device_name()
    return result


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def plain(parts: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """All parts as plain containers."""
    return {
        name: {
            **result,
            "measurements": [measurement.plain() for measurement in result["measurements"]],
        }
        for name, result in parts.items()
    }


def write(path: Path, content: Mapping[str, Any]) -> None:
    """Write the JSON file atomically."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(".part")
    draft.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    os.replace(draft, path)


def missed(parts: Mapping[str, Mapping[str, Any]]) -> Sequence[str]:
    """Names of the measurements that miss their limit."""
    measurements = [
        measurement for result in parts.values() for measurement in result["measurements"]
    ]
    return [measurement.name for measurement in measurements if measurement.met is False]
