"""fracnet: experiments in bone-fracture classification on radiographs. For research use only."""

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fracnet.api import fit as fit
    from fracnet.inference.predictor import Predictor

    load = Predictor

__version__ = version("fracnet")

# Imported when they are first used: each takes seconds.
_LAZY = {"fit": ("fracnet.api", "fit"), "load": ("fracnet.inference.predictor", "Predictor")}


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, attribute = _LAZY[name]
    return getattr(import_module(module), attribute)


def __dir__() -> list[str]:
    return [*globals(), *_LAZY]
