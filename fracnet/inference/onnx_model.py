"""An exported model (`fracnet.onnx_export`), used without torch.

model.onnx is one file. Its graph takes one grey image as decoded and gives what a run's table
holds; its metadata hold the rest, and a hash of the whole file.
"""

import hashlib
import json
import mmap
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from fracnet.data.preprocess import Preprocess
from fracnet.evaluation.conformal import Limits
from fracnet.evaluation.decisions import seal
from fracnet.inference.image_predictor import Batch, ImagePredictor, Look, Scores
from fracnet.saliency.drawing import upsample
from fracnet.utils.errors import UserError
from fracnet.utils.text import as_clause

try:
    import onnxruntime
except ModuleNotFoundError:  # an extra; `OnnxModel` says how to install it
    onnxruntime = None

FORMAT = 1
"""Of the graph's inputs and outputs and of the metadata; other formats are refused."""
METADATA, GOLDEN, HASH = "fracnet", "fracnet_golden", "fracnet_sha256"
"""Keys of the file's metadata: JSON, the golden cases, and the hash of the file."""
CLASS_MAP = "class_map"
"""The output, which not every model has."""
NO_HASH = "0" * 64
"""Stands in place of the hash where the file is hashed."""


def hash_place(content: mmap.mmap | bytes) -> int:
    """Place of the hash in the file; ValueError where it has none."""
    # Protocol buffers store a key, one byte for the field, one for the length, and the value.
    place = content.rfind(HASH.encode())
    if place < 0:
        raise ValueError("it was not exported by fracnet")
    return place + len(HASH) + 2


def file_hashes(path: Path) -> tuple[str, str]:
    """The SHA-256 that a file holds, and the one it has with zeros in place of that."""
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        start = hash_place(content)
        end = start + len(NO_HASH)
        digest = hashlib.sha256(content[:start])
        digest.update(NO_HASH.encode())
        digest.update(content[end:])
        return content[start:end].decode("ascii", "replace"), digest.hexdigest()


def levels_to_plain(levels: Mapping[str, Any]) -> dict[str, Any]:
    """`limits_by_level`'s result as plain containers."""
    return {name: level | {"limits": asdict(level["limits"])} for name, level in levels.items()}


def _levels_from(plain: Mapping[str, Any]) -> dict[str, Any]:
    levels: dict[str, Any] = {}
    for name, level in plain.items():
        lists: dict[str, Any] = {
            key: tuple(v) if isinstance(v, list) else v for key, v in level["limits"].items()
        }
        levels[name] = level | {"limits": Limits(**lists)}
    return levels


class OnnxModel:
    """The file, checked against its own hashes. `run` gives the graph's outputs for one image.

    metadata: classes, decisions, levels, preprocessing, versions, intended use and so on.
    """

    def __init__(self, path: Path | str, threads: int = 0) -> None:
        """threads: of ONNX Runtime; 0 chooses the number of cores.

        Raises UserError for a file that is missing, no export of fracnet, or was changed.
        """
        if onnxruntime is None:
            raise UserError(
                "An exported model needs onnxruntime: pip install 'fracnet[runtime]', or without "
                "torch the requirements.txt next to the model."
            )
        self.path = Path(path).expanduser().resolve()
        if not self.path.is_file():
            raise UserError(f"{self.path}: no such file.")
        try:
            held, self.sha256 = file_hashes(self.path)
            if held != self.sha256:
                raise UserError(
                    f"{self.path} was changed after it was exported: its SHA-256 is "
                    f"{self.sha256[:12]}..., and the one it holds is {held[:12]}... Restore the "
                    "file, or export the run again."
                )
            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = threads
            options.log_severity_level = 3
            self.session = onnxruntime.InferenceSession(
                str(self.path), options, providers=["CPUExecutionProvider"]
            )
            stored = self.session.get_modelmeta().custom_metadata_map
            self.metadata: dict[str, Any] = json.loads(stored[METADATA])
            self.golden: str = stored[GOLDEN]
        except UserError:
            raise
        # ONNX Runtime raises errors of many types for a damaged file.
        except Exception as error:
            raise UserError(
                f"{self.path} cannot be read as an exported model: {as_clause(error)[:300]}."
            ) from error
        with self.complete():
            written = self.metadata.get("format")
        if written != FORMAT:
            raise UserError(
                f"{self.path} was exported by another version of fracnet (format {written}; this "
                f"version reads {FORMAT}): export the run again."
            )
        with self.complete():
            decisions = self.metadata["decisions"]
            held = str(decisions["sha256"])
            intact = seal(decisions)["sha256"] == held
        if not intact:
            raise UserError(
                f"{self.path}: the operating points in the metadata do not match their hash "
                f"{held[:12]}...: export the run again."
            )

    @contextmanager
    def complete(self) -> Iterator[None]:
        """Raise UserError where the metadata lack what the block reads: others can write files."""
        try:
            yield
        except UserError:
            raise
        except (LookupError, AttributeError, TypeError, ValueError) as error:
            raise UserError(
                f"{self.path} cannot be read as an exported model: its metadata are incomplete "
                f"({type(error).__name__}: {error}). Export the run again."
            ) from error

    def run(self, image: np.ndarray) -> dict[str, np.ndarray]:
        """All outputs, by name, for one image uint8 or uint16 [H, W]; see `export` for them."""
        assert image.dtype in (np.uint8, np.uint16), image.dtype
        bits = np.array(8 * image.dtype.itemsize, np.int64)
        names = [output.name for output in self.session.get_outputs()]
        values = self.session.run(names, {"image": image.astype(np.uint16), "bits": bits})
        return dict(zip(names, values, strict=True))


