"""What the scores of `localisation` mean, in sentences."""

from collections.abc import Mapping, Sequence
from typing import Any

from fracnet.explaining.means import told as number
from fracnet.explaining.scores import TOLERANCE
from fracnet.words import counted

METHOD_NAMES = {
    "gradcam": "Grad-CAM",
    "hirescam": "HiResCAM",
    "gradcam++": "Grad-CAM++",
    "eigencam": "Eigen-CAM",
}
AGNOSTIC = (
    "Eigen-CAM knows no class: it shows what the layer holds most of, not what speaks for a class."
)
SCORE_NAMES = {
    "pointing": "the pointing game",
    "near": "the pointing game with tolerance",
    "energy": "energy inside",
    "iou": "overlap",
}
BASELINE_NAMES = {
    "centre": "a guess at the centre",
    "edges": "an edge detector",
    "chance": "chance",
}


def verdict(told: Mapping[str, Any]) -> str:
    """better, mixed or not better: in all, some or none of the scores than every baseline.

    Better is a difference whose interval lies above 0.
    """
    won = _won(told)
    if len(won) == len(told["scores"]):
        return "better"
    return "mixed" if won else "not better"


def sentences(told: Mapping[str, Any], classes: Sequence[str], task: str) -> list[str]:
    """The verdict, the figures behind it, and what one must know to read them."""
    return [*_verdict(told), *_figures(told), *_limits(told, classes, task)]


def _won(told: Mapping[str, Any]) -> list[str]:
    """Scores in which the heatmaps are better than every baseline."""
    gaps = told["differences"].values()
    return [name for name in told["scores"] if all((of[name]["low"] or 0) > 0 for of in gaps)]


def _verdict(told: Mapping[str, Any]) -> list[str]:
    maps = f"The heatmaps ({METHOD_NAMES[told['method']]})"
    others = " and ".join([", ".join(list(BASELINE_NAMES.values())[:-1]), "chance"])
    won = [SCORE_NAMES[name] for name in _won(told)]
    lost = [SCORE_NAMES[name] for name in told["scores"] if SCORE_NAMES[name] not in won]
    if told["verdict"] == "better":
        said = [f"{maps} find what is marked better than {others}, by every score."]
    elif told["verdict"] == "mixed":
        said = [
            f"{maps} find what is marked better than {others} by {_and(won)}, but that is not "
            f"shown by {_and(lost)}."
        ]
    else:
        said = [f"{maps} are not shown to find what is marked better than {others}."]
    for name, of in told["differences"].items():
        worse = [SCORE_NAMES[key] for key in of if (of[key]["high"] or 0) < 0]
        if worse:
            said.append(f"By {_and(worse)} they are worse than {BASELINE_NAMES[name]}.")
    return said


def _figures(told: Mapping[str, Any]) -> list[str]:
    n, cuts = told["images"], told["cuts"]
    what = {
        "pointing": "The highest place of the true class's map lies in a mark in {} of them",
        "near": f"it lies in a mark or within {100 * TOLERANCE:.1f} % of the image's side of one "
        "in {}",
        "energy": "of all that the map shows, {} lies in the marks on average",
        "iou": "cut at {} of its maximum, it overlaps with the marks by {} (intersection over "
        "union)",
    }
    from_whom = "" if told["unit"] == "image" else f" of {_units(told)}"
    said = [
        f"Measured on {counted(n, 'marked image')}{from_whom} of the test split; the marks cover "
        f"{100 * told['area']:.1f} % of an image on average."
    ]
    for key, figure in told["scores"].items():
        own = (f"{cuts['map']:.2f}", number(figure)) if key == "iou" else (number(figure),)
        words = what[key].format(*own)
        baselines = ", ".join(f"{name} {number(of[key])}" for name, of in told["baselines"].items())
        said.append(f"{words[0].upper()}{words[1:]}; {baselines}.")
    if cuts:
        said.append(
            f"Where to cut was chosen on {counted(cuts['images'], 'marked validation image')}, "
            "for each kind of map by itself. Chance is a map that is the same everywhere."
        )
    else:
        said.append(
            "No validation image is marked, so there is nothing to choose a cut by, and no overlap."
        )
    return said


def _limits(told: Mapping[str, Any], classes: Sequence[str], task: str) -> list[str]:
    said = []
    if told["marked"] > told["images"]:
        said.append(
            f"These are {told['images']} of {told['marked']} marked test images, drawn at random."
        )
    if told["empty"]:
        said.append(
            f"{counted(told['empty'], 'heatmap')} of them showed nothing for the true class, and "
            "count as missing the marks."
        )
    if told["method"] == "eigencam":
        said.append(AGNOSTIC)
    if task == "multiclass":
        said.append(
            f"The classes are {_and(list(classes))}, so a map explains what tells one of them from "
            "the others, such as the body part, and not the marks as such."
        )
    return said


def _units(told: Mapping[str, Any]) -> str:
    unit = told["unit"]
    return counted(told["units"], unit if "," not in unit else f"cluster by {unit}")


def _and(names: Sequence[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
