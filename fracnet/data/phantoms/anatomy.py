"""Bones and soft tissue, in mm for a patient of size 1."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from fracnet.data.phantoms.geometry import Ellipsoid, Frame, Rods, Sheet, Tube

Part = Tube | Ellipsoid | Sheet | Rods


@dataclass(frozen=True)
class Build:
    """The differences between patients; all are factors around 1.

    size: whole body; girth: bone width for its length; cortex: shell thickness; density: mineral;
    soft_tissue: its thickness. jitter draws the small irregularities of single bones.
    """

    size: float
    girth: float
    cortex: float
    density: float
    soft_tissue: float
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
            soft_tissue=float(rng.uniform(0.8, 1.3)),
            jitter=rng,
        )

    def tube(
        self, frame: Frame, rows: Sequence[Sequence[float]], caps: tuple[float, float] = (4.0, 4.0)
    ) -> Tube:
        """A bone's tube from rows (along, side center, side half, front center, front half,
        cortex, spongy), with this patient's girth and cortex and a little irregularity.
        """
        table = np.array(rows, dtype=np.float64)
        wave = 1 + 0.025 * self.jitter.standard_normal(table.shape)
        table[:, [2, 4]] *= self.girth * wave[:, [2, 4]]
        table[:, 5] *= self.cortex * wave[:, 5]
        table[:, 6] *= wave[:, 6]
        return Tube(frame, table, caps)

    def ellipsoid(
        self,
        frame: Frame,
        at: tuple[float, float, float],
        semi: tuple[float, float, float],
        *,
        cortex: float = 1.0,
        spongy: float = 1.0,
        rough: float = 0.0,
    ) -> Ellipsoid:
        """A bone's ellipsoid at a local point; `rough` perturbs its outline."""
        local = Frame(frame.point(*at), frame.axes)
        radii = (semi[0] * self.girth, semi[1] * self.girth, semi[2] * self.girth)
        wobble = tuple(float(x) for x in rough * self.jitter.uniform(-1, 1, 3)) if rough else ()
        return Ellipsoid(local, radii, cortex * self.cortex, spongy, wobble)

    def wrap(
        self,
        frame: Frame,
        rows: Sequence[Sequence[float]],
        cap: float = 8.0,
        stout: float = 1.0,
    ) -> Tube:
        """Soft tissue from rows (along, side center, side half, front center, front half).

        The tube's shell is the fat under the skin, thicker in stouter patients; stout: how strongly
        the patient's stoutness shows here.
        """
        table = np.array([[*row, 0.0, 0.0] for row in rows], dtype=np.float64)
        table[:, [2, 4]] *= self.soft_tissue**stout * (
            1 + 0.03 * self.jitter.standard_normal((len(rows), 2))
        )
        table[:, 5] = 0.16 * self.soft_tissue**2 * table[:, [2, 4]].min(axis=1)
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
    """A posed part of the patient. gas: air-filled parts (lung)."""

    bones: list[Bone] = field(default_factory=list)
    soft_tissue: list[Part] = field(default_factory=list)
    gas: list[Part] = field(default_factory=list)

    def add(self, other: "Body") -> None:
        """Add the parts of another body."""
        self.bones += other.bones
        self.soft_tissue += other.soft_tissue
        self.gas += other.gas

    def bone(self, name: str) -> Bone:
        """The bone of that name."""
        return next(bone for bone in self.bones if bone.name == name)


ELBOW = (0.0, 310.0, 5.0)  # joint center in the frame of the humerus
WRIST = (1.0, 256.5, 0.0)  # joint center in the forearm's frame
HEAD = (-14.0, 15.0, 0.0)  # center of the humeral head in the humerus' frame


