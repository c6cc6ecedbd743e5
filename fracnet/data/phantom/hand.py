"""Hand: eight carpals, five metacarpals, fourteen phalanges, in mm for a patient of size 1."""

from fracnet.data.phantom.body import Body, Bone, Build
from fracnet.data.phantom.space import Frame

# name: (side, along, front), semi-axes, turn in degrees about the front axis
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
# metacarpal: base (side, along), fan in degrees (towards the thumb is positive), length, half-width
METACARPALS = {
    1: (24.0, 29.5, 34.0, 44.0, 6.2),
    2: (12.5, 32.5, 8.0, 66.0, 5.0),
    3: (1.0, 34.5, 0.5, 63.0, 4.9),
    4: (-9.0, 33.0, -7.0, 56.0, 4.3),
    5: (-18.0, 31.0, -15.0, 52.0, 4.5),
}
# digit: lengths from proximal to distal
PHALANGES = {
    1: (31.0, 22.0),
    2: (40.0, 24.0, 17.5),
    3: (44.0, 28.0, 18.0),
    4: (41.0, 27.0, 18.0),
    5: (32.0, 19.0, 16.0),
}
LEVELS = {2: ("proximal", "distal"), 3: ("proximal", "middle", "distal")}


def hand(
    build: Build,
    frame: Frame,
    *,
    digits: tuple[int, ...] = (1, 2, 3, 4, 5),
    spread: float = 1.0,
    curl: float = 5.0,
) -> Body:
    """The hand; `frame` begins at the wrist's centre, its front is the palm.

    digits: those laid on the detector (the others are bent out of the field beyond their knuckle).
    spread: factor on the fan of the fingers; curl: flexion of each joint in degrees.
    """
    body = Body()
    for name, (at, semi, turn) in CARPALS.items():
        place = frame.turned(2, -turn, at)
        body.bones.append(
            Bone(name, [build.ball(place, (0, 0, 0), semi, cortex=0.75, spongy=0.8, rough=0.07)])
        )
    for digit, (side, along, fan, length, half) in METACARPALS.items():
        root = frame.turned(2, -fan, (side, along, 0.0))
        if digit == 1:
            root = root.turned(1, 40.0, (0.0, 0.0, 0.0))
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
    thenar = frame.turned(2, -30.0, (14.0, 18.0, 0.0))
    body.flesh += [
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
    place = root.turned(2, -fan, (0.0, length + 1.6, 0.0))
    for level, span in zip(LEVELS[len(lengths)], lengths, strict=True):
        place = place.turned(0, curl, (0.0, 0.0, 0.0))
        half *= 0.86
        last = level == "distal"
        body.bones.append(
            tuft(build, f"distal {digit}", place, span, half)
            if last
            else long_bone(build, f"{level} {digit}", place, span, half, head=1.12)
        )
        body.flesh.append(
            build.wrap(
                place,
                [
                    (-6, 0, half + 4.6, 0, half + 4.4),
                    (span * 0.5, 0, half + 3.4, 0, half + 3.6),
                    (span + (4 if last else 3), 0, half + (2.2 if last else 3.6), 0, half + 2.5),
                ],
                cap=7 if last else 2,
                stout=0.5,
            )
        )
        place = place.turned(0, 0.0, (0.0, span + 1.4, 0.0))
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
