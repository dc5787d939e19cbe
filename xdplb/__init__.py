"""xdplb: a load balancer for UDP and TCP at the speed of XDP, started by one command."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Final

__version__ = "0.1.0"
__all__ = ["Balancer", "XdplbError", "__version__"]

_PLACES: Final = {"Balancer": "xdplb.api", "XdplbError": "xdplb.errors"}

if TYPE_CHECKING:
    from xdplb.api import Balancer
    from xdplb.errors import XdplbError
else:

    def __getattr__(name: str) -> type:
        """Load what a program asks for; the commands ask for nothing."""
        if name not in _PLACES:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        return getattr(import_module(_PLACES[name]), name)
