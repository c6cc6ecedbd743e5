"""fracnet: experiments in bone-fracture classification on radiographs. For research use only."""

from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fracnet.inference.predictor import Predictor
    from fracnet.train import fit as fit

    load = Predictor

__version__ = version("fracnet")


def __getattr__(name: str) -> Any:
    """What is seldom asked for, and takes seconds to import, is fetched when it is."""
    if name == "fit":
        from fracnet import train

        return getattr(train, name)
    if name == "load":
        from fracnet.inference.predictor import Predictor

        return Predictor
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return [*globals(), "fit", "load"]
