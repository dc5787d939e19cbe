"""What each verdict means to a person, and what to do about it; the names are the program's.

The verdicts themselves stand in ``bpf/verdict.h``.
"""

from __future__ import annotations

from typing import Final, NamedTuple


class Verdict(NamedTuple):
    """What became of a packet.

    Attributes:
        meaning: One clause, without a full stop.
        hint: What to do about it; empty where nothing has to be done.
    """

    meaning: str
    hint: str = ""


VERDICTS: Final = {
    "forward": Verdict("sent from a client to its backend"),
    "return": Verdict("sent from a backend to the client of the flow"),
    "forward_error": Verdict("an ICMP error about an answer, sent to the backend"),
    "return_error": Verdict("an ICMP error about a request, sent to the client"),
    "reply_ttl": Verdict("its time had run out, and its sender was told: traceroute, or a loop"),
    "reply_too_big": Verdict("too long for the way on, and its sender was told how much fits"),
    "pass_not_ours": Verdict("no service wants it; left to the host"),
    "pass_socket": Verdict("a socket of the host has the port; left to the host"),
    "pass_no_flow": Verdict(
        "TCP in the middle of a connection that is not known; left to the host, which resets it"
    ),
    "pass_fragment": Verdict("a fragment whose first one has not come by; left to the host"),
    "drop_malformed": Verdict(
        "its UDP or TCP header contradicts its IP length",
        "a broken or hostile sender; 'xdplb trace --reason drop_malformed' shows who",
    ),
    "drop_fragment": Verdict(
        "a fragment of a length or at a place where none can be",
        "a broken or hostile sender; 'xdplb trace --reason drop_fragment' shows who",
    ),
    "drop_checksum": Verdict(
        "an ICMP error with a wrong checksum, or UDP over IPv6 without one",
        "the sender is broken; 'xdplb trace --reason drop_checksum' shows who",
    ),
    "drop_ttl": Verdict(
        "its time had run out, and too many senders were told just now",
        "look for a routing loop between the balancer and its neighbours",
    ),
    "drop_too_big": Verdict(
        "too long for the interface that it should leave by",
        "give all of the balancer's interfaces the same MTU ('ip link')",
    ),
    "drop_martian": Verdict(
        "its source is an address that nobody can answer",
        "a broken or hostile sender; 'xdplb trace --reason drop_martian' shows who",
    ),
    "drop_no_backend": Verdict(
        "no backend of the service takes traffic, or the flow waits for one that is down "
        "(--on-down drop)",
        "'xdplb backend list' shows their states; 'backend undrain' or 'backend add' helps",
    ),
    "drop_unresolved": Verdict(
        "the MAC address of the way there is not known",
        "see that the next hop is on and on this network: 'ip neighbour', 'xdplb doctor'",
    ),
    "drop_no_port": Verdict(
        "no free NAT port toward the backend was found",
        "add backends or nat-addresses, widen --nat-ports, or shorten --timeout; "
        "'xdplb capacity' says how much",
    ),
    "drop_table_full": Verdict(
        "the flow table had no room",
        "more --max-flows, after 'xdplb down', or a shorter --timeout",
    ),
    "drop_client_limit": Verdict(
        "its client has as many flows as it may have",
        "'xdplb top' shows the clients; raise --max-client-flows if this one is honest",
    ),
}
"""In the program's order."""

DROPPED: Final = "drop_"
PASSED: Final = "pass_"
