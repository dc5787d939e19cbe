"""Offloads of an interface in the current namespace, by the names that the kernel has for them."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Final

from pyroute2 import Ethtool
from pyroute2.ethtool.ioctl import EthtoolError

if TYPE_CHECKING:
    from collections.abc import Sequence

GRO: Final = "generic-receive-offload"
RECEIVE: Final = ("rx-gro-hw", "rx-lro")
"""What a device puts together before the kernel sees it."""
SEGMENTATION: Final = ("tx-tcp-segmentation", "tx-tcp6-segmentation", "tx-udp-segmentation")
"""What a stack leaves to its device to cut; it cuts by itself without."""


def has_gro(name: str) -> bool:
    """Whether GRO of an interface is on.

    Raises:
        OSError: The kernel said no.
    """
    with Ethtool() as tool:
        return bool(tool.get_offload_flags(name)[GRO])


def all_on(name: str) -> dict[str, bool]:
    """Which features of an interface are on, by the kernel's names; and ``GRO``.

    Raises:
        OSError: The kernel said no.
    """
    with Ethtool() as tool:
        known = tool.get_features(name).features
        return {item: bool(known[item].enable) for item in known} | {GRO: has_gro(name)}


def switch_gro(name: str, *, on: bool) -> None:
    """Set GRO of an interface.

    Raises:
        OSError: The kernel said no.
    """
    with Ethtool() as tool:
        tool.set_offload_flag(name, GRO, on)


def switch(name: str, features: Sequence[str], *, on: bool) -> tuple[list[str], list[str]]:
    """Set some features of an interface, as far as it lets itself be set.

    Returns:
        Which features are no longer as they were, and which should not be so, but are.
    """
    with Ethtool() as tool, suppress(OSError, EthtoolError):
        known = tool.get_features(name)
        wrong = [
            item
            for item in features
            if item in known.features and known.features[item].enable != on
        ]
        for item in wrong:
            known.features[item].enable = on
        if wrong:
            with suppress(OSError, EthtoolError):  # also where a part was done
                tool.set_features(name, known)
        now = tool.get_features(name).features
        changed = [item for item in wrong if now[item].enable == on]
        return changed, [item for item in wrong if item not in changed]
    return [], []


def command(name: str, features: Sequence[str]) -> str:
    """What a person types to switch features off."""
    return " ".join(("ethtool", "-K", name, *(f"{item} off" for item in features)))
