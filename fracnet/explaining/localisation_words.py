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
CLASS_AGNOSTIC = ("eigencam",)
# The score that the verdict is of, named before there are any figures: of several scores one wins
# by luck. The others are told besides.
PRIMARY = "pointing"
# With fewer marked images nothing can be told; with fewer to choose a cut by, not by the overlap.
FEWEST, FEWEST_VAL = 20, 5
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
    """better or not better than every baseline by the `PRIMARY` score; too few to tell.

    Better is a difference whose interval lies above 0.
    """
    if told["images"] < FEWEST:
        return "too few"
    return "better" if PRIMARY in _won(told) else "not better"


def sentences(told: Mapping[str, Any]) -> list[str]:
    """The verdict, the figures behind it, and what one must know to read them."""
    return [*_verdict(told), *_figures(told), *_limits(told)]


def _won(told: Mapping[str, Any]) -> list[str]:
    """Scores in which the heatmaps are better than every baseline."""
    gaps = told["differences"].values()
    return [name for name in _judged(told) if all((of[name]["low"] or 0) > 0 for of in gaps)]


def _judged(told: Mapping[str, Any]) -> list[str]:
    """Scores that say something: not the overlap, if its cut was chosen by a handful of images."""
    few = told["cuts"] and told["cuts"]["images"] < FEWEST_VAL
    return [name for name in told["scores"] if name != "iou" or not few]


def _verdict(told: Mapping[str, Any]) -> list[str]:
    maps = f"The heatmaps ({METHOD_NAMES[told['method']]})"
    others = " and ".join([", ".join(list(BASELINE_NAMES.values())[:-1]), "chance"])
    if told["verdict"] == "too few":
        return [
            f"It cannot be told whether the heatmaps ({METHOD_NAMES[told['method']]}) find what is "
            f"marked better than {others}: {counted(told['images'], 'marked test image')}, and at "
            f"least {FEWEST} are needed."
        ]
    shown = "find" if told["verdict"] == "better" else "are not shown to find"
    said = [f"{maps} {shown} what is marked better than {others}, by {SCORE_NAMES[PRIMARY]}."]
    besides = [SCORE_NAMES[name] for name in _won(told) if name != PRIMARY]
    if besides:
        said.append(f"Besides, they are better than all of these by {listed(besides)}.")
    for name, of in told["differences"].items():
        worse = [SCORE_NAMES[key] for key in _judged(told) if (of[key]["high"] or 0) < 0]
        if worse:
            said.append(f"By {listed(worse)} they are worse than {BASELINE_NAMES[name]}.")
    return said


def _figures(told: Mapping[str, Any]) -> list[str]:
    n, cuts = told["images"], told["cuts"]
    whose = "map" if told["method"] == "eigencam" else "true class's map"
    what = {
        "pointing": f"The highest place of the {whose} lies in a mark in {{}} of them",
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
        if cuts["images"] < FEWEST_VAL:
            said.append(
                f"These are fewer than {FEWEST_VAL}, so by overlap it cannot be told whether the "
                "heatmaps are better or worse."
            )
    else:
        said.append(
            "No validation image is marked, so there is nothing to choose a cut by, and no overlap."
        )
    return said


def _limits(told: Mapping[str, Any]) -> list[str]:
    said = []
    if told["marked"] > told["images"]:
        said.append(
            f"These are {told['images']} of {told['marked']} marked test images, drawn at random."
        )
    if told["empty"]:
        what = "" if told["method"] == "eigencam" else " for the true class"
        said.append(
            f"{counted(told['empty'], 'heatmap')} of them showed nothing{what}, and "
            f"{'counts' if told['empty'] == 1 else 'count'} as missing the marks."
        )
    return said


def _units(told: Mapping[str, Any]) -> str:
    unit = told["unit"]
    return counted(told["units"], unit if "," not in unit else f"cluster by {unit}")


def listed(names: Sequence[str]) -> str:
    """`a, b and c`."""
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)
