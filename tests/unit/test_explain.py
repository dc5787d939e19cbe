"""What ``explain`` makes of a program's answer, and whom a person means by a service."""

from __future__ import annotations

import json
from dataclasses import replace
from ipaddress import ip_address
from typing import Any

import pytest
from click.testing import CliRunner
from fake_machine import OWN, FakeMachine, request, service

from xdplb import frames
from xdplb.balancer import Balancer
from xdplb.cli import commands
from xdplb.errors import InvalidValueError, NotReadyError, UnreachableError
from xdplb.explaining import Explanation, sentences, to_json
from xdplb.facts import Rehearsal
from xdplb.model import IPV4, Backend, BackendState, Endpoint, OnDown, Protocol
from xdplb.request import Request
from xdplb.wire import NO_INDEX, ClientKey, ClientValue, FlowCode, FlowRecord, Owner

CLIENT = Endpoint(ip_address("198.51.100.7"), 5555)
CLIENT6 = Endpoint(ip_address("2001:db8:7::7"), 5555)
NOW = 100_000
MAC = bytes.fromhex("020000000001")


def machine_with(wanted: Request | None = None) -> FakeMachine:
    made = FakeMachine()
    Balancer(made).up(wanted or request())
    made.run_on()
    return made


def leaving(port: int, backend: str = "192.0.2.10") -> bytes:
    return frames.make(
        Endpoint(OWN[IPV4], port), Endpoint(ip_address(backend), 53), Protocol.UDP, MAC
    )


def known(state: FlowCode = FlowCode.ANSWERED, backend: int = 0, **more: Any) -> Any:
    """What ``client_port`` and ``reverse_lookup`` have of the client."""
    key = ClientKey(CLIENT.address, CLIENT.port, OWN[IPV4], 53, 0)
    owner = Owner(NOW - 150, backend, state, 0)
    flow = FlowRecord(owner, CLIENT.address, CLIENT.port, 53, bytes(5) + b"\1", 0)
    return key, ClientValue(6666, backend), flow._replace(**more)


SENT = Rehearsal("forward", leaving(6666), (IPV4, 0), 0, None, NOW, is_same=True)
DROPPED = Rehearsal("drop_no_backend", b"", None, NO_INDEX, None, NOW, is_same=True)


def explained(answer: Rehearsal, **fields: Any) -> Explanation:
    machine = machine_with()
    machine.rehearsal = replace(answer, **fields)
    return Balancer(machine).explain(CLIENT, "192.0.2.1:53")


def line(item: Explanation, about: str) -> str:
    return dict(sentences(item)).get(about, "")


def test_a_new_flow_is_told_from_the_packet_to_what_leaves() -> None:
    item = explained(SENT)
    assert line(item, "packet") == "198.51.100.7:5555 > 192.0.2.1:53 udp, in by eth0"
    assert line(item, "service") == "192.0.2.1 udp, all ports, by src-dst"
    assert "of 16381 has 192.0.2.10, which is up" in line(item, "table")
    assert line(item, "flow") == "none yet, a new one would be opened"
    assert line(item, "leaves").startswith("192.0.2.1:6666 > 192.0.2.10:53 udp")
    assert line(item, "verdict") == "forward: sent from a client to its backend"
    assert not line(item, "hint")
    assert not line(item, "note")


def test_a_live_flow_is_kept_whatever_the_table_has() -> None:
    item = explained(SENT, known=known(), chosen=1)
    assert line(item, "flow") == (
        "to 192.0.2.10 from port 6666, answered, 10 s idle; it stays there, whatever the table has"
    )
    assert to_json(item)["flow"] == {
        "backend": "192.0.2.10",
        "nat_port": 6666,
        "state": "answered",
        "idle": 10.066,
        "kept": True,
    }


def test_a_live_flow_that_the_table_agrees_with_is_gone_on_with() -> None:
    assert line(explained(SENT, known=known()), "flow").endswith("the packet goes on with it")


def test_a_flow_that_the_packet_leaves_is_told() -> None:
    item = explained(SENT, known=known(backend=1), chosen=0)
    assert line(item, "flow").endswith("10 s idle; the packet does not go on with it")


def test_a_reservation_without_a_packet_has_not_been_used() -> None:
    item = explained(SENT, known=known(FlowCode.RESERVED, client_mac=None))
    assert "reserved, not used yet" in line(item, "flow")
    assert to_json(item)["flow"]["idle"] is None