def upper_arm(build: Build, frame: Frame) -> Body:
    """The humerus and its soft tissue; `frame` begins at the top of the greater tubercle."""
    rows = [
        (0, 5, 12, 0, 12, 1.0, 1.0),
        (10, 4, 18, 0, 17, 1.0, 0.9),
        (25, 1, 20, 0, 19, 1.2, 0.8),
        (45, 1, 16, 0, 16, 1.8, 0.6),
        (80, 0.5, 12.5, 0, 12.5, 3.4, 0.3),
        (150, 0, 11, 0, 11, 4.4, 0.15),
        (225, 0, 11, 0, 10, 4.0, 0.2),
        (258, -0.5, 14, 0, 9.5, 2.8, 0.45),
        (280, -1, 22, 2, 8.5, 1.6, 0.7),
        (296, -2.5, 31, 4, 8, 1.2, 0.8),
        (306, -1.5, 26, 5, 9, 1.0, 0.9),
        (318, -1, 20, 5, 8, 1.0, 0.9),
    ]
    shaft = build.tube(frame, rows, caps=(10, 6))
    head = build.ellipsoid(frame, HEAD, (22.5, 22.5, 22.5), cortex=1.2, spongy=0.9)
    trochlea = build.ellipsoid(frame, (-10, 311, 5), (12, 11.5, 11.5), cortex=1.2)
    capitellum = build.ellipsoid(frame, (11, 310, 7), (10.5, 10.5, 10.5), cortex=1.2)
    fossa = Ellipsoid(Frame(frame.point(-1, 291, 1), frame.axes), (9, 7.5, 7), carve=0.75)
    soft_tissue = build.wrap(
        frame,
        [
            (-30, -4, 40, 0, 42),
            (30, 2, 50, 0, 50),
            (120, 0, 45, 0, 46),
            (220, 0, 40, 0, 41),
            (290, 0, 41, -2, 34),
            (345, 0, 39, -2, 33),
        ],
        cap=30,
    )
    return Body([Bone("humerus", [shaft, head, trochlea, capitellum, fossa])], [soft_tissue])


def forearm(build: Build, frame: Frame) -> Body:
    """Radius and ulna; `frame` begins at the elbow's center, its front is the palm's side."""
    radius = build.tube(
        frame,
        [
            (12.5, 10.5, 9, 0, 9, 0.9, 0.9),
            (16, 10.5, 11, 0, 11, 1.0, 0.9),
            (22, 10.5, 9.5, 0, 9.5, 1.2, 0.7),
            (30, 10, 6.6, 0, 6.6, 1.8, 0.5),
            (42, 8.5, 8.2, 0, 7.5, 2.2, 0.4),
            (58, 10, 7, 0, 7, 2.6, 0.25),
            (115, 15.5, 7.4, 1, 6.5, 3.0, 0.12),
            (175, 14, 7.6, 1, 6.5, 2.6, 0.2),
            (212, 11, 9, 0, 8, 1.8, 0.55),
            (232, 8.5, 13.5, 0, 10.5, 1.0, 0.85),
            (246, 8, 16.8, 0, 11, 0.9, 1.0),
            (253, 10.5, 14, 0, 10, 0.9, 1.0),
            (259, 16, 8, 0, 7, 0.9, 0.9),
        ],
        caps=(2.5, 5),
    )
    ulna = build.tube(
        frame,
        [
            (-17, -8, 9, -14, 7, 1.2, 0.9),
            (-5, -8, 11, -16, 8.5, 1.6, 0.8),
            (6, -8.5, 11, -13, 11, 1.6, 0.8),
            (13, -9, 10.5, -9, 14.5, 1.4, 0.8),
            (20, -9.5, 9, -8.5, 13.5, 1.6, 0.7),
            (34, -9.5, 7.6, -11, 9.5, 2.2, 0.5),
            (80, -10, 7.2, -10, 7.4, 2.9, 0.2),
            (145, -13, 6.6, -6, 6.6, 2.9, 0.12),
            (205, -14, 5.6, -2, 5.6, 2.2, 0.25),
            (235, -14, 5.4, 0, 5.4, 1.6, 0.6),
            (248, -14, 7.8, 0, 7.4, 1.0, 0.9),
            (255, -14, 8.4, 0, 7.6, 0.9, 0.9),
        ],
        caps=(4, 3),
    )
    styloid = build.tube(
        frame,
        [(248, -18, 4, 0, 4, 0.8, 0.7), (262, -19.5, 2.2, 0, 2.2, 0.7, 0.7)],
        caps=(1, 3),
    )
    notch = Ellipsoid(Frame(frame.point(-8, 0, 0), frame.axes), (15, 12.8, 12.8), carve=1.0)
    soft_tissue = build.wrap(
        frame,
        [
            (-35, 0, 38, -2, 33),
            (30, 0, 44, -2, 39),
            (110, 0, 40, -1, 35),
            (200, -1, 30, 0, 24),
            (245, -1, 27.5, 0, 19),
            (282, 0, 27, 0, 17),
        ],
        cap=20,
        stout=0.6,
    )
    return Body([Bone("radius", [radius]), Bone("ulna", [ulna, notch, styloid])], [soft_tissue])


