"""From files to augmented batches: datasets, manifest, image reading, cache, augmentation."""

import os

# On import, albumentations asks the network whether a newer version exists. fracnet never goes
# online unasked, and the newer version has another license.
os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")
