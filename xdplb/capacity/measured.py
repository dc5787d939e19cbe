"""What was measured, each figure once: the only place that capacities take such figures from."""

from __future__ import annotations

from typing import Final

MACHINE: Final = "virtual machine, 2 cores, AMD EPYC, Linux 6.18"
"""Where ``make bench`` gave the figures of tests/bench/README.md, which these are."""

FORWARD_NS: Final = {1: 22, 1024: 26, 32_768: 41, 262_144: 181, 1_000_000: 285}
RETURN_NS: Final = {1: 18, 1024: 21, 32_768: 68, 262_144: 150, 1_000_000: 168}
"""Nanoseconds that the program takes for a packet of a live flow, by how many flows there are."""

NEW_FLOW_NS: Final = {1: 396, 1024: 337, 32_768: 399, 262_144: 546}
"""The same for the first packet of a flow."""

LIMIT_MPPS: Final = 4.6
"""Millions of packets a second, over veth on one processor, of a program that only turns round."""

SAFE_FILL: Final = 0.8
"""Up to which part of the ports toward a backend are in use a search for a free one does not fail.
Of 16 fills of the usual pool the first one failed at 87 to 91 %, of 64,512 ports at 85 to 90 %; in
a simulation of the same search one fill in some thousands came to it before 80 %."""

SEARCHED_WHOLE: Final = 128
"""Ports of a pool that a search looks at to the last: PROBE_WINDOWS x PROBE_WINDOW in bpf/config.h.
None of them is refused before all are in use."""

INDEX_HEADER: Final = 48
"""Bytes that the kernel adds to each key and value of a hash map (Linux 6.18)."""

INDEX_BUCKET: Final = 16
"""And for each bucket, of which there are a power of two."""
