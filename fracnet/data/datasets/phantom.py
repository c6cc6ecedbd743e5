"""The normal/abnormal task on generated radiographs: the files differ, the reading does not.

The six-class task on generated radiographs: the files differ, the reading does not.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, ClassVar

from pydantic import Field

from fracnet.data.datasets.mura import Mura
from fracnet.data.datasets.upper_limb import UpperLimb
from fracnet.data.manifest import Manifest, typed
from fracnet.data.phantoms.mura import polygons_of, write_mura
from fracnet.data.phantoms.upper_limb import write_upper_limb

MURA_PHANTOM_NOTE = (
    "mura_phantom: generated images, a cartoon of radiographs: its figures show that the pipeline "
    "works and say nothing about patients. Abnormal means here that a fracture is drawn, in every "
    "view of the study; hardware is no part of the label and equally common in both classes."
)

StudyCount = Annotated[int, Field(ge=1)]


@dataclass(kw_only=True)
class MuraPhantom(Mura):
    """Generates the set where it is not there, in MURA's layout, and reads it like the real one.

    seed: another seed, other patients. patients: of the official parts; valid is the test.
    abnormal: share of the studies.
    """

    seed: Annotated[int, Field(ge=0)] = 0
    patients: Mapping[str, StudyCount] = field(default_factory=lambda: {"train": 500, "valid": 160})
    abnormal: Annotated[float, Field(gt=0, lt=1)] = 0.45

    name: ClassVar[str] = "mura_phantom"
    license: ClassVar[str] = "MIT, as fracnet"
    citation: ClassVar[str] = "fracnet.data.phantoms"
    groups: ClassVar[str] = "the phantom's own patients and studies"
    notes: ClassVar[tuple[str, ...]] = (MURA_PHANTOM_NOTE,)

    def prepare(self) -> None:
        """Draw the images where they are not there yet."""
        write_mura(self.folder, seed=self.seed, patients=self.patients, abnormal=self.abnormal)

    def manifest(self) -> Manifest:
        """As the real set's, and with the outlines of the fractures, which that has not."""
        manifest = super().manifest()
        outlines = polygons_of(manifest.root)
        table = manifest.table.drop(columns="polygons")
        polygons: list[Any] = [
            [{"label": "abnormal", "points": points} for points in outlines[path]]
            if path in outlines
            else None
            for path in table["path"]
        ]
        table["polygons"] = polygons
        return replace(manifest, table=typed(table))


UPPER_LIMB_PHANTOM_NOTE = (
    "upper_limb_phantom: generated images, a cartoon of radiographs: its figures show that the "
    "pipeline works and say nothing about patients."
)

Count = Annotated[int, Field(ge=1)]


@dataclass(kw_only=True)
class UpperLimbPhantom(UpperLimb):
    """Generates the set where it is not there, in the real layout, and reads it like the real one.

    seed: another seed, other patients. counts: labeled images of train, val and test.
    unlabeled: further images with an empty label file, as a share of those.
    """

    seed: Annotated[int, Field(ge=0)] = 0
    counts: Mapping[str, Count] = field(
        default_factory=lambda: {"train": 800, "val": 120, "test": 192}
    )
    unlabeled: Annotated[float, Field(ge=0, le=2)] = 0.1

    name: ClassVar[str] = "upper_limb_phantom"
    license: ClassVar[str] = "MIT, as fracnet"
    citation: ClassVar[str] = "fracnet.data.phantoms"
    notes: ClassVar[tuple[str, ...]] = (UPPER_LIMB_PHANTOM_NOTE,)

    def prepare(self) -> None:
        """Draw the images where they are not there yet."""
        write_upper_limb(self.folder, seed=self.seed, counts=self.counts, unlabeled=self.unlabeled)
