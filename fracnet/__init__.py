"""fracnet: experiments in bone-fracture classification on radiographs. For research use only."""

from importlib.metadata import version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fracnet.api import fit as fit

__version__ = version("fracnet")


def __getattr__(name: str) -> Any:
    """What is seldom asked for, and takes seconds to import, is fetched when it is."""
    if name == "fit":
        from fracnet import api

        return getattr(api, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
