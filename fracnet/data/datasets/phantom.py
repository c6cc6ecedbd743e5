"""The two tasks on generated radiographs: generated files, read like the real datasets."""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Literal

import pandas as pd
from pydantic import Field

from fracnet.data.datasets.mura import Mura
from fracnet.data.datasets.upper_limb import UpperLimb
from fracnet.data.manifest import Manifest, with_manifest_types
from fracnet.data.phantoms.mura import read_polygons, write_mura
from fracnet.data.phantoms.upper_limb import write_upper_limb

LICENSE = "MIT, as fracnet"
CITATION = "fracnet.data.phantoms"
NOTE = (
    "generated images, a cartoon of radiographs: metrics on them show that the pipeline works and "
    "say nothing about patients."
)

Count = Annotated[int, Field(ge=1)]


@dataclass(kw_only=True)
class MuraPhantom(Mura):
    """Generates a missing dataset in MURA's layout and reads it like the real one.

    seed: another seed gives other patients. patients: number in each official part; valid is the
    test. abnormal: share of the studies.
    """

    seed: Annotated[int, Field(ge=0)] = 0
    patients: Mapping[Literal["train", "valid"], Count] = field(
        default_factory=lambda: {"train": 500, "valid": 160}
    )
    abnormal: Annotated[float, Field(gt=0, lt=1)] = 0.45

    name = "mura_phantom"
    license = LICENSE
    citation = CITATION
    groups = "the phantom's own patients and studies"
    notes = (
        f"mura_phantom: {NOTE} Abnormal means that every view of the study shows a fracture; "
        "hardware is not part of the label and equally common in both classes.",
    )

    def prepare(self) -> None:
        """Generate the images unless they exist."""
        patients = {str(part): n for part, n in self.patients.items()}
        write_mura(self.folder, seed=self.seed, patients=patients, abnormal=self.abnormal)

    def manifest(self) -> Manifest:
        """Like the real dataset's, plus the outlines of the fractures."""
        manifest = super().manifest()
        outlines = read_polygons(manifest.root)
        polygons = [
            [{"label": "abnormal", "points": points} for points in outlines.get(path, [])] or None
            for path in manifest.table["path"]
        ]
        table = manifest.table.assign(polygons=pd.Series(polygons, dtype=object))
        return replace(manifest, table=with_manifest_types(table))


@dataclass(kw_only=True)
class UpperLimbPhantom(UpperLimb):
    """Generates a missing dataset in the six-class layout and reads it like the real one.

    seed: another seed gives other patients. counts: labeled images in train, val and test.
    unlabeled: further images with an empty label file, as a share of the labeled ones. context:
    "part" shows the broken body part; "wide", in a folder of its own in `root`, its neighbors as
    well, so that only the fracture decides the label.
    """

    seed: Annotated[int, Field(ge=0)] = 0
    counts: Mapping[Literal["train", "val", "test"], Count] = field(
        default_factory=lambda: {"train": 800, "val": 120, "test": 192}
    )
    unlabeled: Annotated[float, Field(ge=0, le=2)] = 0.1
    context: Literal["part", "wide"] = "part"

    name = "upper_limb_phantom"
    license = LICENSE
    citation = CITATION
    notes = (f"upper_limb_phantom: {NOTE}",)

    @property
    def folder(self) -> Path:
        """`root`, or its subfolder for the images with context."""
        return super().folder / "wide" if self.context == "wide" else super().folder

    def prepare(self) -> None:
        """Generate the images unless they exist."""
        counts = {str(split): n for split, n in self.counts.items()}
        write_upper_limb(
            self.folder,
            seed=self.seed,
            counts=counts,
            unlabeled=self.unlabeled,
            context=self.context,
        )
