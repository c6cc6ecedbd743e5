"""The patient's build and the vocabulary of anatomy: bones made of parts, flesh around them."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from fracnet.data.phantom.solids import Ball, Cord, Sheet
from fracnet.data.phantom.space import Frame
from fracnet.data.phantom.tubes import Tube

Part = Tube | Ball | Sheet | Cord


@dataclass(frozen=True)
class Build:
    """What tells one patient from another; all are factors around 1.

    size: whole body; girth: bone width for its length; cortex: shell thickness; density: mineral;
    flesh: thickness of soft tissue. jitter draws the small irregularities of single bones.
    """

    size: float
    girth: float
    cortex: float
    density: float
    flesh: float
    jitter: np.random.Generator

    @classmethod
    def draw(cls, rng: np.random.Generator) -> "Build":
        """A patient between a slight adolescent and a heavy adult, young to osteoporotic."""
        size = float(rng.uniform(0.82, 1.12))
        age = float(rng.uniform(0, 1))
        return cls(
            size=size,
            girth=float(rng.uniform(0.9, 1.12)),
            cortex=float(1.2 - 0.45 * age + rng.uniform(-0.1, 0.1)),
            density=float(1.1 - 0.3 * age + rng.uniform(-0.08, 0.08)),
            flesh=float(rng.uniform(0.8, 1.3)),
            jitter=rng,
        )

    def tube(
        self, frame: Frame, rows: Sequence[Sequence[float]], caps: tuple[float, float] = (4.0, 4.0)
    ) -> Tube:
        """A bone's tube from rows (along, side centre, side half, front centre, front half,
        cortex, spongy), with this patient's girth and cortex and a little irregularity.
        """
        table = np.array(rows, dtype=np.float64)
        wave = 1 + 0.025 * self.jitter.standard_normal(table.shape)
        table[:, [2, 4]] *= self.girth * wave[:, [2, 4]]
        table[:, 5] *= self.cortex * wave[:, 5]
        table[:, 6] *= wave[:, 6]
        return Tube(frame, table, caps)

    def ball(
        self,
        frame: Frame,
        at: tuple[float, float, float],
        semi: tuple[float, float, float],
        *,
        cortex: float = 1.0,
        spongy: float = 1.0,
        rough: float = 0.0,
    ) -> Ball:
        """A bone's ellipsoid at a local point; `rough` perturbs its outline."""
        place = Frame(frame.point(*at), frame.axes)
        radii = (semi[0] * self.girth, semi[1] * self.girth, semi[2] * self.girth)
        wobble = tuple(float(x) for x in rough * self.jitter.uniform(-1, 1, 3)) if rough else ()
        return Ball(place, radii, cortex * self.cortex, spongy, wobble)

    def wrap(
        self,
        frame: Frame,
        rows: Sequence[Sequence[float]],
        cap: float = 8.0,
        stout: float = 1.0,
    ) -> Tube:
        """Soft tissue from rows (along, side centre, side half, front centre, front half).

        The tube's shell is the fat under the skin, thicker in stouter patients; stout: how much of
        the patient's stoutness shows here.
        """
        table = np.array([[*row, 0.0, 0.0] for row in rows], dtype=np.float64)
        table[:, [2, 4]] *= self.flesh**stout * (
            1 + 0.03 * self.jitter.standard_normal((len(rows), 2))
        )
        table[:, 5] = 0.16 * self.flesh**2 * table[:, [2, 4]].min(axis=1)
        return Tube(frame, table, (cap, cap), planes=2)


@dataclass
class Bone:
    """A named bone: parts unite in order (a carving Ball cuts the ones before it).

    The first part is the one that fractures; `shaft` is its tube where there is one.
    """

    name: str
    parts: list[Part]

    @property
    def shaft(self) -> Tube:
        """The tube along which fractures are placed."""
        first = self.parts[0]
        assert isinstance(first, Tube), f"{self.name} has no shaft"
        return first


@dataclass
class Body:
    """A posed piece of the patient. gas: parts whose inside is air-filled (lung)."""

    bones: list[Bone] = field(default_factory=list)
    flesh: list[Part] = field(default_factory=list)
    gas: list[Part] = field(default_factory=list)

    def add(self, other: "Body") -> None:
        """Takes over what another piece holds."""
        self.bones += other.bones
        self.flesh += other.flesh
        self.gas += other.gas

    def bone(self, name: str) -> Bone:
        """The bone of that name."""
        return next(bone for bone in self.bones if bone.name == name)
