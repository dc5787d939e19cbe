"""The balancer against a model of a NAT: whatever order things happen in, both agree.

The model knows nothing of records and hashes. It knows who has spoken to whom and when, and
what a NAT owes them (RFC 4787, RFC 6888).
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import TYPE_CHECKING

import pytest
from bpf_harness import Loaded, make_request
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, rule
from packets import SERVICE, backend_mac, udp
from scapy.layers.inet import IP, UDP
from scapy.layers.l2 import Ether

from xdplb.kernel import tables
from xdplb.model import PortRange
from xdplb.selection import select_slot
from xdplb.wire import FlowCode

if TYPE_CHECKING:
    from bpf_harness import Result

PORTS = (PortRange(2000, 2004), PortRange(3000, 3002))
BACKENDS = ("172.11.0.20", "172.11.0.21")
UNREPLIED_S = 30
ANSWERED_S = 120
CLIENTS = st.tuples(st.integers(100, 119), st.integers(5000, 5001), st.sampled_from([53, 123]))


@dataclass
class Flow:
    """A flow as the model sees it."""

    client: str
    port: int
    dport: int
    backend: int
    nat_port: int
    idle_s: float = 0
    is_answered: bool = False

    @property
    def may_go(self) -> bool:
        """Idle for so long that its port may be given away."""
        return self.idle_s > (ANSWERED_S if self.is_answered else UNREPLIED_S)


class Nat(RuleBasedStateMachine):
    """Two backends, eight ports each."""

    flows = Bundle("flows")

    def __init__(self) -> None:
        """Start with an empty table."""
        super().__init__()
        self.balancer = Loaded(
            make_request(*BACKENDS, nat_ports=PORTS, max_flows=16, max_client_flows=0)
        )
        self.model: dict[tuple[str, int, int], Flow] = {}
        self.sent: Counter[str] = Counter()

    def teardown(self) -> None:
        """Free the program."""
        self.balancer.close()

    def run(self, packet: bytes) -> Result:
        """Give a packet to the balancer, and remember what became of it."""
        result = self.balancer.run(packet)
        self.sent[result.verdict] += 1
        return result

    def chosen(self, client: str, port: int, dport: int) -> int:
        """The backend that a new flow should get, as Python computes it."""
        plan = self.balancer.plan
        slot = select_slot(
            plan.services[0].service.hash,
            plan.facts.hash_keys,
            (IPv4Address(client), port),
            (IPv4Address(SERVICE), dport),
        )
        return plan.tables[0][slot]

    @rule(target=flows, client=CLIENTS)
    def client_sends(self, client: tuple[int, int, int]) -> tuple[str, int, int]:
        """A client with or without a flow sends a datagram."""
        key = (f"172.11.0.{client[0]}", client[1], client[2])
        self.send(key)
        return key

    def send(self, key: tuple[str, int, int]) -> None:
        """A datagram of a client: by its flow, by a new one, or refused for want of a port."""
        address, port, dport = key
        result = self.run(udp(src=address, sport=port, dport=dport))
        flow = self.model.get(key)
        backend = flow.backend if flow else self.chosen(*key)
        others = [item for item in self.model.values() if item.backend == backend]
        if flow is None and len(others) == 8 and not any(item.may_go for item in others):
            assert result.verdict == "drop_no_port"
            return
        assert result.verdict == "forward"
        out = Ether(result.packet)
        assert (out.dst, out[IP].dst) == (backend_mac(backend), BACKENDS[backend])
        nat_port = int(out[UDP].sport)
        assert any(nat_port in item for item in PORTS)
        if flow is None:
            for victim in [item for item in others if item.nat_port == nat_port]:
                assert victim.may_go, "a live flow lost its port"
                del self.model[victim.client, victim.port, victim.dport]
            self.model[key] = Flow(*key, backend, nat_port)
        else:
            assert nat_port == flow.nat_port
            flow.idle_s = 0

    @rule(key=flows)
    def backend_answers(self, key: tuple[str, int, int]) -> None:
        """The backend of a flow answers its client."""
        flow = self.model.get(key)
        if flow is not None:
            self.hear(flow)

    def hear(self, flow: Flow) -> None:
        """An answer reaches the client of its flow."""
        result = self.run(self.answer(flow))
        assert result.verdict == "return"
        out = Ether(result.packet)
        assert (out[IP].src, out[UDP].sport) == (SERVICE, flow.dport)
        assert (out[IP].dst, out[UDP].dport) == (flow.client, flow.port)
        flow.is_answered = True
        flow.idle_s = 0

    @staticmethod
    def answer(flow: Flow) -> bytes:
        """What the backend of a flow sends to its NAT port."""
        return udp(src=BACKENDS[flow.backend], sport=flow.dport, dport=flow.nat_port)

    @rule(key=flows)
    def the_backend_speaks_from_another_port(self, key: tuple[str, int, int]) -> None:
        """That is no answer (RFC 4787 REQ-8): it is a client like any other."""
        flow = self.model.get(key)
        if flow is not None:
            self.send((BACKENDS[flow.backend], flow.dport + 1, flow.nat_port))

    @rule(key=flows)
    def the_other_backend_answers(self, key: tuple[str, int, int]) -> None:
        """It may have a flow with that port, too; then that one's client gets the answer."""
        flow = self.model.get(key)
        if flow is None:
            return
        other = 1 - flow.backend
        for item in self.model.values():
            if (item.backend, item.nat_port, item.dport) == (other, flow.nat_port, flow.dport):
                self.hear(item)
                return
        self.send((BACKENDS[other], flow.dport, flow.nat_port))

    @rule(key=flows, seconds=st.sampled_from([10, 29, 31, 100, 119, 121, 1000]))
    def time_passes_for_a_flow(self, key: tuple[str, int, int], seconds: int) -> None:
        """Nothing is heard of a flow for some time."""
        flow = self.model.get(key)
        if flow is None:
            return
        self.balancer.age(seconds, *key)
        flow.idle_s = seconds

    @invariant()
    def the_maps_agree_with_each_other_and_with_the_model(self) -> None:
        """Each index entry leads to a record of its own, and there are no others."""
        entries = self.balancer.entries()
        assert {
            (f"{key.client}", key.client_port, key.service_port): (value.backend, value.nat_port)
            for key, value in entries.items()
        } == {key: (flow.backend, flow.nat_port) for key, flow in self.model.items()}
        places = [self.balancer.flow_place(value) for value in entries.values()]
        assert len(set(places)) == len(places), "the reverse mapping is injective"
        used = {
            place
            for place in range(self.balancer.plan.capacity)
            if tables.read_flow(self.balancer.maps, place).owner.state is not FlowCode.FREE
        }
        assert used == set(places), "ports in use and ports free are the pool"

    @invariant()
    def every_packet_is_counted_once(self) -> None:
        """What came in is what went out, by reason."""
        counts = {name: n for name, n in self.balancer.verdicts().items() if n}
        assert counts == dict(self.sent)


@pytest.mark.timeout(300)
class TestNat(Nat.TestCase):  # type: ignore[misc, valid-type]
    """A bounded run; ``make fuzz`` does more."""

    settings = settings(
        max_examples=40,
        stateful_step_count=60,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        derandomize=True,
        phases=[Phase.generate],  # ports are chosen by chance: no run can be shrunk
    )
