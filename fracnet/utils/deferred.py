"""Packages that are imported at the start and few runs use: loaded at first use.

Lightning imports all of torchmetrics for two of its classes, and torch's compiler for one;
torchvision and torch's optimizers import the compiler as well. Together that is half of what a
command waits for. `defer` lets these packages begin as empty modules, which answer the few names
that those imports ask for. Any other name, and any submodule, first loads the package, into the
very module that everybody holds: a version of Lightning that asks for more costs time, and nothing
else changes. What stands for the compiler's names passes on to the real ones once it is loaded,
which is before anything is compiled.
"""

import functools
import gc
import importlib
import logging
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from types import FunctionType, ModuleType
from typing import Any

_LOCK = threading.RLock()
_running: set[str] = set()


class _Deferred(ModuleType):
    """A module that has not run yet, and does as soon as somebody asks for an unexpected name."""

    def __getattr__(self, name: str) -> Any:
        if name == "__path__":  # what the import system asks of each module; a package has it
            raise AttributeError(name)
        stand_in = STAND_INS[self.__name__].get(name)
        if stand_in is None or self.__name__ in _running:
            _load(self.__name__)
            if self.__name__ in _running:  # asked while it runs, by what it imports
                raise AttributeError(f"module {self.__name__!r} has no attribute {name!r} yet")
            return getattr(self, name)
        if isinstance(stand_in, tuple):  # the modules to import, the last of which defines it
            return getattr([importlib.import_module(module) for module in stand_in][-1], name)
        return stand_in

    def __dir__(self) -> Any:
        _load(self.__name__)
        return dir(self)


def _load(name: str) -> None:
    """Run a deferred module, and before it those that contain it; other threads wait."""
    parent = name.rpartition(".")[0]
    if parent in STAND_INS:
        _load(parent)
    with _LOCK:
        module = sys.modules[name]
        if not isinstance(module, _Deferred) or name in _running:
            return
        assert module.__spec__ is not None
        assert isinstance(module.__spec__.loader, _DeferredLoader)
        module.__loader__ = module.__spec__.loader = module.__spec__.loader.real
        given = {key: value for key, value in vars(module).items() if not key.startswith("__")}
        _running.add(name)
        try:
            module.__loader__.exec_module(module)
        finally:
            if isinstance(module, _Deferred):  # torch's config modules choose another class
                module.__class__ = ModuleType  # type: ignore[assignment]
            _running.discard(name)
        for key, value in given.items():  # what was set before, as an option of the compiler
            setattr(module, key, value)


def _loaded(module: str, name: str) -> Any:
    """The real object, or None while its module has not defined it."""
    return vars(sys.modules[module]).get(name)


class _DeferredLoader(Loader):
    def __init__(self, real: Loader) -> None:
        self.real = real

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self.real.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        module.__class__ = _Deferred


class _ImportedMeanwhile(Loader):
    """Gives a module that its package has imported while it was looked for."""

    def __init__(self, module: ModuleType) -> None:
        self.module, self.spec = module, module.__spec__

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return self.module

    def exec_module(self, module: ModuleType) -> None:
        module.__spec__ = self.spec


