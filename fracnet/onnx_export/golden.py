"""Golden cases: drawn images with the outputs that a run gives for them, and the comparison."""

import base64
import io
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from fracnet.data.phantoms.render import Spec, render
from fracnet.inference.onnx_model import OnnxPredictor
from fracnet.runs.run_folder import RunFolder, read_trusted_config
from fracnet.utils.errors import UserError
from fracnet.utils.text import counted

TOLERANCE = 1e-4
"""Allowed difference of a probability, and of a score from a limit that it crosses."""
OOD_TOLERANCE = 1e-3
SIDES = ((333, 250), (64, 64), (97, 210), (18, 500), (1, 7), (448, 448))
"""Heights and widths of the golden cases."""
OUTPUTS = ("preprocessed", "probabilities", "ood_score", "decision", "uncertain", "ood")

FLIPPED = "the decision differs"
Outputs = Mapping[str, Any]
"""Arrays and numbers by the names of the graph's outputs."""


def golden_images() -> list[np.ndarray]:
    """Phantoms, noise and a constant image, in several sizes, uint8 and uint16 [H, W]."""
    rng = np.random.default_rng(0)
    images: list[np.ndarray] = []
    for number, (height, width) in enumerate(SIDES):
        phantom = render(Spec(("hand", "elbow", "shoulder")[number % 3], seed=number)).image
        small = cv2.resize(phantom, (width, height), interpolation=cv2.INTER_AREA)
        images.append(np.asarray(small, np.uint8))
        images.append(np.asarray(small, np.uint16) * 13 + 200)  # as a detector with 12 bits
        if number % 2:
            images.append(rng.integers(0, 256, (height, width), dtype=np.uint8))
    images.append(rng.integers(0, 1 << 16, (60, 45), dtype=np.uint16))
    images.append(np.full((50, 40), 30_000, np.uint16))
    return images


def pack(images: Iterable[np.ndarray], expected: Iterable[Outputs]) -> str:
    """Images and expected outputs as text."""
    arrays = {}
    for number, (image, outputs) in enumerate(zip(images, expected, strict=True)):
        arrays[f"{number}.image"] = image
        arrays |= {f"{number}.{name}": np.asarray(outputs[name]) for name in OUTPUTS}
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **arrays)
    return base64.b64encode(buffer.getvalue()).decode()


def unpack(text: str) -> list[tuple[np.ndarray, Outputs]]:
    """The images and outputs that `pack` has made a text of."""
    with np.load(io.BytesIO(base64.b64decode(text)), allow_pickle=False) as arrays:
        held = dict(arrays)
    n = sum(name.endswith(".image") for name in held)
    return [(held[f"{i}.image"], {name: held[f"{i}.{name}"] for name in OUTPUTS}) for i in range(n)]


@dataclass
class Comparison:
    """Outputs of an exported model against expected ones.

    n: images. probability, ood_score: largest differences. faults: by kind, names of the images
    that differ by more than is allowed. at_limit: images whose flag differs because a value lies
    within the tolerance of a limit, on the other side.
    """

    n: int = 0
    probability: float = 0.0
    ood_score: float = 0.0
    faults: dict[str, list[str]] = field(default_factory=dict)
    at_limit: int = 0

    def add(self, name: str, got: Outputs, expected: Outputs, levels: Mapping[str, Any]) -> None:
        """Compare one image. levels: the frozen limits, by level."""
        self.n += 1
        if not np.array_equal(got["preprocessed"], expected["preprocessed"]):
            self._fault("preprocessed pixels differ", name)
        prob = np.abs(got["probabilities"] - expected["probabilities"]).max()
        self.probability = max(self.probability, float(prob))
        if not prob < TOLERANCE:
            self._fault(f"a probability differs by {TOLERANCE:g} or more", name)
        if got["decision"] != expected["decision"]:
            self._fault(FLIPPED, name)
        if np.isfinite(expected["ood_score"]):
            ood = float(np.abs(got["ood_score"] - expected["ood_score"]))
            self.ood_score = max(self.ood_score, ood)
            if not ood < OOD_TOLERANCE * max(1.0, float(expected["ood_score"])):
                self._fault(f"the OOD score differs by {OOD_TOLERANCE:g} or more", name)
        if got["ood"] != expected["ood"]:
            if abs(expected["ood_score"] - 1) < OOD_TOLERANCE:
                self.at_limit += 1
            else:
                self._fault("the OOD flag differs", name)
        elif got["uncertain"] != expected["uncertain"]:
            limits = np.asarray(levels["image"]["limits"].values)
            # Each limit is the probability of a validation image.
            if np.abs(expected["probabilities"] - limits).min() < TOLERANCE:
                self.at_limit += 1
            else:
                self._fault("the uncertain flag differs", name)

    def _fault(self, kind: str, name: str) -> None:
        self.faults.setdefault(kind, []).append(name)

    def require(self, where: str) -> None:
        """Raise UserError, which begins with `where`, if there is any fault."""
        if self.faults:
            kinds = "; ".join(
                f"{kind} for {len(names)} of {self.n} (first: {names[0]})"
                for kind, names in self.faults.items()
            )
            raise UserError(f"{where}: the exported model does not answer as the run: {kinds}.")

    def describe(self) -> str:
        """One line for the console and the report."""
        text = (
            f"{self.n} images, largest difference of a probability {self.probability:.1e}, of an "
            f"OOD score {self.ood_score:.1e}; "
        )
        flipped = len(self.faults.get(FLIPPED, ()))
        text += f"{counted(flipped, 'decision')} differ" if flipped else "no decision differs"
        if self.at_limit:
            text += f"; {self.at_limit} on the other side of a limit that they lie on"
        return text


def open_verified(path: str, run: str | None = None, trust: bool = False) -> OnnxPredictor:
    """The exported model, after its golden cases; prints their outcome.

    run: the folder with which it is compared next, checked first because that takes no time.

    Raises UserError for a run that is missing or not trusted, a changed file and wrong answers.
    """
    if run:
        read_trusted_config(RunFolder.open(Path(run).expanduser().resolve()), trust)
    exported = OnnxPredictor(path, error=None)
    print(f"Golden cases: {compare_golden(exported, f'{path}, golden cases').describe()}.")
    return exported


def compare_golden(exported: OnnxPredictor, where: str) -> Comparison:
    """The golden cases inside the file against what this machine's ONNX Runtime answers.

    Raises UserError, which begins with `where`, for wrong answers.
    """
    comparison = Comparison()
    for number, (image, expected) in enumerate(unpack(exported.model.golden)):
        name = f"golden case {number}, {image.dtype} {image.shape[0]}x{image.shape[1]}"
        comparison.add(name, exported.model.run(image), expected, exported.levels)
    comparison.require(where)
    return comparison
