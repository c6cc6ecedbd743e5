"""Predicting new images with a finished run."""

CAUTION = (
    "Research use only, not a medical device: these predictions are the output of an experiment "
    "and never a diagnosis."
)
