"""Pictures of a run and of runs side by side, each as PNG and SVG in the house style."""

from fracnet.report.figures.confusion import confusion_matrix
from fracnet.report.figures.difference import DifferenceRow, differences
from fracnet.report.figures.everything import draw_all, draw_confusion
from fracnet.report.figures.learning import curves

__all__ = [
    "DifferenceRow",
    "confusion_matrix",
    "curves",
    "differences",
    "draw_all",
    "draw_confusion",
]
