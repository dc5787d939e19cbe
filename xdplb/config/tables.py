"""The tables of the file, with the types and the ranges of their keys.

The JSON Schema is made of them: a class's docstring describes the table, its attributes the keys.
"""

# The types are needed when the module runs: no postponed annotations here.
from typing import Annotated, Final, TypeAlias

from msgspec import Meta, Struct, field

from xdplb.checks import DEFAULT_STATUS, BelowMinimum, DnsCheck, Health
from xdplb.config.shapes import (
    Argument,
    Body,
    Client,
    ClientFlows,
    Count,
    FilePath,
    Flows,
    Host,
    HostName,
    Interface,
    Interval,
    Mac,
    Name,
    Part,
    Payload,
    Place,
    Port,
    PortsText,
    Question,
    RecordType,
    Seconds,
    StatusCode,
    StatusText,
    Times,
    UrlPath,
    Wait,
    Weight,
    Wish,
)
from xdplb.model import DEFAULT_TIMEOUTS, Hash, Mode, OnDown, Protocol

_HEALTH: Final = Health()
_DNS: Final = DnsCheck("example.org")


class Table(Struct, rename="kebab", forbid_unknown_fields=True):
    """What all tables have in common: keys in kebab-case, and no others."""


class BalancerTable(Table):
    """What all services have in common.

    Attributes:
        interfaces: Where packets come in.
        mode: How the program hangs on the interfaces; auto is native where the driver can.
        max_flows: Flows to make room for, for each IP version; left out for what runs, or 262144.
        max_client_flows: Flows that one client may have, an IPv4 address or an IPv6 network of
            64 bits; 0 for no limit, left out for half of the NAT ports of a backend.
        nat_ports: Ports that flows may get toward the backends; left out for all that the host
            does not use by itself.
        vlan: Tagged frames are balanced, too.
        secret: The file that the keys of the hash come of, the same on each balancer that is to
            choose the same backends and NAT ports; nobody but its owner may read it. Left out for
            what runs, or keys of its own.
        virtual_mac: A MAC address that frames may have, too, beside the interface's own, or
            several: the virtual router's, where VRRP moves one with the service's address.
    """

    interfaces: Annotated[list[Interface], Meta(min_length=1)]
    mode: Mode = Mode.AUTO
    max_flows: Flows | None = None
    max_client_flows: ClientFlows | None = None
    nat_ports: list[Port | PortsText] = field(default_factory=list)
    vlan: bool = True
    secret: FilePath | None = None
    virtual_mac: Mac | Annotated[list[Mac], Meta(min_length=1)] | None = None


class BackendTable(Table):
    """One server behind the balancer.

    Attributes:
        address: Where it answers.
        port: Its port; left out to keep the port that the client dialled.
        weight: Its share of new flows, relative to the others'.
        state: up takes new flows, drain only keeps those it has, down has none.
    """

    address: Host
    port: Port | None = None
    weight: Weight = 1
    state: Wish = "up"


class TimeoutsTable(Table):
    """Idle seconds after which a flow may lose its port.

    Attributes:
        unreplied: UDP that no backend has answered.
        answered: UDP that one has.
        transitory: TCP not yet, or not any more, established.
        established: TCP.
    """

    unreplied: Seconds = DEFAULT_TIMEOUTS.unreplied
    answered: Seconds = DEFAULT_TIMEOUTS.answered
    transitory: Seconds = DEFAULT_TIMEOUTS.transitory
    established: Seconds = DEFAULT_TIMEOUTS.established


class HealthTable(Table, tag_field="check"):
    """How the backends of a service are watched.

    Attributes:
        port: Where a backend is asked; left out for the port that it serves.
        interval: Seconds from one check of a backend to the next.
        timeout: Seconds until no answer is a bad one.
        rise: Good answers in a row after which a backend takes traffic again.
        fall: Bad ones after which it takes none.
        jitter: By what part of it an interval may be shorter or longer.
        passive: A backend that is asked and stays silent while others answer is checked at once.
        min_healthy: How many backends the service needs.
        below_min: What happens when it has fewer: fail-open keeps the last set that was enough,
            fail-closed takes them out all the same.
    """

    port: Port | None = None
    interval: Interval = _HEALTH.interval
    timeout: Wait = _HEALTH.timeout
    rise: Times = _HEALTH.rise
    fall: Times = _HEALTH.fall
    jitter: Part = _HEALTH.jitter
    passive: bool = _HEALTH.passive
    min_healthy: Count = _HEALTH.min_healthy
    below_min: BelowMinimum = _HEALTH.below


