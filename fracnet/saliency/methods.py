"""Names of heatmap methods, scores and baselines; this module does not import torch."""

METHOD_NAMES = {
    "gradcam": "Grad-CAM",
    "hirescam": "HiResCAM",
    "gradcam++": "Grad-CAM++",
    "eigencam": "Eigen-CAM",
}
CLASS_AGNOSTIC = ("eigencam",)
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
