"""``doctor``: what of the machine keeps a balancer from working, and what mends it.

Evidence in, findings out: what is asked of the machine stands in ``evidence``, and who answers is
``xdplb.kernel.examiner``. Nothing here touches anything.
"""

from __future__ import annotations

from xdplb.doctor.examination import examine, mend
from xdplb.doctor.findings import Done, Finding, Fix, Repair, Result, has_failed
from xdplb.doctor.report import to_json, to_text

__all__ = [
    "Done",
    "Finding",
    "Fix",
    "Repair",
    "Result",
    "examine",
    "has_failed",
    "mend",
    "to_json",
    "to_text",
]
