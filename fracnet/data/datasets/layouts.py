"""How published data sets name their folders and classes: for who reads them, and for phantoms."""

MURA_FOLDER = "MURA-v1.1"

UPPER_LIMB_FOLDER = "BoneFractureYolo8"
UPPER_LIMB_CLASSES = ("elbow", "fingers", "forearm", "humerus", "shoulder", "wrist")

# As data.yaml has them, by class id.
UPPER_LIMB_NAMES = (
    "elbow positive",
    "fingers positive",
    "forearm fracture",
    "humerus fracture",
    "humerus",
    "shoulder fracture",
    "wrist positive",
)

# "humerus" and "humerus fracture" are one class: the set's exports swap the two names.
UPPER_LIMB_MERGED = {name: name.split()[0] for name in UPPER_LIMB_NAMES}
