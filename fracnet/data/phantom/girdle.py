"""Shoulder girdle and chest wall: scapula, clavicle, ribs, lung; mm, patient of size 1.

Coordinates are those of a hanging humerus: x lateral, y down, z forward, origin at the top of the
greater tubercle.
"""

import numpy as np

from fracnet.data.phantom.arm import straight
from fracnet.data.phantom.body import Body, Bone, Build
from fracnet.data.phantom.solids import Ball, Cord, Sheet
from fracnet.data.phantom.space import Frame


def girdle(build: Build) -> Body:
    """Scapula, clavicle, upper ribs and the trunk's flesh with the lung in it."""
    here = straight()
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
        here.turned(2, 90.0, (-39.0, 16.0, -3.0)),
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
        aim((-116, 22, -38), (-8, -17, -20)),
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
        aim((-58, -2, 2), (-34, 4, 26)),
        [(0, 0, 8, 0, 7, 1.4, 0.6), (22, 0, 6, 0, 6, 1.4, 0.6), (36, 0, 6, 0, 5, 1.2, 0.7)],
        caps=(5, 5),
    )
    border = Cord(
        (np.array([(-48, 30, -8), (-60, 56, -14), (-76, 88, -22), (-94, 122, -31)], dtype=float),),
        4.6,
        1.8,
        0.5,
    )
    clavicle = build.tube(
        aim((-14, -20, -14), (-156, -30, 20)),
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
    ribs = Bone("ribs", [Cord(tuple(rib(k) for k in range(7)), 4.6, 0.9, 0.4)])
    trunk = build.wrap(
        here,
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
    lung = Ball(Frame(np.array([-152.0, 135.0, 0.0]), np.eye(3)), (70, 150, 62))
    return Body(
        [
            Bone("clavicle", [clavicle]),
            Bone("scapula", [neck, blade, border, spine, coracoid]),
            ribs,
        ],
        [trunk],
        [lung],
    )


def aim(start: tuple[float, float, float], end: tuple[float, float, float]) -> Frame:
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