def upright_frame() -> Frame:
    """A frame with side = x, along = y, front = z."""
    return Frame(np.zeros(3), np.eye(3))


def shoulder_girdle(build: Build) -> Body:
    """Scapula, clavicle, upper ribs and the soft tissue of the trunk with the lung.

    Coordinates are those of a hanging humerus: x lateral, y down, z forward, origin at the top of
    the greater tubercle.
    """
    trunk_frame = upright_frame()
    blade = Sheet(
        np.array(
            [
                (-46, 2, -8),
                (-60, -8, -12),
                (-88, -16, -22),
                (-116, -14, -30),
                (-122, 20, -34),
                (-118, 60, -36),
                (-110, 100, -34),
                (-101, 128, -32),
                (-93, 126, -30),
                (-78, 85, -22),
                (-60, 48, -14),
                (-46, 34, -8),
            ],
            dtype=float,
        ),
        thickness=2.2,
        rim=4.5,
    )
    neck = build.tube(
        trunk_frame.rotated(2, 90.0, (-39.0, 16.0, -3.0)),
        [
            (0, 0, 16, 0, 12, 1.4, 0.9),
            (4, 0, 17, 0, 12, 1.2, 0.9),
            (14, 1, 12, 0, 7, 1.4, 0.6),
            (30, 2, 10, 0, 4, 1.2, 0.4),
            (52, 4, 9, 0, 1.5, 0.6, 0.3),
        ],
        caps=(2, 22),
    )
    spine = build.tube(
        frame_towards((-116, 22, -38), (-8, -17, -20)),
        [
            (0, 0, 3, 0, 3, 1.2, 0.6),
            (50, 0, 4.5, 0, 7, 1.6, 0.5),
            (85, 0, 6.5, 0, 9, 1.6, 0.6),
            (108, 0, 9, 0, 9, 1.5, 0.8),
            (124, 0, 9, 0, 8, 1.4, 0.8),
        ],
        caps=(5, 8),
    )
    coracoid = build.tube(
        frame_towards((-58, -2, 2), (-34, 4, 26)),
        [(0, 0, 8, 0, 7, 1.4, 0.6), (22, 0, 6, 0, 6, 1.4, 0.6), (36, 0, 6, 0, 5, 1.2, 0.7)],
        caps=(5, 5),
    )
    border = Rods(
        (np.array([(-48, 30, -8), (-60, 56, -14), (-76, 88, -22), (-94, 122, -31)], dtype=float),),
        4.6,
        1.8,
        0.5,
    )
    clavicle = build.tube(
        frame_towards((-14, -20, -14), (-156, -30, 20)),
        [
            (0, 0, 7.5, -2, 6, 1.2, 0.7),
            (25, 0, 6.2, -5, 5, 1.8, 0.4),
            (60, 1, 5.4, -4, 5.4, 2.4, 0.25),
            (100, -2, 5.6, 6, 6, 2.2, 0.3),
            (135, -2, 8, 6, 8, 1.2, 0.7),
            (146, -1, 10, 4, 10, 1.0, 0.8),
        ],
        caps=(4, 4),
    )
    ribs = Bone("ribs", [Rods(tuple(rib(k) for k in range(7)), 4.6, 0.9, 0.4)])
    trunk = build.wrap(
        trunk_frame,
        [
            (-95, -190, 30, 0, 30),
            (-62, -160, 75, 0, 42),
            (-30, -125, 128, -5, 50),
            (30, -135, 118, -5, 62),
            (110, -150, 92, 0, 72),
            (260, -165, 84, 0, 74),
            (420, -165, 88, 0, 70),
        ],
        cap=20,
    )
    lung = Ellipsoid(Frame(np.array([-152.0, 135.0, 0.0]), np.eye(3)), (70, 150, 62))
    return Body(
        [
            Bone("clavicle", [clavicle]),
            Bone("scapula", [neck, blade, border, spine, coracoid]),
            ribs,
        ],
        [trunk],
        [lung],
    )


