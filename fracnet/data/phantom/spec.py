"""What names one phantom image, and the random streams that follow from the names."""

from dataclasses import dataclass

import numpy as np

# Raised whenever the pixels of an unchanged Spec change.
VERSION = 1

REGIONS = ("elbow", "fingers", "forearm", "hand", "humerus", "shoulder", "wrist")

_STREAMS = (
    "patient",
    "study",
    "view",
    "fracture",
    "noise",
    "hardware",
    "display",
    "exposure",
    "file",
)


@dataclass(frozen=True)
class Spec:
    """Identifiers of one image. Equal specs give equal pixels.

    seed, patient: the anatomy (size, proportions, bone density). study: exposure, device, side,
    hardware, place and manner of the fracture. view: projection, rotation, framing; views count
    from 0: frontal, lateral, oblique, frontal again. fracture: whether the fracture is shown;
    nothing else depends on it.
    """

    region: str
    seed: int = 0
    patient: int = 0
    study: int = 0
    view: int = 0
    fracture: bool = False

    def __post_init__(self) -> None:
        assert self.region in REGIONS, f"region {self.region!r} is not one of {REGIONS}"
        assert min(self.seed, self.patient, self.study, self.view) >= 0

    def stream(self, name: str) -> np.random.Generator:
        """A generator of its own for one purpose, so that no draw shifts another purpose's.

        The region is no part of any key: it enters only where anatomy is built, so that scenery
        (noise, exposure, display) is drawn alike, draw by draw, for all regions.
        """
        key = {
            "patient": (self.patient,),
            "study": (self.patient, self.study),
            "fracture": (self.patient, self.study),
            "exposure": (self.patient, self.study),
            "hardware": (self.patient, self.study),
        }.get(name, (self.patient, self.study, self.view))
        words = np.random.SeedSequence([self.seed, _STREAMS.index(name), len(key), *key])
        return np.random.Generator(np.random.Philox(words))
