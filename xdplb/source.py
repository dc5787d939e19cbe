"""The C text: where it lies, how its files join into one, and what it says about itself.

BCC rewrites map calls only in the text that it is given, not in files that this includes;
so the files are joined here, each under a ``#line`` that keeps error messages true.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Final

from xdplb.errors import NotReadyError
from xdplb.model import IPV4, IPV6

FUNCTION: Final = "xdplb"

FILES: Final = (
    "config.h",
    "verdict.h",
    "headers.h",
    "csum.h",
    "hash.h",
    "ipv4.h | ipv6.h",
    "types.h",
    "vlan.h",
    "packet.h",
    "maps.h",
    "stats.h",
    "trace.h",
    "own.h",
    "rewrite.h",
    "interface.h",
    "neighbour.h",
    "arp.h | ndp.h",
    "parse.h",
    "select.h",
    "tcp.h",
    "limit.h",
    "flow.h",
    "answer.h",
    "request.h",
    "icmp.h",
    "fragment.h",
    "xdplb.c",
)
"""In the order in which each may use what stands before it; of two, the second is for IPv6."""


@cache
def directory() -> Path:
    """The directory ``bpf``: inside the installed package, or beside it in a checkout.

    Raises:
        NotReadyError: It is in neither place.
    """
    package = Path(__file__).resolve().parent
    for place in (package / "bpf", package.parent / "bpf"):
        if (place / "xdplb.c").is_file():
            return place
    raise NotReadyError(
        f"the XDP program's source is not in {package}", "install xdplb again, from its wheel"
    )


def headers() -> Path:
    """What stands in for the kernel's headers."""
    return directory() / "kernel"


def files(version: int) -> list[str]:
    """The files of the program for IPv4 or IPv6."""
    return [name.split(" | ")[-1 if version == IPV6 else 0] for name in FILES]


def text(version: int = IPV4) -> str:
    """The whole program for IPv4 or IPv6 as one text."""
    parts = ["#include <uapi/linux/bpf.h>\n", f"#define FAMILY {version}\n"]
    for name in files(version):
        parts += [f'#line 1 "bpf/{name}"\n', (directory() / name).read_text()]
    return "".join(parts)


@cache
def verdicts() -> tuple[str, ...]:
    """The verdicts in the program's order, in lower case."""
    body = (
        (directory() / "verdict.h").read_text().split("enum verdict {")[1].split("VERDICT_MAX")[0]
    )
    return tuple(name.lower() for name in re.findall(r"^\t([A-Z_]+),", body, re.MULTILINE))
