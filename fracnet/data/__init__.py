"""From files to augmented batches: sources, manifest, reading, preprocessing cache, augmentation."""

import os

# albumentations asks the network for a newer version of itself when it is imported; fracnet never
# goes online unasked, and the newer version is under another license.
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