class NoCheckTable(HealthTable, tag="none"):
    """Backends are judged by the traffic alone."""


class IcmpTable(HealthTable, tag="icmp"):
    """Backends are sent an echo request."""


class TcpTable(HealthTable, tag="tcp"):
    """A connection is made to each backend, and closed again."""


class _WebTable(HealthTable):
    """What HTTP and HTTPS have in common.

    Attributes:
        path: What is asked for.
        host: The Host header, and the name in TLS; empty for the backend's address.
        status: The codes that are good: 200, "200-399", or several with commas.
        body: What the answer has to contain; empty for anything.
        verify: The certificate must be good for the host.
    """

    path: UrlPath = "/"
    host: HostName = ""
    status: StatusCode | StatusText = DEFAULT_STATUS
    body: Body = ""
    verify: bool = True


class HttpTable(_WebTable, tag="http"):
    """Backends are asked by HTTP."""


class HttpsTable(_WebTable, tag="https"):
    """Backends are asked by HTTPS."""


class UdpTable(HealthTable, tag="udp", kw_only=True):
    """Backends are sent a datagram.

    Attributes:
        send: Text; or hexadecimal digits after 0x. A backslash before a leading 0x makes it text.
        expect: What the answer has to contain, written like send; empty for any answer.
    """

    send: Payload
    expect: Payload = ""


class DnsTable(HealthTable, tag="dns", kw_only=True):
    """Backends are asked a question over UDP, and must know an answer.

    Attributes:
        query: The name that is asked for.
        type: The type of the records.
    """

    query: Question
    type: RecordType = _DNS.type


class ExecTable(HealthTable, tag="exec", kw_only=True):
    """A command is run, and must end with 0.

    It finds XDPLB_ADDRESS, XDPLB_PORT and XDPLB_PROTOCOL in its environment.

    Attributes:
        command: The program and its arguments.
    """

    command: Annotated[list[Argument], Meta(min_length=1)]


AnyHealth: TypeAlias = (
    NoCheckTable | IcmpTable | TcpTable | HttpTable | HttpsTable | UdpTable | DnsTable | ExecTable
)


class ServiceTable(Table, kw_only=True):
    """What clients dial, and who answers; one service for each address and protocol.

    Attributes:
        name: What people call it.
        address: What clients dial, one address or several; left out for the interface's own.
        protocol: What is balanced, one protocol or both.
        ports: Those that clients dial; left out for all, which only UDP can have.
        hash: What of a packet chooses the backend.
        on_down: What becomes of the flows of a backend that is down: another one takes them, or
            nobody.
        one_way: Nobody answers, and nothing follows from that (syslog, NetFlow).
        nat_addresses: Those that the balancer speaks from toward the backends; left out for the
            service's own.
        clients: Client endpoints that always get the same NAT port.
        timeouts: Idle seconds after which a flow may lose its port.
        backend: The servers; each answers at the addresses of its own IP version.
        health: How the backends are watched; left out for not at all.
    """

    name: Name = ""
    address: Host | Annotated[list[Host], Meta(min_length=1)] | None = None
    protocol: Protocol | Annotated[list[Protocol], Meta(min_length=1)] = Protocol.UDP
    ports: Port | PortsText | Annotated[list[Port | PortsText], Meta(min_length=1)] | None = None
    hash: Hash = Hash.SRC_DST
    on_down: OnDown = OnDown.REHASH
    one_way: bool = False
    nat_addresses: list[Host] = field(default_factory=list)
    clients: list[Client] = field(default_factory=list)
    timeouts: TimeoutsTable = field(default_factory=TimeoutsTable)
    backend: Annotated[list[BackendTable], Meta(min_length=1)]
    health: AnyHealth | None = None


class AgentTable(Table):
    """How xdplb run is spoken to.

    Attributes:
        listen: Where it serves metrics, the status and a page by HTTP: an address of this machine
            alone and a port, or the path of a Unix socket; left out for nowhere. Read when the
            agent starts.
        allow_remote: Others may reach that address, though nobody is asked for a password.
    """

    listen: Place | None = None
    allow_remote: bool = False


class File(Table):
    """The configuration of xdplb, the UDP and TCP load balancer.

    Attributes:
        balancer: What all services have in common.
        service: What clients dial, and who answers.
        agent: How xdplb run is spoken to; nothing else reads it.
    """

    balancer: BalancerTable
    service: Annotated[list[ServiceTable], Meta(min_length=1)]
    agent: AgentTable = field(default_factory=AgentTable)
