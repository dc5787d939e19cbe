"""``capacity``: how many ports, backends and balancers a load needs.

Arithmetic alone: nothing here asks a kernel, or wants a balancer that runs. What was measured once,
and on which machine, stands in ``measured``.
"""

from __future__ import annotations

from xdplb.capacity.load import Load
from xdplb.capacity.report import to_json, to_text
from xdplb.capacity.sizing import Sizing, size
from xdplb.capacity.speed import Speed
from xdplb.capacity.stock import Stock

__all__ = ["Load", "Sizing", "Speed", "Stock", "size", "to_json", "to_text"]