def frame_towards(start: tuple[float, float, float], end: tuple[float, float, float]) -> Frame:
    """A frame at `start` whose axis points to `end`."""
    origin = np.array(start, dtype=float)
    along = np.array(end, dtype=float) - origin
    along /= np.linalg.norm(along)
    side = np.cross(along, [0.0, 0.0, 1.0])
    side /= np.linalg.norm(side)
    return Frame(origin, np.array([side, along, np.cross(side, along)]))


def rib(k: int) -> np.ndarray:
    """Path [n, 3] of the k-th rib from the spine round the side to the front."""
    turn = np.linspace(0.08, 0.92, 40) * np.pi
    width = (62.0, 86.0, 104.0, 116.0, 123.0, 127.0, 130.0)[k]
    x = -207 + width * np.sin(turn) ** 0.85
    y = -52 + 25 * k + (34 + 7 * k) * (turn / np.pi) ** 1.25 - 8 * np.sin(turn)
    return np.column_stack([x, y, -84 * np.cos(turn)])


CARPALS = {
    "scaphoid": ((12.5, 8.5, 2.0), (7.2, 12.0, 7.5), 36.0),
    "lunate": ((-2.5, 6.6, 0.0), (8.2, 7.4, 8.5), 0.0),
    "triquetrum": ((-15.5, 9.5, -3.0), (6.6, 8.0, 6.5), 30.0),
    "pisiform": ((-17.0, 12.0, 8.0), (4.8, 5.4, 4.6), 0.0),
    "trapezium": ((21.5, 22.0, 4.0), (7.4, 7.6, 7.5), 20.0),
    "trapezoid": ((11.4, 24.0, 0.0), (5.6, 7.4, 7.5), 0.0),
    "capitate": ((0.6, 21.0, 0.0), (7.2, 12.4, 8.5), 0.0),
    "hamate": ((-11.2, 22.0, 2.0), (8.2, 9.6, 8.5), -18.0),
}
"""name: (side, along, front), semi-axes, rotation in degrees about the front axis"""

METACARPALS = {
    1: (24.0, 29.5, 34.0, 44.0, 6.2),
    2: (12.5, 32.5, 8.0, 66.0, 5.0),
    3: (1.0, 34.5, 0.5, 63.0, 4.9),
    4: (-9.0, 33.0, -7.0, 56.0, 4.3),
    5: (-18.0, 31.0, -15.0, 52.0, 4.5),
}
"""digit: base (side, along), fan in degrees (positive towards the thumb), length, half-width"""

PHALANGES = {
    1: (31.0, 22.0),
    2: (40.0, 24.0, 17.5),
    3: (44.0, 28.0, 18.0),
    4: (41.0, 27.0, 18.0),
    5: (32.0, 19.0, 16.0),
}
"""digit: lengths from proximal to distal"""
LEVELS = {2: ("proximal", "distal"), 3: ("proximal", "middle", "distal")}


def hand(
    build: Build,
    frame: Frame,
    *,
    digits: tuple[int, ...] = (1, 2, 3, 4, 5),
    spread: float = 1.0,
    curl: float = 5.0,
) -> Body:
    """The hand; `frame` begins at the wrist's center, its front is the palm.

    digits: those on the detector (the others are bent out of the field beyond the knuckle).
    spread: factor on the fan of the fingers; curl: flexion of each joint in degrees.
    """
    body = Body()
    for name, (at, semi, turn) in CARPALS.items():
        carpal = frame.rotated(2, -turn, at)
        body.bones.append(
            Bone(
                name,
                [build.ellipsoid(carpal, (0, 0, 0), semi, cortex=0.75, spongy=0.8, rough=0.07)],
            )
        )
    for digit, (side, along, fan, length, half) in METACARPALS.items():
        root = frame.rotated(2, -fan, (side, along, 0.0))
        if digit == 1:
            root = root.rotated(1, 40.0, (0.0, 0.0, 0.0))
        body.bones.append(long_bone(build, f"metacarpal {digit}", root, length, half, head=1.22))
        if digit in digits:
            body.add(finger(build, digit, root, length, half, spread, curl))
    palm = [
        (-30, -1, 29, 0, 18),
        (12, 0, 29, 0, 16),
        (50, -2, 34, 0, 15),
        (86, -4, 36, 0, 12),
        (114, -5, 33, 0, 7),
    ]
    thenar = frame.rotated(2, -30.0, (14.0, 18.0, 0.0))
    body.soft_tissue += [
        build.wrap(frame, palm, cap=22, stout=0.5),
        build.wrap(
            thenar, [(-12, 0, 15, 3, 13), (25, 2, 15, 3, 12), (52, 3, 11, 0, 10)], cap=12, stout=0.5
        ),
    ]
    return body