class OnnxPredictor(ImagePredictor):
    """Predicts as the run of the exported model does, with ONNX Runtime on the CPU, without torch.

    model: the file. See `ImagePredictor` for the other attributes.
    """

    def __init__(
        self,
        path: Path | str,
        *,
        error: float | None = None,
        device: str = "auto",
        trust: bool = False,
        threads: int = 0,
    ) -> None:
        """Read a model that `fracnet.export` wrote; nothing in it is executed but its graph.

        error: maximum rate of confident errors per class; only that of the export is allowed, or
            None for it. device: auto or cpu. trust: without effect, since nothing in the file is
            built. threads: of ONNX Runtime; 0 for one per core.

        Raises UserError for a file that is not such a model or was changed.
        """
        if device not in ("auto", "cpu"):
            raise UserError(f"device={device}: an exported model runs on the CPU; allowed: cpu.")
        self.model = OnnxModel(path, threads)
        metadata = self.model.metadata
        self.path, self.decisions = self.model.path, metadata["decisions"]
        with self.model.complete():
            self.classes = tuple(self.decisions["classes"])
            self.levels = _levels_from(metadata["levels"])
            frozen = self.levels["image"]["limits"].error
            self.ood_description = metadata["ood"]
            self.image_size, self.batch_size = int(metadata["image_size"]), 8
            self.frame = Preprocess(metadata["preprocess"], self.image_size).frame
        outputs = {output.name for output in self.model.session.get_outputs()}
        self.why_no_heatmaps = (
            ""
            if CLASS_MAP in outputs
            else "the exported network has no class activation map, and other heatmaps need "
            "gradients, which only the run folder gives"
        )
        if error not in (None, frozen):
            raise UserError(
                f"confident_errors={error}: the limits in {self.path.name} are for {frozen} and "
                f"need validation to change: export the run with confident_errors={error}."
            )

    def heatmaps(self, batch: Batch) -> list[np.ndarray]:
        """Class activation maps (Zhou et al. 2016, arXiv:1512.04150); see `ImagePredictor`."""
        assert batch.class_maps is not None, self.why_no_heatmaps
        maps = batch.class_maps[np.arange(len(batch.choices)), batch.choices]
        return [upsample(np.maximum(heat, 0), self.image_size) for heat in maps]

    @property
    def preprocess(self) -> None:
        """None: the graph preprocesses."""

    def _look(self) -> Look:
        def scores(images: Sequence[np.ndarray]) -> Scores:
            outputs = [self.model.run(image) for image in images]

            def stacked(name: str) -> np.ndarray:
                return np.stack([output[name] for output in outputs])

            return Scores(
                stacked("preprocessed"),
                stacked("logits").astype(np.float64),
                stacked("ood_score") if self.ood_description else None,
                None if self.why_no_heatmaps else stacked(CLASS_MAP),
            )

        return scores
