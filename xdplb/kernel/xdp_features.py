"""What the kernel says of a driver's XDP (netdev generic netlink, kernel 6.3)."""

from __future__ import annotations

from typing import Any

from pyroute2.netlink import NLM_F_REQUEST, genlmsg
from pyroute2.netlink.exceptions import NetlinkError
from pyroute2.netlink.generic import GenericNetlinkSocket

_GET = 1
_VERSION = 1


class _Device(genlmsg):  # type: ignore[misc] # pyroute2 has no types
    """A message of the family ``netdev``."""

    nla_map = (
        ("NETDEV_A_DEV_UNSPEC", "none"),
        ("NETDEV_A_DEV_IFINDEX", "uint32"),
        ("NETDEV_A_DEV_PAD", "none"),
        ("NETDEV_A_DEV_XDP_FEATURES", "uint64"),
    )


def xdp_features(index: int) -> int | None:
    """The NETDEV_XDP_ACT flags of an interface; None where this kernel has none."""
    request: Any = _Device()
    request["cmd"], request["version"] = _GET, _VERSION
    request["attrs"] = [("NETDEV_A_DEV_IFINDEX", index)]
    try:
        with GenericNetlinkSocket() as netlink:
            netlink.bind("netdev", _Device)
            answers = list(
                netlink.nlm_request(request, msg_type=netlink.prid, msg_flags=NLM_F_REQUEST)
            )
    except NetlinkError:
        return None
    features: int | None = answers[0].get_attr("NETDEV_A_DEV_XDP_FEATURES") if answers else None
    return features
