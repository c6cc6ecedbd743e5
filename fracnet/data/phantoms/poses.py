"""What is in the field, how it is posed, where it may break: seven regions, four wide scenes."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from fracnet.data.phantoms.anatomy import (
    ELBOW,
    HEAD,
    WRIST,
    Body,
    Build,
    forearm,
    hand,
    shoulder_girdle,
    upper_arm,
    upright_frame,
)
from fracnet.data.phantoms.geometry import Array, Frame

PROJECTIONS = ("frontal", "lateral", "oblique")


@dataclass(frozen=True)
class Site:
    """Where and how one bone may break: along its shaft from low to high (mm), in these kinds."""

    bone: str
    low: float
    high: float
    kinds: tuple[str, ...]


@dataclass
class Scene:
    """A posed body, the point [3] at the middle of the field, and the long side of the field in mm.

    turn: rotation of the beam about the y axis in degrees.
    """

    body: Body
    center: Array
    field: float
    turn: float
    sites: tuple[Site, ...]


SHAFT = ("transverse", "oblique", "spiral", "comminuted", "step", "angled")
END = ("transverse", "oblique", "impacted", "step")

SHOULDER_SITES = (
    Site("humerus", 34, 52, ("transverse", "oblique", "impacted", "comminuted", "step")),
    Site("humerus", 60, 95, SHAFT),
    Site("clavicle", 35, 100, ("transverse", "oblique", "comminuted", "step", "angled")),
    Site("clavicle", 110, 130, ("transverse", "oblique", "step")),
)
ELBOW_SITES = (
    Site("humerus", 270, 288, ("transverse", "oblique", "comminuted", "step")),
    Site("radius", 20, 30, ("transverse", "oblique", "impacted", "step")),
    Site("ulna", -9, 2, ("transverse", "oblique", "step")),
    Site("ulna", 28, 60, ("transverse", "oblique", "comminuted", "step")),
)
WRIST_SITES = (
    Site("radius", 226, 242, END),
    Site("radius", 205, 232, (*END, "buckle", "angled")),
    Site("ulna", 225, 243, ("transverse", "oblique", "step")),
)


def beam_angle(rng: np.random.Generator, projection: str, *degrees: float) -> float:
    """Rotation of the limb about its long axis, in degrees by projection, with some error."""
    return degrees[PROJECTIONS.index(projection)] + float(rng.normal(0, 4.5))


def shoulder(build: Build, rng: np.random.Generator, projection: str) -> Scene:
    """Glenohumeral joint with clavicle, scapula and upper ribs."""
    body = shoulder_girdle(build)
    hanging = upright_frame().rotated(2, -float(rng.uniform(2, 28)), HEAD)
    arm = hanging.rotated(1, float(rng.uniform(-45, 20)), (0.0, 0.0, 0.0))
    body.add(upper_arm(build, Frame(arm.point(-HEAD[0], -HEAD[1], -HEAD[2]), arm.axes)))
    turn = beam_angle(rng, projection, 0, 40, 22)
    return Scene(body, np.array([-38.0, 22.0, 0.0]), 235.0, turn, SHOULDER_SITES)


def humerus(build: Build, rng: np.random.Generator, projection: str) -> Scene:
    """The upper arm with the shoulder, the elbow or both at the ends of the field."""
    body = shoulder_girdle(build)
    # The arm rotates about its own axis; the chest stays in place.
    spin = float(rng.choice([-1, 1])) * beam_angle(rng, projection, 0, 78, 40)
    hanging = (
        upright_frame()
        .rotated(2, -float(rng.uniform(2, 15)), HEAD)
        .rotated(1, spin, (0.0, 0.0, 0.0))
    )
    frame = Frame(hanging.point(-HEAD[0], -HEAD[1], -HEAD[2]), hanging.axes)
    body.add(upper_arm(build, frame))
    bend = float(rng.uniform(0, 25)) if projection != "lateral" else float(rng.uniform(20, 85))
    body.add(forearm(build, frame.rotated(0, bend, ELBOW)))
    sites = (Site("humerus", 75, 235, SHAFT),)
    center = frame.point(0.0, float(rng.uniform(135, 185)), 0.0)
    return Scene(body, center, 345.0, float(rng.normal(0, 4)), sites)


def elbow(build: Build, rng: np.random.Generator, projection: str) -> Scene:
    """Distal humerus, proximal radius and ulna."""
    frame = upright_frame()
    body = upper_arm(build, frame)
    bend = float(rng.uniform(0, 18)) if projection != "lateral" else float(rng.uniform(65, 100))
    lower = frame.rotated(0, bend, ELBOW).rotated(2, -float(rng.uniform(0, 10)), (0.0, 0.0, 0.0))
    body.add(forearm(build, lower))
    aside = 14.0 if projection == "lateral" else 0.0
    center = frame.point(0.0, ELBOW[1] - aside * 0.3, ELBOW[2] + aside)
    return Scene(body, center, 175.0, beam_angle(rng, projection, 0, 86, 42), ELBOW_SITES)


def _forearm(build: Build, rng: np.random.Generator, bend: float) -> tuple[Body, Frame]:
    frame = upright_frame()
    body = forearm(build, frame)
    wrist = frame.rotated(0, bend, WRIST).rotated(2, float(rng.uniform(-10, 10)), (0, 0, 0))
    body.add(hand(build, wrist, curl=float(rng.uniform(2, 12)), spread=float(rng.uniform(1, 2))))
    return body, frame


def forearm_region(build: Build, rng: np.random.Generator, projection: str) -> Scene:
    """Radius and ulna from the elbow to the wrist."""
    body, frame = _forearm(build, rng, float(rng.uniform(-10, 10)))
    bend = float(rng.uniform(0, 20)) if projection != "lateral" else float(rng.uniform(60, 95))
    arm = frame.rotated(0, -bend, (0.0, 0.0, 0.0))
    origin = arm.point(-ELBOW[0], -ELBOW[1], -ELBOW[2])
    body.add(upper_arm(build, Frame(origin, arm.axes)))
    center = frame.point(0.0, float(rng.uniform(115, 150)), 0.0)
    sites = (Site("radius", 70, 215, SHAFT), Site("ulna", 60, 215, SHAFT))
    return Scene(body, center, 290.0, beam_angle(rng, projection, 0, 78, 40), sites)


def wrist(build: Build, rng: np.random.Generator, projection: str) -> Scene:
    """Distal radius and ulna, carpals, metacarpal bases."""
    body, frame = _forearm(build, rng, float(rng.uniform(-8, 8)))
    center = frame.point(0.0, WRIST[1] + float(rng.uniform(-10, 14)), 0.0)
    return Scene(body, center, 128.0, beam_angle(rng, projection, 0, 86, 42), WRIST_SITES)


def hand_region(build: Build, rng: np.random.Generator, projection: str) -> Scene:
    """The whole hand with the wrist."""
    body, frame = _forearm(build, rng, float(rng.uniform(-8, 8)))
    center = frame.point(2.0, WRIST[1] + 78, 0.0)
    sites = tuple(Site(f"metacarpal {k}", 10, 50, SHAFT) for k in (2, 3, 4, 5))
    sites += tuple(Site(f"proximal {k}", 6, 30, SHAFT) for k in (2, 3, 4, 5))
    return Scene(body, center, 205.0, beam_angle(rng, projection, 0, 70, 38), sites)


def fingers(build: Build, rng: np.random.Generator, projection: str) -> Scene:
    """One to three digits from the knuckle outwards."""
    # The patient decides which fingers: all views and studies show the same ones.
    first = int(build.jitter.integers(1, 6))
    count = 1 if first == 1 else int(build.jitter.integers(1, 4))
    digits = tuple(range(first, min(first + count, 6)))
    frame = upright_frame()
    curl = float(rng.uniform(0, 12))
    body = hand(build, frame, digits=digits, curl=curl, spread=float(rng.uniform(1, 3)))
    main = digits[len(digits) // 2]
    shaft = body.bone(f"proximal {main}").shaft
    center = shaft.frame.point(0.0, shaft.span()[1] + float(rng.uniform(-6, 8)), 0.0)
    turn = beam_angle(rng, projection, 0, 82, 40)
    return Scene(body, center, 105.0, turn, sites_of_digits(digits))


POSES: dict[str, Callable[[Build, np.random.Generator, str], Scene]] = {
    "elbow": elbow,
    "fingers": fingers,
    "forearm": forearm_region,
    "hand": hand_region,
    "humerus": humerus,
    "shoulder": shoulder,
    "wrist": wrist,
}


def sites_of_digits(digits: tuple[int, ...]) -> tuple[Site, ...]:
    """Where the phalanges of these digits may break."""
    sites: tuple[Site, ...] = ()
    for digit in digits:
        for level, low, high in (("proximal", 5, 28), ("middle", 5, 18), ("distal", 4, 12)):
            if not (digit == 1 and level == "middle"):
                sites += (Site(f"{level} {digit}", low, high, SHAFT),)
    return sites


WIDE_SITES = {
    "elbow": ELBOW_SITES,
    "fingers": sites_of_digits((2, 3, 4, 5)),
    "forearm": (Site("radius", 80, 190, SHAFT), Site("ulna", 85, 190, SHAFT)),
    "humerus": (Site("humerus", 120, 230, SHAFT),),
    "shoulder": SHOULDER_SITES,
    "wrist": WRIST_SITES,
}
"""Sites by region where neighboring regions are in view: no site belongs to two regions."""

WIDE_SCENES = {
    "hand": ("fingers", "wrist"),
    "lower arm": ("wrist", "forearm", "elbow"),
    "bent arm": ("forearm", "elbow", "humerus"),
    "upper arm": ("humerus", "shoulder"),
}
"""Regions that are in view together, any of which may be the broken one."""


def wide_scene(build: Build, rng: np.random.Generator, projection: str, name: str) -> Scene:
    """One of `WIDE_SCENES`, without sites: nothing in it depends on the region that breaks."""
    if name == "hand":
        scene = hand_region(build, rng, projection)
        scene.center, scene.field = scene.center - np.array([0.0, 28.0, 0.0]), 270.0
    elif name == "lower arm":
        scene = forearm_region(build, rng, projection)
        scene.field = 380.0
    elif name == "bent arm":
        scene = elbow(build, rng, projection)
        scene.field = 360.0
        if projection == "lateral":  # into the angle between the bones
            scene.center = scene.center + np.array([0.0, -45.0, 45.0])
    else:
        scene = humerus(build, rng, projection)
        scene.center = scene.center * np.array([1.0, 0.7, 1.0]) - np.array([12.0, 0.0, 0.0])
        scene.field = 370.0
    return replace(scene, sites=())
