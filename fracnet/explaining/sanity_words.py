"""What the loss of weights did to the heatmaps, in sentences."""

from collections.abc import Mapping
from typing import Any

from fracnet.explaining.localisation_words import AGNOSTIC, METHOD_NAMES
from fracnet.words import are, counted, limits

# A correlation from which on the maps count as the same.
SAME = 0.99


def sentences(told: Mapping[str, Any]) -> list[str]:
    """The verdict, the figures behind it, and what one must know to read them."""
    stages, null = told["stages"], told["null"]
    maps, last = f"The heatmaps ({METHOD_NAMES[told['method']]})", _number(stages[-1])
    others = (
        f"{null['correlation']:.2f} on average, the middle 95 % from {null['low']:.2f} to "
        f"{null['high']:.2f}"
    )
    verdict = {
        "survives": f"{maps} survive the loss of all weights: they show the image more than what "
        "was learned, and must not be taken for the network's reasons.",
        "partly": f"{maps} depend on the weights, but not only: without any trained weight a part "
        "of their order remains, which the image and the architecture give.",
        "lost": f"{maps} depend on what was learned: without any trained weight they are not shown "
        "to resemble themselves more than they resemble the map of another image.",
    }[told["verdict"]]
    said = [
        verdict,
        f"Rank correlation with the trained network's maps: {last} once all weights were drawn "
        f"anew, {_number(stages[0])} when only the head ({stages[0]['name']}) was; maps of "
        f"different images: {others}.",
        f"From {counted(told['images'], 'test image')}{_whose(told)} and "
        f"{counted(told['draws'], 'draw')} of new weights; the interval knows of both.",
    ]
    if stages[0]["correlation"] >= SAME and len(stages) > 1:
        said.append("The loss of the head alone left the maps as they were: they know no class.")
    if told["method"] == "eigencam":
        said.append(AGNOSTIC)
    if n := told["empty"]:
        said.append(f"{counted(n, 'further image')} without a map {are(n)} left out.")
    if n := stages[-1]["empty"]:
        said.append(
            f"Without any trained weight {counted(n, 'map')} went out altogether, and "
            f"{'counts' if n == 1 else 'count'} as a correlation of 0."
        )
    if told["images"] < 50:
        said.append(f"The test split gave {told['images']} images; 50 or more are usual.")
    return said


def _whose(told: Mapping[str, Any]) -> str:
    if told["units"] == told["images"]:
        return f" of as many {told['unit']}s" if told["unit"] in ("patient", "study") else ""
    return f" ({told['unit']}s: {told['units']})"


def _number(stage: Mapping[str, Any]) -> str:
    if stage["low"] is None:
        return f"{stage['correlation']:.2f}"
    return f"{stage['correlation']:.2f} ({limits(stage['low'], stage['high'], 2)})"
