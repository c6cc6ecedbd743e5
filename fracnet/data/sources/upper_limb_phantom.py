"""The six-class task on generated radiographs: the files differ, the reading does not."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, ClassVar

from pydantic import Field

from fracnet.data.phantom.upper_limb import write_upper_limb
from fracnet.data.sources.upper_limb import UpperLimb

PHANTOM_NOTE = (
    "upper_limb_phantom: generated images, a cartoon of radiographs: its figures show that the "
    "pipeline works and say nothing about patients."
)

Count = Annotated[int, Field(ge=1)]


@dataclass(kw_only=True)
class UpperLimbPhantom(UpperLimb):
    """Generates the set where it is not there, in the real layout, and reads it like the real one.

    seed: another seed, other patients. counts: labelled images of train, val and test.
    unlabelled: further images with an empty label file, as a share of those.
    """

    seed: Annotated[int, Field(ge=0)] = 0
    counts: Mapping[str, Count] = field(
        default_factory=lambda: {"train": 800, "val": 120, "test": 192}
    )
    unlabelled: Annotated[float, Field(ge=0, le=2)] = 0.1

    name: ClassVar[str] = "upper_limb_phantom"
    licence: ClassVar[str] = "MIT, as fracnet"
    citation: ClassVar[str] = "fracnet.data.phantom"
    notes: ClassVar[tuple[str, ...]] = (PHANTOM_NOTE,)

    def prepare(self) -> None:
        """Draw the images where they are not there yet."""
        write_upper_limb(
            self.folder, seed=self.seed, counts=self.counts, unlabelled=self.unlabelled
        )
