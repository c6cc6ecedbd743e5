"""The figures on the screen and as a file."""

import json
import os
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from experiments.benchmark.figures import Figure

TITLES = {
    "pipeline": "From the file to the normalized batch (one thread, time of work)",
    "training": "Training from files against one batch on the device",
    "loop": "Lightning's loop against a bare loop",
    "cache": "Building the cache, and starting with it built",
    "memory": "Private memory of a training on many images",
}


def told(part: str, found: Mapping[str, Any]) -> str:
    """One part's figures, each with its quartiles and its limit, within 80 columns."""
    lines = [TITLES[part]]
    for figure in found["figures"]:
        line = f"  {figure.name:44.44}{_value(figure):>12}{_spread(figure):>18}"
        lines.append(line.rstrip())
        if figure.met is not None:
            limit = f"at least {figure.at_least:g}" if figure.at_least is not None else ""
            limit = limit or f"at most {figure.at_most:g}"
            verdict = "met" if figure.met else "NOT MET"
            lines.append(f"    limit: {limit}{_unit(figure)}: {verdict}")
    for name, steps in found.get("spent_ms", {}).items():
        lines.append(f"  {name}, ms an image:")
        lines.append("    " + ", ".join(f"{step} {ms:.2f}" for step, ms in steps.items()))
    return "\n".join(lines)


def _value(figure: Figure) -> str:
    return f"{_number(figure.value)}{_unit(figure)}"


def _unit(figure: Figure) -> str:
    return f" {figure.unit}" if figure.unit else ""


def _spread(figure: Figure) -> str:
    if figure.low is None or figure.high is None:
        return ""
    return f"({_number(figure.low)}-{_number(figure.high)})"


def _number(value: float) -> str:
    """Three digits that count, and no exponent."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}" if abs(value) >= 1 else f"{value:.3f}"


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    import torch

    found: dict[str, Any] = {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "load_before": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "torch": torch.__version__,
        "torch_threads": torch.get_num_threads(),
    }
    if torch.cuda.is_available():
        found["gpu"] = torch.cuda.get_device_name()
    return found


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def plain(parts: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """All parts as the JSON holds them."""
    return {
        name: {**found, "figures": [figure.plain() for figure in found["figures"]]}
        for name, found in parts.items()
    }


def write(path: Path, content: Mapping[str, Any]) -> None:
    """Write the JSON whole."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(".part")
    draft.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    os.replace(draft, path)


def missed(parts: Mapping[str, Mapping[str, Any]]) -> Sequence[str]:
    """Names of the figures whose limit is not kept."""
    figures = [figure for found in parts.values() for figure in found["figures"]]
    return [figure.name for figure in figures if figure.met is False]
