"""fracnet: experiments in bone-fracture classification on radiographs. For research use only."""

from fracnet.utils import shadowing  # noqa: F401  explains errors of the imports below

# isort: split
import sys
import warnings
from importlib import import_module
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fracnet.api import compare as compare
    from fracnet.api import evaluate as evaluate
    from fracnet.api import fit as fit
    from fracnet.api import sweep as sweep
    from fracnet.inference.image_predictor import ImagePredictor

__version__ = version("fracnet")

# Imported when they are first used: each takes seconds.
_LAZY = {name: ("fracnet.api", name) for name in ("fit", "evaluate", "compare", "sweep")}


def load(source: "Path | str", **options: Any) -> "ImagePredictor":
    """A run folder, or an exported model.onnx, as a model that predicts new images.

    options: of `inference.predictor.Predictor` for a run, of `inference.onnx_model.OnnxPredictor`,
    which needs no torch, for an exported model.
    """
    is_onnx = Path(source).suffix.lower() == ".onnx"
    module, name = ("onnx_model", "OnnxPredictor") if is_onnx else ("predictor", "Predictor")
    predictor: ImagePredictor = _imported(f"fracnet.inference.{module}", name)(source, **options)
    return predictor


class _Package(ModuleType):
    """Keeps `fracnet.evaluate` the function after the command's module of that name is imported."""

    def __setattr__(self, name: str, value: Any) -> None:
        if name not in _LAZY or not isinstance(value, ModuleType):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return _imported(*_LAZY[name])


def _imported(module: str, attribute: str) -> Any:
    with warnings.catch_warnings():  # tqdm's, in a notebook without ipywidgets
        warnings.filterwarnings("ignore", "IProgress not found")
        return getattr(import_module(module), attribute)


def _explain_ctrl_c(kind: type[BaseException], error: BaseException, trace: Any) -> None:
    if issubclass(kind, KeyboardInterrupt):
        print("\nfracnet: interrupted.", file=sys.stderr)
    else:
        _earlier_hook(kind, error, trace)


# A command, `fracnet train` or `python -m fracnet.train`, which has seconds of imports ahead.
if sys.argv and Path(sys.argv[0]).name in ("-m", "fracnet"):
    _earlier_hook = sys.excepthook  # that of `shadowing`
    sys.excepthook = _explain_ctrl_c


def __dir__() -> list[str]:
    return [*globals(), *_LAZY]
