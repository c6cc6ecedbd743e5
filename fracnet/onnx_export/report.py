"""The report of an export: what the file is, what was compared, how fast it is."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fracnet.onnx_export.benchmark import Speed
from fracnet.onnx_export.golden import Comparison
from fracnet.utils.text import counted

RUNTIME = (
    "onnxruntime>=1.23", "numpy>=2.0", "opencv-python-headless>=4.10,<5", "pydicom>=3.0.1",
    "pillow>=11", "pandas>=2.2", "scipy>=1.14", "pydantic>=2.9", "hydra-core>=1.3.8",
    "omegaconf>=2.3", "pyyaml>=6", "filelock>=3.21",
)  # fmt: skip
"""What `fracnet.load("model.onnx")` imports besides fracnet; the extra `runtime` without torch."""


@dataclass(frozen=True)
class Export:
    """The outcome. images: over all images of val and test, None where that was left out, as is
    speed."""

    folder: Path
    metadata: dict[str, Any]
    golden: Comparison
    images: Comparison | None
    speed: Speed | None


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