def finger(
    build: Build, digit: int, root: Frame, length: float, half: float, spread: float, curl: float
) -> Body:
    """The phalanges beyond a metacarpal whose frame is `root`."""
    body = Body()
    lengths = PHALANGES[digit]
    fan = (3 - digit) * 2.0 * (spread - 1) if digit > 1 else 6.0 * (spread - 1)
    joint = root.rotated(2, -fan, (0.0, length + 1.6, 0.0))
    for level, span in zip(LEVELS[len(lengths)], lengths, strict=True):
        joint = joint.rotated(0, curl, (0.0, 0.0, 0.0))
        half *= 0.86
        last = level == "distal"
        body.bones.append(
            tuft(build, f"distal {digit}", joint, span, half)
            if last
            else long_bone(build, f"{level} {digit}", joint, span, half, head=1.12)
        )
        body.soft_tissue.append(
            build.wrap(
                joint,
                [
                    (-6, 0, half + 4.6, 0, half + 4.4),
                    (span * 0.5, 0, half + 3.4, 0, half + 3.6),
                    (span + (4 if last else 3), 0, half + (2.2 if last else 3.6), 0, half + 2.5),
                ],
                cap=7 if last else 2,
                stout=0.5,
            )
        )
        joint = joint.rotated(0, 0.0, (0.0, span + 1.4, 0.0))
    return body


def long_bone(
    build: Build, name: str, frame: Frame, length: float, half: float, *, head: float
) -> Bone:
    """A metacarpal or phalanx: broad base, waisted shaft, two-condyled head."""
    rows = [
        (0.0, 0, 1.30 * half, 0, 1.15 * half, 0.8, 0.9),
        (0.08, 0, 1.34 * half, 0, 1.2 * half, 0.8, 0.9),
        (0.22, 0, 1.0 * half, 0, 0.95 * half, 0.28 * half, 0.5),
        (0.5, 0, 0.76 * half, 0.1 * half, 0.78 * half, 0.36 * half, 0.2),
        (0.74, 0, 0.86 * half, 0, 0.84 * half, 0.26 * half, 0.5),
        (0.9, 0, head * half, 0, 1.1 * half, 0.8, 0.9),
        (1.0, 0, head * 0.94 * half, 0, 1.05 * half, 0.8, 0.9),
    ]
    return Bone(
        name,
        [build.tube(frame, [(r[0] * length, *r[1:]) for r in rows], (0.22 * half, 0.75 * half))],
    )


def tuft(build: Build, name: str, frame: Frame, length: float, half: float) -> Bone:
    """A distal phalanx: broad base, thin shaft, ungual tuft."""
    rows = [
        (0.0, 0, 1.25 * half, 0, 1.1 * half, 0.7, 0.9),
        (0.12, 0, 1.25 * half, 0, 1.1 * half, 0.7, 0.9),
        (0.45, 0, 0.68 * half, 0, 0.62 * half, 0.32 * half, 0.3),
        (0.68, 0, 0.6 * half, 0, 0.55 * half, 0.3 * half, 0.3),
        (0.86, 0, 0.85 * half, 0, 0.55 * half, 0.7, 0.9),
        (1.0, 0, 0.75 * half, 0, 0.45 * half, 0.7, 0.9),
    ]
    return Bone(
        name,
        [build.tube(frame, [(r[0] * length, *r[1:]) for r in rows], (0.25 * half, 0.5 * half))],
    )
