"""Names of heatmap methods, scores and baselines; this module does not import torch."""

LOCALIZATION = "localization"
"""The method whose maps come from the head that was trained to find the annotations."""
METHOD_NAMES = {
    "gradcam": "Grad-CAM",
    "hirescam": "HiResCAM",
    "gradcam++": "Grad-CAM++",
    "eigencam": "Eigen-CAM",
    LOCALIZATION: "the localization head",
}
CLASS_AGNOSTIC = ("eigencam", LOCALIZATION)
SCORE_NAMES = {
    "pointing": "the pointing game",
    "pointing_tolerance": "the pointing game with tolerance",
    "energy": "energy inside",
    "iou": "overlap",
}
BASELINE_NAMES = {
    "center": "a guess at the center",
    "edges": "an edge detector",
    "chance": "chance",
}
