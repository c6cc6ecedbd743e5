"""The report of an export: what the file is, what was compared, how fast it is."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fracnet.evaluation.comparison import Difference
from fracnet.onnx_export.benchmark import ONNX, Speed
from fracnet.onnx_export.golden import Comparison
from fracnet.utils.text import counted

RUNTIME = (
    "onnxruntime>=1.23", "numpy>=2.0", "opencv-python-headless>=4.10,<5", "pydicom>=3.0.1",
    "pillow>=11", "pandas>=2.2", "scipy>=1.14", "pydantic>=2.9", "hydra-core>=1.3.8",
    "omegaconf>=2.3", "rich>=13.9", "pyyaml>=6", "filelock>=3.21",
)  # fmt: skip
"""What `fracnet.load("model.onnx")` and `fracnet.verify` import besides fracnet: no torch."""


@dataclass(frozen=True)
class Quantization:
    """What 8 bits cost. changes: int8 minus float32 on test, by metric, with paired intervals.

    flipped: decisions that differ, of `n` validation and test images. calibrated_on: images of
    validation. speed: None where nothing was measured.
    """

    changes: Mapping[str, Difference]
    margin: float
    flipped: int
    n: int
    calibrated_on: int
    speed: Speed | None = None
    megabytes: float | None = None

    @property
    def outside(self) -> list[str]:
        """Metrics whose change is not shown to lie within the margin."""
        return [name for name, change in self.changes.items() if not change.within]

    def describe(self) -> str:
        """One sentence for the console and the report."""
        flips = f"{self.flipped} of {self.n} decisions differ from the run's"
        if not self.outside:
            return f"model_int8.onnx: {flips}; all metrics within {self.margin:g}"
        names = ", ".join(name.replace("_", " ").replace("auc", "AUC") for name in self.outside)
        return (
            f"model_int8.onnx was not written: {names} may change by more than "
            f"margin={self.margin:g}; {flips}"
        )


@dataclass(frozen=True)
class Export:
    """The outcome. images: over all images of val and test, None where that was left out, as are
    speed and int8."""

    folder: Path
    metadata: dict[str, Any]
    golden: Comparison
    images: Comparison | None
    speed: Speed | None
    megabytes: float
    int8: Quantization | None = None


def report_text(export: Export) -> str:
    """report.md."""
    data = export.metadata
    lines = [
        f"# {data['run']}: exported model",
        "",
        data["intended_use"],
        "",
        "| | |",
        "|---|---|",
        f"| classes | {', '.join(data['classes'])} |",
        f"| model | `{data['model']}` at {data['image_size']} pixels |",
        f"| data | {data['data']} (license: {data['data_license']}), fingerprint "
        f"`{data['data_fingerprint']}` |",
        f"| license | {data['license']} |",
        f"| operating points | SHA-256 `{data['decisions']['sha256']}` |",
        f"| class activation map | {data['class_map']} |",
        f"| format | ONNX opset {data['opset']}, fracnet {data['code']['fracnet']} |",
        "",
        "## Comparison with the run",
        "",
        f"- Golden cases inside the file: {export.golden.describe()}.",
    ]
    if export.images:
        lines.append(f"- All validation and test images: {export.images.describe()}.")
    else:
        lines.append("- Validation and test images were not compared (`compare=false`).")
    if export.int8:
        lines += _int8_lines(export.int8)
    lines += ["", "Check the file again anywhere: `python -m fracnet.verify model.onnx`.", ""]
    lines += ["## Speed and memory", ""]
    if export.speed is None:
        lines.append("Not measured (`benchmark=false`).")
    else:
        speed = export.speed
        height, width = speed.image
        lines += [
            f"From a decoded image of {width} x {height} pixels to the decision, one thread, "
            f"{speed.processor}. Milliseconds per image; the rounds alternate.",
            "",
            "| | fastest | median | slowest |",
            "|---|---|---|---|",
            *(
                f"| {name} | {low:.1f} | {middle:.1f} | {high:.1f} |"
                for name, (low, middle, high) in speed.times.items()
            ),
            "",
            f"ONNX Runtime is {speed.ratio:.2f} times as fast as PyTorch with one image at a time.",
            "",
            "Memory at the peak of a process that loads the model and predicts one image: "
            + ", ".join(f"{name} {value:.0f} MiB" for name, value in speed.memory.items())
            + ".",
        ]
        if export.int8 and export.int8.speed:
            lines += [
                "",
                f"In 8 bits: {export.int8.speed.times[ONNX][1]:.1f} ms per image (median), "
                f"{export.int8.speed.ratio:.2f} times as fast as PyTorch; "
                f"{export.int8.megabytes:.1f} MB instead of {export.megabytes:.1f} MB.",
            ]
    lines += [
        "",
        "## Use without torch",
        "",
        f"{counted(len(RUNTIME), 'package')} and fracnet itself, without its other dependencies:",
        "",
        "```",
        "pip install -r requirements.txt",
        "pip install --no-deps fracnet",
        "python -c \"import fracnet; print(fracnet.load('model.onnx').predict('image.png'))\"",
        "```",
        "",
    ]
    return "\n".join(lines)


def _int8_lines(int8: Quantization) -> list[str]:
    return [
        "",
        "## In 8 bits",
        "",
        f"{int8.describe()}. Calibrated on {counted(int8.calibrated_on, 'image')} of validation.",
        "",
        "| int8 minus float32, test | change | 95 % CI | within the margin |",
        "|---|---|---|---|",
        *(
            f"| {name.replace('_', ' ').replace('auc', 'AUC')} | {change.value:+.4f} | "
            + ("none" if change.low is None else f"{change.low:+.4f} to {change.high:+.4f}")
            + f" | {'yes' if change.within else 'not shown'} |"
            for name, change in int8.changes.items()
        ),
    ]
