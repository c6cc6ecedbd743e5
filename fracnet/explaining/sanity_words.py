"""What the loss of weights did to the heatmaps, in sentences."""

from collections.abc import Mapping
from typing import Any

from fracnet.explaining.localisation_words import METHOD_NAMES
from fracnet.words import are, counted, limits

# A correlation from which on the maps count as the same.
SAME = 0.99
# Images from which on the result is not called one of few.
USUAL = 50


def went_out(stage: Mapping[str, Any], images: int) -> bool:
    """Whether more than half of the maps are blank after a stage: too few are left to judge by."""
    return bool(2 * stage["empty"] > images)


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
        "lost": f"{maps} depend on the weights: without any trained one they resemble themselves "
        "hardly more than they resemble the map of another image.",
        "unclear": f"With {METHOD_NAMES[told['method']]} it is not shown whether the heatmaps "
        f"depend on the weights. {_why_unclear(told)}",
    }[told["verdict"]]
    if told["images"] < USUAL:
        verdict += f" That is of {counted(told['images'], 'image')} only."
    said = [
        verdict,
        f"Rank correlation with the trained network's maps: {last} once all weights were drawn "
        f"anew, {_number(stages[0])} when only the head ({stages[0]['name']}) was; maps of "
        f"different images: {others}.",
        f"From {counted(told['images'], 'test image')}{_whose(told)} and "
        f"{counted(told['draws'], 'draw')} of new weights; the interval knows of both.",
    ]
    if (stages[0]["correlation"] or 0) >= SAME and len(stages) > 1:
        said.append("The loss of the head alone left the maps as they were: they know no class.")
    if n := told["empty"]:
        said.append(f"{counted(n, 'further image')} without a map {are(n)} left out.")
    if n := stages[-1]["empty"]:
        said.append(
            f"Without any trained weight {counted(n, 'map')} of {told['images']} went out "
            f"altogether, and {are(n)} left out of that correlation."
        )
    if told["images"] < USUAL:
        said.append(f"{_why_few(told)}; {USUAL} or more are usual.")
    return said


def _why_unclear(told: Mapping[str, Any]) -> str:
    last = told["stages"][-1]
    if went_out(last, told["images"]):
        return "Most maps went out with the weights, and a blank map resembles nothing."
    if last["high"] is None:
        return "A single draw of new weights gives no interval."
    return "Without any trained weight their correlation may still be that of maps that survive."


def _why_few(told: Mapping[str, Any]) -> str:
    tried = told["images"] + told["empty"]
    if tried >= USUAL:
        return f"Only {told['images']} of {tried} test images had a map"
    if tried < told["held"]:
        return f"{told['asked']} of the {told['held']} test images were asked for"
    return f"The test split has {counted(told['held'], 'image')}"


def _whose(told: Mapping[str, Any]) -> str:
    if told["units"] == told["images"]:
        return f" of as many {told['unit']}s" if told["unit"] in ("patient", "study") else ""
    return f" ({told['unit']}s: {told['units']})"


def _number(stage: Mapping[str, Any]) -> str:
    if stage["correlation"] is None:
        return "not known, as all maps went out,"
    if stage["low"] is None:
        return f"{stage['correlation']:.2f}"
    return f"{stage['correlation']:.2f} ({limits(stage['low'], stage['high'], 2)})"
