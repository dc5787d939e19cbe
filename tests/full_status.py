"""A status with something in every place."""

from __future__ import annotations

from ipaddress import ip_address

from xdplb.model import (
    Backend,
    BackendState,
    BackendStatus,
    BalancerStatus,
    Hash,
    InterfaceStatus,
    MapStatus,
    Mode,
    PortRange,
    Protocol,
    ServiceStatus,
)

HOP = ip_address("192.0.2.254")
BACKENDS = (
    BackendStatus(
        0, Backend(ip_address("192.0.2.10"), 53, 3), BackendState.UP, "02:00:00:00:00:01", HOP,
        "eth0", 0.75, flows=7, packets_in=10, bytes_in=1000, packets_out=9, bytes_out=900,
        refused=1,
    ),
    BackendStatus(
        1, Backend(ip_address("192.0.2.11"), 53, 1), BackendState.DRAIN, None, HOP, "eth0", 0.25
    ),
)  # fmt: skip
STATUS = BalancerStatus(
    interfaces=(
        InterfaceStatus("eth0", 2, Mode.NATIVE),
        InterfaceStatus("eth1", 3, Mode.GENERIC, attached=False),
    ),
    program_id=31,
    program_tag="0123456789abcdef",
    version="0.1.0",
    services=(
        ServiceStatus(
            "dns", ip_address("192.0.2.1"), Protocol.UDP, (PortRange(53, 53),), Hash.SRC, BACKENDS
        ),
    ),
    flows=7,
    capacity=1000,
    nat_ports_used=7,
    nat_ports_total=500,
    verdicts={"forward": 10, "return": 9, "pass_socket": 2, "drop_no_port": 4},
    maps=(MapStatus(4, "reverse_lookup", 8, 1000), MapStatus(4, "backends", 2, 256)),
)