@pytest.mark.parametrize(
    "entry",
    [
        known(FlowCode.FREE),
        known(FlowCode.CLAIMED),
        known(client=ip_address("198.51.100.8")),
        known(client_port=1),
        (*known()[:2], None),
        (known()[0], ClientValue(6666, 99), known()[2]),
    ],
)
def test_an_entry_that_leads_to_no_flow_of_the_client_is_none(entry: Any) -> None:
    assert explained(SENT, known=entry).flow is None


def test_a_record_seen_a_tick_later_than_now_is_not_idle() -> None:
    item = explained(SENT, known=known(owner=Owner(NOW + 1, 0, FlowCode.ANSWERED, 0)))
    assert "answered, 0 s idle" in line(item, "flow")


def test_a_drop_has_its_reason_and_what_to_do() -> None:
    item = explained(DROPPED)
    assert line(item, "table").endswith("has no backend: none of the service takes new flows")
    assert line(item, "flow") == "none yet"
    assert not line(item, "leaves")
    assert line(item, "verdict").startswith("drop_no_backend: no backend of the service takes ")
    assert "backend list" in line(item, "hint")
    answer = to_json(item)
    assert (answer["verdict"], answer["leaves"], answer["backend"]) == (
        "drop_no_backend",
        None,
        None,
    )
    assert answer["hint"] == line(item, "hint")


@pytest.mark.parametrize("on_down", OnDown)
def test_a_flow_that_waits_for_its_backend_is_told(on_down: OnDown) -> None:
    down = Backend(ip_address("192.0.2.10"), state=BackendState.DOWN)
    asked = service("192.0.2.1", "192.0.2.11", on_down=on_down)
    asked = replace(asked, backends=(down, *asked.backends))
    machine = machine_with(Request(("eth0",), (asked,)))
    machine.rehearsal = replace(DROPPED, known=known(), chosen=1)
    item = Balancer(machine).explain(CLIENT, "192.0.2.1:53")
    waits = "10 s idle; that is down, and the flow waits for it (on-down drop)"
    assert line(item, "flow").endswith(waits) is (on_down is OnDown.DROP)


def test_a_backend_that_nobody_answers_for_is_named() -> None:
    item = explained(replace(DROPPED, verdict="drop_unresolved"), chosen=0)
    assert "has 192.0.2.10, which is up, and nobody answers for 192.0.2.10" in line(item, "table")


def test_a_program_of_another_xdplb_is_noted() -> None:
    item = explained(SENT, is_same=False)
    assert "'xdplb up' again" in line(item, "note")
    assert to_json(item)["same_program"] is False


def test_a_verdict_that_is_not_known_is_no_fault() -> None:
    assert "does not know" in line(explained(SENT, verdict="reply_magic"), "verdict")


def test_the_question_is_a_packet_as_the_client_would_send_it() -> None:
    machine = machine_with()
    Balancer(machine).explain(CLIENT, "192.0.2.1:53")
    (question,) = machine.asked
    assert question.frame == frames.make(
        CLIENT, Endpoint(OWN[IPV4], 53), Protocol.UDP, machine.links["eth0"].mac
    )
    assert [key.service_port for key in question.keys] == [53, 0]
    assert (question.service, question.ifindex) == (0, 2)
    assert 0 <= question.slot < 16381


def test_a_known_connection_is_asked_about_with_a_segment_that_goes_on() -> None:
    machine = machine_with(Request(("eth0",), (service("", "192.0.2.10", protocol=Protocol.TCP),)))
    Balancer(machine).explain(CLIENT)
    (question,) = machine.asked
    flags = [data[14 + 20 + 13] for data in (question.frame, question.goes_on)]
    assert flags == [0x02, 0x10]


def test_what_is_no_services_is_asked_all_the_same() -> None:
    machine = machine_with(Request(("eth0",), (service("", "192.0.2.10"),)))
    item = Balancer(machine).explain(CLIENT, "192.0.2.1:54")
    assert (machine.asked[0].keys, machine.asked[0].service) == ((), None)
    assert line(item, "service").startswith("none;")
    assert not line(item, "table")
    assert to_json(item)["slot"] is None


def test_it_comes_in_where_the_client_is_reached_or_where_one_says() -> None:
    machine = machine_with(request(interfaces=("eth0", "eth1")))
    balancer = Balancer(machine)
    assert balancer.explain(CLIENT, "192.0.2.1:53").interface == "eth0"
    assert balancer.explain(CLIENT, "192.0.2.1:53", came_by="eth1").interface == "eth1"
    machine.fail["way"] = [UnreachableError("no way")]
    assert balancer.explain(CLIENT, "192.0.2.1:53").interface == "eth0"


