"""Upper arm and forearm: humerus, radius and ulna, in mm for a patient of size 1."""

import numpy as np

from fracnet.data.phantom.body import Body, Bone, Build
from fracnet.data.phantom.solids import Ball
from fracnet.data.phantom.space import Frame

ELBOW = (0.0, 310.0, 5.0)  # joint centre in the humerus' frame
WRIST = (1.0, 256.5, 0.0)  # joint centre in the forearm's frame
HEAD = (-14.0, 15.0, 0.0)  # centre of the humeral head in the humerus' frame


def upper_arm(build: Build, frame: Frame) -> Body:
    """The humerus and the flesh around it; `frame` begins at the top of the greater tubercle."""
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
    head = build.ball(frame, HEAD, (22.5, 22.5, 22.5), cortex=1.2, spongy=0.9)
    trochlea = build.ball(frame, (-10, 311, 5), (12, 11.5, 11.5), cortex=1.2)
    capitellum = build.ball(frame, (11, 310, 7), (10.5, 10.5, 10.5), cortex=1.2)
    fossa = Ball(Frame(frame.point(-1, 291, 1), frame.axes), (9, 7.5, 7), carve=0.75)
    flesh = build.wrap(
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
    return Body([Bone("humerus", [shaft, head, trochlea, capitellum, fossa])], [flesh])


def forearm(build: Build, frame: Frame) -> Body:
    """Radius and ulna; `frame` begins at the elbow's centre, its front is the palm's side."""
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
    notch = Ball(Frame(frame.point(-8, 0, 0), frame.axes), (15, 12.8, 12.8), carve=1.0)
    flesh = build.wrap(
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
    return Body([Bone("radius", [radius]), Bone("ulna", [ulna, notch, styloid])], [flesh])


def straight(origin: tuple[float, float, float] = (0.0, 0.0, 0.0)) -> Frame:
    """A frame with side = x, along = y, front = z."""
    return Frame(np.array(origin), np.eye(3))
