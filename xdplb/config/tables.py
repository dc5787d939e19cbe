"""What stands in the file, table by table, as types that msgspec checks."""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

from msgspec import Meta, Struct

from xdplb.checks import BelowMinimum
from xdplb.model import (
    DEFAULT_ANSWERED_S,
    DEFAULT_ESTABLISHED_S,
    DEFAULT_TRANSITORY_S,
    DEFAULT_UNREPLIED_S,
    MAX_FLOWS_LIMIT,
    MAX_PORT,
    MAX_WEIGHT,
    BackendState,
    Hash,
    Mode,
    OnDown,
    Protocol,
)

CheckName: TypeAlias = Literal["icmp", "tcp", "http", "https", "udp", "dns", "exec"]

AddressText: TypeAlias = Annotated[
    str, Meta(description="An IPv4 or IPv6 address", examples=["192.0.2.1", "2001:db8::1"])
]
Port: TypeAlias = Annotated[int, Meta(ge=1, le=MAX_PORT, description="A port")]
Ports: TypeAlias = (
    Port
    | Annotated[
        str,
        Meta(
            pattern=r"^([0-9]{1,5}(-[0-9]{1,5})?|all)$",
            description="A range of ports, both ends included",
            examples=["8000-8010"],
        ),
    ]
)
Seconds: TypeAlias = Annotated[int, Meta(ge=1, le=86400)]


class Table(Struct, rename="kebab", forbid_unknown_fields=True, omit_defaults=True, kw_only=True):
    """What all tables have in common: kebab-case keys, and no others than these."""


class TimeoutsTable(Table):
    """Idle seconds after which a flow may lose its NAT port."""

    unreplied: Annotated[Seconds, Meta(description="UDP that no backend has answered")] = (
        DEFAULT_UNREPLIED_S
    )
    answered: Annotated[Seconds, Meta(description="UDP that one has")] = DEFAULT_ANSWERED_S
    transitory: Annotated[
        Seconds, Meta(description="TCP that is not yet, or no longer, established")
    ] = DEFAULT_TRANSITORY_S
    established: Annotated[Seconds, Meta(description="TCP that is")] = DEFAULT_ESTABLISHED_S


class BackendTable(Table):
    """One server."""

    address: AddressText
    port: Annotated[Port, Meta(description="Its port, where it is not the one dialled")] | None = (
        None
    )
    weight: Annotated[
        int, Meta(ge=0, le=MAX_WEIGHT, description="Its share, relative to the others' weights")
    ] = 1
    state: Annotated[BackendState, Meta(description="drain: no new flows; down: none at all")] = (
        BackendState.UP
    )


class HealthTable(Table):
    """How the backends are watched by ``xdplb run``."""

    check: (
        Annotated[CheckName, Meta(description="What is asked; left out: traffic alone")] | None
    ) = None
    port: Annotated[Port, Meta(description="Where, if not at the backend's port")] | None = None
    interval: Annotated[float, Meta(description="Seconds from check to check")] = 2.0
    timeout: Annotated[float, Meta(description="Seconds until no answer is a bad one")] = 1.0
    rise: Annotated[int, Meta(description="Good answers in a row to be up again")] = 2
    fall: Annotated[int, Meta(description="Bad answers in a row to be down")] = 3
    jitter: Annotated[float, Meta(description="By what part an interval may vary")] = 0.1
    passive: Annotated[
        bool, Meta(description="Suspect a backend that is asked and silent while others answer")
    ] = True
    min_healthy: Annotated[int, Meta(description="How many backends the service needs")] = 1
    below_min: Annotated[BelowMinimum, Meta(description="What happens when it has fewer")] = (
        BelowMinimum.FAIL_OPEN
    )
    path: Annotated[str, Meta(description="http: what is asked for")] | None = None
    host: Annotated[str, Meta(description="http: the Host header, and the name in TLS")] | None = (
        None
    )
    status: (
        Annotated[
            int | str,
            Meta(description="http: the codes that are good", examples=["200-399", 204]),
        ]
        | None
    ) = None
    body: Annotated[str, Meta(description="http: what the answer has to contain")] | None = None
    verify: Annotated[bool, Meta(description="https: the certificate must be good")] | None = None
    send: (
        Annotated[str, Meta(description="udp: text, or bytes as 0x and hexadecimal digits")] | None
    ) = None
    expect: Annotated[str, Meta(description="udp: what the answer has to contain")] | None = None
    query: Annotated[str, Meta(description="dns: the name that is asked for")] | None = None
    type: Annotated[str, Meta(description="dns: the type that is asked for")] | None = None
    command: (
        Annotated[list[str], Meta(description="exec: the program and its arguments")] | None
    ) = None


class ServiceTable(Table):
    """What clients dial, and who answers."""

    name: Annotated[str, Meta(description="What people call it")] = ""
    address: (
        Annotated[
            AddressText | list[AddressText],
            Meta(description="What clients dial; left out: the interface's own address"),
        ]
        | None
    ) = None
    protocol: Annotated[
        Protocol | list[Protocol], Meta(description="What is balanced; tcp needs ports")
    ] = Protocol.UDP
    ports: Annotated[Ports | list[Ports], Meta(description="What clients dial; left out: all")] = (
        "all"
    )
    hash: Annotated[Hash, Meta(description="What of a packet chooses the backend")] = Hash.SRC_DST
    on_down: Annotated[
        OnDown, Meta(description="What becomes of the flows of a backend that is down")
    ] = OnDown.REHASH
    one_way: Annotated[
        bool, Meta(description="Nobody answers, and nothing follows from that (syslog, NetFlow)")
    ] = False
    nat_addresses: Annotated[
        list[AddressText],
        Meta(description="What it speaks to backends from; left out: its own address"),
    ] = []
    clients: Annotated[
        list[str],
        Meta(
            description="Client endpoints that always get the same NAT port",
            examples=[["198.51.100.7:5555=6666"]],
        ),
    ] = []
    timeouts: TimeoutsTable | None = None
    backend: list[BackendTable] = []
    health: HealthTable | None = None


class BalancerTable(Table):
    """What all services have in common."""

    interfaces: Annotated[list[str], Meta(min_length=1, description="Where it is balanced")]
    mode: Annotated[
        Mode, Meta(description="How the program hangs on them; auto is native where that works")
    ] = Mode.AUTO
    max_flows: (
        Annotated[
            int,
            Meta(ge=1, le=MAX_FLOWS_LIMIT, description="Flows to make room for, by IP version"),
        ]
        | None
    ) = None
    max_client_flows: (
        Annotated[
            int, Meta(ge=0, le=MAX_FLOWS_LIMIT, description="Flows of one client; 0: no limit")
        ]
        | None
    ) = None
    nat_ports: Annotated[
        list[Ports],
        Meta(description="Ports that flows get; left out: 1024 and up but for the host's own"),
    ] = []
    vlan: Annotated[bool, Meta(description="Balance frames with VLAN tags, too")] = True


class FileTable(Table):
    """The whole file."""

    balancer: BalancerTable
    service: list[ServiceTable] = []
