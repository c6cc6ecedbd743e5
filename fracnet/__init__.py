"""fracnet: experiments in bone-fracture classification on radiographs. For research use only."""

import sys
import warnings
from importlib import import_module
from importlib.metadata import version
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fracnet.api import compare as compare
    from fracnet.api import evaluate as evaluate
    from fracnet.api import fit as fit
    from fracnet.api import sweep as sweep
    from fracnet.inference.predictor import Predictor

    load = Predictor

__version__ = version("fracnet")

# Imported when they are first used: each takes seconds.
_LAZY = {name: ("fracnet.api", name) for name in ("fit", "evaluate", "compare", "sweep")}
_LAZY["load"] = ("fracnet.inference.predictor", "Predictor")


class _Package(ModuleType):
    """Keeps `fracnet.evaluate` the function after the command's module of that name is imported."""

    def __setattr__(self, name: str, value: Any) -> None:
        if name not in _LAZY or not isinstance(value, ModuleType):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module, attribute = _LAZY[name]
    with warnings.catch_warnings():  # tqdm's, in a notebook without ipywidgets
        warnings.filterwarnings("ignore", "IProgress not found")
        return getattr(import_module(module), attribute)


def __dir__() -> list[str]:
    return [*globals(), *_LAZY]
