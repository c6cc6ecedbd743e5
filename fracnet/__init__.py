"""fracnet: experiments in bone-fracture classification on radiographs. For research use only."""

from importlib.metadata import version

__version__ = version("fracnet")
