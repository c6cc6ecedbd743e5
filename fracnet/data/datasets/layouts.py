"""Folder and class names of published datasets, for their readers and for the phantoms."""

MURA_FOLDER = "MURA-v1.1"

UPPER_LIMB_FOLDER = "BoneFractureYolo8"
UPPER_LIMB_CLASSES = ("elbow", "fingers", "forearm", "humerus", "shoulder", "wrist")
UPPER_LIMB_NAMES = (
    "elbow positive",
    "fingers positive",
    "forearm fracture",
    "humerus fracture",
    "humerus",
    "shoulder fracture",
    "wrist positive",
)
"""The names in data.yaml, by class id."""

UPPER_LIMB_MERGED = {name: name.split()[0] for name in UPPER_LIMB_NAMES}
"""Name -> class. "humerus" and "humerus fracture" are one: the set's exports swap the two names."""
