"""`reason`: inference-time reasoning strategies and verification under one budget, one trace, one run store."""

from .core.version import __version__

__all__ = ["__version__"]