class _Finder(MetaPathFinder):
    """Defers the modules of STAND_INS, and loads one before an unexpected submodule of it."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name in STAND_INS:
            spec = PathFinder.find_spec(name, path)
            if spec is not None and spec.loader is not None:
                spec.loader = _DeferredLoader(spec.loader)
            return spec
        parent = name.rpartition(".")[0]
        if isinstance(sys.modules.get(parent), _Deferred) and name not in LIGHT:
            _load(parent)
            if name in sys.modules:
                return ModuleSpec(name, _ImportedMeanwhile(sys.modules[name]))
        return None


def defer() -> None:
    """Defer the modules of STAND_INS that have not been imported yet."""
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())


@contextmanager
def without_collection() -> Iterator[None]:
    """Import faster: nothing becomes garbage, and looking for it takes a fifth of the time.

    What was imported is never searched later either, nor copied into each forked worker.
    """
    enabled, modules = gc.isenabled(), len(sys.modules)
    gc.disable()
    try:
        yield
    finally:
        if len(sys.modules) > modules:
            gc.freeze()
        if enabled:
            gc.enable()


def _passed_on(module: str, name: str) -> Callable[..., Any]:
    """A function that loads its module when it is called."""

    def call(*args: Any, **kwargs: Any) -> Any:
        _load(module)
        return getattr(sys.modules[module], name)(*args, **kwargs)

    return call


def _disable(function: Any = None, *args: Any, **kwargs: Any) -> Any:
    """`torch._dynamo.disable`: nothing is compiled yet, so there is nothing to keep out of it."""
    if not isinstance(function, FunctionType):
        _load("torch._dynamo")
        return _loaded("torch._dynamo", "disable")(function, *args, **kwargs)
    real: list[Any] = []

    @functools.wraps(function)
    def call(*inner_args: Any, **inner_kwargs: Any) -> Any:
        disable = _loaded("torch._dynamo", "disable")
        if disable is None:
            return function(*inner_args, **inner_kwargs)
        if not real:
            real.append(disable(function, *args, **kwargs))
        return real[0](*inner_args, **inner_kwargs)

    return call


def _graph_break(*args: Any, **kwargs: Any) -> None:
    """`torch._dynamo.graph_break`, which each step of an optimizer calls: there is no graph yet."""
    if real := _loaded("torch._dynamo", "graph_break"):
        real(*args, **kwargs)


class _NoInstanceYet(type):
    """The type of a class that has no instance before its module is loaded."""

    def __instancecheck__(cls, instance: Any) -> bool:
        real = _loaded("torch._dynamo", cls.__name__)
        return real is not None and isinstance(instance, real)

    def __subclasscheck__(cls, subclass: type) -> bool:
        real = _loaded("torch._dynamo", cls.__name__)
        return subclass is cls or (real is not None and issubclass(subclass, real))


STAND_INS: dict[str, dict[str, Any]] = {
    "fracnet.data.dicom": {},  # pydicom
    "fracnet.models.fitted_heads": {},  # scikit-learn
    "kagglehub": {},
    "requests": {},
    "torch._dynamo": {
        "disable": _disable,
        "graph_break": _graph_break,
        "OptimizedModule": _NoInstanceYet("OptimizedModule", (), {}),
    },
    "torch._dynamo.utils": {
        "is_compile_supported": _passed_on("torch._dynamo.utils", "is_compile_supported")
    },
    "torch._inductor": {},
    "torch._inductor.config": {},  # deterministic algorithms set one of its options
    "torchmetrics": {
        "Metric": ("torchmetrics.utilities", "torchmetrics.metric"),
        "MetricCollection": ("torchmetrics.utilities", "torchmetrics.collections"),
        "CatMetric": ("torchmetrics.utilities", "torchmetrics.aggregation"),
        "__version__": ("torchmetrics.__about__",),
        "_logger": logging.getLogger("torchmetrics"),
    },
    "torch.utils.flop_counter": {  # Lightning's summary of a model, which imports Triton
        "FlopCounterMode": _passed_on("torch.utils.flop_counter", "FlopCounterMode")
    },
    "torchvision.models": {},
    "torchvision.models.feature_extraction": {  # timm
        name: _passed_on("torchvision.models.feature_extraction", name)
        for name in ("create_feature_extractor", "get_graph_node_names")
    },
    "wandb": {},  # timm imports it
    "torchmetrics.utilities.plot": {
        "_AX_TYPE": Any,
        "_PLOT_OUT_TYPE": Any,
        "plot_single_or_multi_val": _passed_on(
            "torchmetrics.utilities.plot", "plot_single_or_multi_val"
        ),
    },
}
"""Deferred modules; of each, the names that do not load it: the object, or where it is defined."""
LIGHT = [f"torchmetrics.{name}" for name in ("metric", "collections", "aggregation", "utilities")]
LIGHT += ["torchmetrics.wrappers", "torchmetrics.__about__"]
"""Submodules that do not load the package that contains them."""