def test_an_interface_that_is_not_the_balancers_is_refused() -> None:
    with pytest.raises(NotReadyError, match="does not sit on eth1"):
        Balancer(machine_with()).explain(CLIENT, "192.0.2.1:53", came_by="eth1")


SEVERAL = Request(
    ("eth0",),
    (
        service("192.0.2.1", "192.0.2.10", name="dns"),
        service("192.0.2.1", "192.0.2.10", name="dns", protocol=Protocol.TCP),
        service("192.0.2.2", "192.0.2.10", ports=(514, 515), name="log"),
        service("2001:db8::1", "2001:db8::10", name="dns"),
    ),
)


@pytest.mark.parametrize(
    ("client", "text", "protocol", "dialled"),
    [
        (CLIENT, "192.0.2.1:53", None, "192.0.2.1:53 udp"),
        (CLIENT, "192.0.2.1:53", Protocol.TCP, "192.0.2.1:53 tcp"),
        (CLIENT, "192.0.2.1", None, "192.0.2.1:53 udp"),
        (CLIENT, "dns", None, "192.0.2.1:53 udp"),
        (CLIENT, "dns", Protocol.TCP, "192.0.2.1:53 tcp"),
        (CLIENT, "log:515", None, "192.0.2.2:515 udp"),
        (CLIENT, "192.0.2.2:9", None, "192.0.2.2:9 udp"),
        (CLIENT, "192.0.2.77:9", None, "192.0.2.77:9 udp"),
        (CLIENT6, None, None, "[2001:db8::1]:53 udp"),
        (CLIENT6, "dns:53", None, "[2001:db8::1]:53 udp"),
        (CLIENT6, "[2001:db8::1]:53", None, "[2001:db8::1]:53 udp"),
        (CLIENT6, "[2001:db8::1]", None, "[2001:db8::1]:53 udp"),
        (CLIENT6, "2001:db8::1", None, "[2001:db8::1]:53 udp"),
    ],
)
def test_a_service_is_meant_by_address_or_name(
    client: Endpoint, text: str | None, protocol: Protocol | None, dialled: str
) -> None:
    item = Balancer(machine_with(SEVERAL)).explain(client, text, protocol)
    assert f"{item.dialled} {item.protocol}" == dialled


@pytest.mark.parametrize(
    ("client", "text", "reason"),
    [
        (CLIENT, None, "which service is meant"),
        (CLIENT, "log", "which port"),
        (CLIENT6, "log", "no service is meant"),
        (CLIENT, "192.0.2.77", "which port"),
        (CLIENT, "nonsense:53", "'nonsense' is neither a service nor an address"),
        (CLIENT, "dns:x", "is not a port"),
        (CLIENT, "2001:db8::1", "different IP versions"),
        (CLIENT, "[2001:db8::1]:53", "different IP versions"),
    ],
)
def test_what_is_not_clear_is_asked_for(client: Endpoint, text: str | None, reason: str) -> None:
    with pytest.raises(InvalidValueError, match=reason):
        Balancer(machine_with(SEVERAL)).explain(client, text)


def test_the_command_prints_lines_or_json(monkeypatch: pytest.MonkeyPatch) -> None:
    machine = machine_with()
    machine.rehearsal = SENT
    monkeypatch.setattr("xdplb.kernel.compiler.Compiler", lambda _: None)
    monkeypatch.setattr("xdplb.kernel.machine.Machine", lambda *_: machine)
    words = ("explain", "198.51.100.7:5555", "192.0.2.1:53")
    said = CliRunner().invoke(commands, words).output.splitlines()
    assert said[0] == "packet   198.51.100.7:5555 > 192.0.2.1:53 udp, in by eth0"
    assert said[-1] == "verdict  forward: sent from a client to its backend"
    answer = json.loads(CliRunner().invoke(commands, (*words, "--json", "--in", "eth0")).output)
    assert answer["leaves"] == {
        "source": "192.0.2.1",
        "source_port": 6666,
        "destination": "192.0.2.10",
        "destination_port": 53,
    }
    assert answer["chosen"]["address"] == "192.0.2.10"


def test_a_backend_number_beyond_the_records_is_nobody() -> None:
    item = explained(SENT, chosen=99)
    assert item.chosen is None
    assert item.target is not None
    assert item.target.backend == Backend(ip_address("192.0.2.10"))
