"""What the counters tell: who is silent while others answer."""

from __future__ import annotations

import pytest

from xdplb.checks import Health, UdpCheck
from xdplb.health.passive import Counters, Findings, Passive, Suspect, Turn
from xdplb.health.trial import Trial

ACTIVE = Health(check=UdpCheck(b"ping"))
ALONE = Health(fall=3)
SILENT = "packets in 2 s and no answer, while others answer"


class Service:
    """Backends A and B, as they are counted; a look every second."""

    def __init__(self, health: Health, *, one_way: bool = False, names: str = "AB") -> None:
        self.passive: Passive[str] = Passive(health, one_way=one_way)
        self.counters = dict.fromkeys(names, Counters(100, 100, 0))
        self.now = 0.0
        assert self.look() == Findings()

    def look(self, after: float = 1.0, **added: tuple[int, ...]) -> Findings[str]:
        """Add packets in, packets out and port unreachables, and look."""
        self.now += after
        for name, more in added.items():
            old = self.counters[name]
            into, out, unreachable = (*more, 0, 0)[:3]
            self.counters[name] = Counters(
                old.packets_in + into, old.packets_out + out, old.unreachable + unreachable
            )
        return self.passive.look(dict(self.counters), self.now)

    def window(self) -> Findings[str]:
        """Three looks in which A is asked enough and is silent, and B answers."""
        for _ in range(2):
            assert self.look(A=(3,), B=(3, 3)) == Findings()
        return self.look(A=(3,), B=(3, 3))


def suspect(reason: str) -> Findings[str]:
    return Findings(suspects=(Suspect("A", reason),))


def turn(reason: str, *, healthy: bool) -> Findings[str]:
    return Findings(turns=(Turn("A", healthy, reason),))


def test_who_is_silent_for_long_enough_while_another_one_answers_is_suspect() -> None:
    service = Service(ACTIVE)
    assert service.window() == suspect(f"9 {SILENT}")
    assert service.look(B=(3, 3)) == Findings()  # and is told once, as long as nothing is new
    assert service.window() == suspect(f"9 {SILENT}")


def test_too_few_packets_are_no_evidence() -> None:
    service = Service(ACTIVE)
    for _ in range(4):
        assert service.look(A=(1,), B=(9, 9)) == Findings()
    assert service.look(A=(1,), B=(9, 9)) == suspect(
        "5 packets in 4 s and no answer, while others answer"
    )


def test_too_short_a_time_is_no_evidence() -> None:
    service = Service(ACTIVE)
    assert service.look(A=(1000,), B=(9, 9)) == Findings()
    assert service.look(after=1.9, A=(1000,), B=(9, 9)) == Findings()
    assert service.look(after=0.1, B=(9, 9)) == suspect(f"2000 {SILENT}")


def test_time_counts_from_the_first_packet_that_is_not_answered() -> None:
    service = Service(ACTIVE)
    service.look(A=(1, 1), B=(1, 1))
    assert service.look(after=3600, A=(1000,), B=(9, 9)) == Findings()


def test_silence_of_all_is_no_evidence() -> None:
    service = Service(ACTIVE)
    service.look(B=(1, 1))
    for _ in range(9):
        assert service.look(A=(9,), B=(9,)) == Findings()
    assert service.look(A=(9,), B=(9, 1)).suspects[0].key == "A"


def test_an_answer_of_another_one_from_before_does_not_count() -> None:
    service = Service(ACTIVE)
    service.look(A=(9,), B=(9, 9))  # in the look that began the window
    assert service.look(A=(9,)) == Findings()
    assert service.look(A=(9,)) == Findings()


def test_a_backend_alone_is_not_suspect_by_its_silence() -> None:
    service = Service(ACTIVE, names="A")
    for _ in range(9):
        assert service.look(A=(9,)) == Findings()


def test_an_answer_ends_the_window() -> None:
    service = Service(ACTIVE)
    service.look(A=(9,), B=(9, 9))
    service.look(A=(9, 1), B=(9, 9))
    assert service.look(A=(9,), B=(9, 9)) == Findings()
    assert service.look(A=(9,), B=(9, 9)) == Findings()
    assert service.look(A=(9,), B=(9, 9)) == suspect(f"27 {SILENT}")


def test_a_window_without_evidence_is_given_up_after_a_minute() -> None:
    service = Service(ACTIVE)
    service.look(A=(4,))
    assert service.look(after=60) == Findings()
    service.look(A=(4,), B=(9, 9))
    assert service.look(B=(9, 9)) == Findings()
    assert service.look(B=(9, 9)) == Findings()  # these are four, not eight


def test_port_unreachables_are_evidence_at_once_and_again_at_the_end_of_the_window() -> None:
    service = Service(ACTIVE, names="A")
    assert service.look(A=(1, 0, 1)) == suspect("port unreachable")
    assert service.look(A=(1, 0, 1)) == Findings()
    assert service.look(A=(1, 0, 1)) == suspect("port unreachable")


def test_port_unreachables_with_an_answer_are_none() -> None:
    service = Service(ACTIVE, names="A")
    for _ in range(5):
        assert service.look(A=(2, 1, 1)) == Findings()


@pytest.mark.parametrize(
    ("health", "one_way"),
    [(ACTIVE, True), (ALONE, True), (Health(check=UdpCheck(b""), passive=False), False)],
)
def test_where_nobody_is_to_judge_nobody_is_suspect(health: Health, *, one_way: bool) -> None:
    service = Service(health, one_way=one_way)
    for _ in range(20):
        assert service.look(A=(9, 0, 9), B=(9, 9)) == Findings()
    assert service.passive.healthy("A")


def test_who_is_gone_is_forgotten_and_counts_from_its_first_look() -> None:
    service = Service(ACTIVE)
    service.look(A=(1, 1))
    gone = service.counters.pop("A")
    service.look()
    service.counters["A"] = Counters(gone.packets_in + 1000, gone.packets_out + 1000)
    assert service.look() == Findings()


def test_counters_that_begin_anew_are_a_first_look() -> None:
    service = Service(ACTIVE)
    service.look(A=(9,), B=(9, 9))
    service.look(A=(9,), B=(9, 9))
    service.counters["A"] = Counters(50, 5)
    assert service.look(B=(9, 9)) == Findings()
    assert service.window() == suspect(f"9 {SILENT}")


# Without an active check


def take_down(service: Service) -> None:
    assert service.window() == Findings()
    assert service.window() == Findings()
    assert service.window() == turn(f"9 {SILENT}", healthy=False)
    assert not service.passive.healthy("A")


def test_without_a_check_windows_in_a_row_take_it_down() -> None:
    take_down(Service(ALONE))


def test_an_answer_between_the_windows_begins_the_row_anew() -> None:
    service = Service(ALONE)
    service.window()
    service.window()
    service.look(A=(1, 1))
    take_down(service)


def test_a_window_that_is_given_up_begins_the_row_anew() -> None:
    service = Service(ALONE)
    service.window()
    service.window()
    service.look(A=(1,))
    service.look(after=60)
    take_down(service)


def test_it_is_tried_after_a_pause_and_back_with_an_answer() -> None:
    service = Service(ALONE)
    take_down(service)
    assert service.look(after=9.9, B=(9, 9)) == Findings()
    assert service.look(after=0.1, B=(9, 9)) == turn("on trial after 10 s", healthy=True)
    assert service.passive.healthy("A")
    assert service.look(A=(9, 9), B=(9, 9)) == Findings()
    take_down_again = [service.window() for _ in range(3)]
    assert take_down_again[-1].turns[0].healthy is False  # not on trial any more: a row of three


def test_one_window_ends_a_trial_and_the_pauses_grow_to_five_minutes() -> None:
    service = Service(ALONE)
    take_down(service)
    for pause in (10, 20, 40, 80, 160, 300, 300):
        assert service.look(after=pause - 0.1, B=(9, 9)) == Findings()
        assert service.look(after=0.1) == turn(f"on trial after {pause} s", healthy=True)
        assert service.window() == turn(f"9 {SILENT}", healthy=False)


def test_a_trial_without_traffic_goes_on() -> None:
    service = Service(ALONE)
    take_down(service)
    service.look(after=10)
    for _ in range(5):
        assert service.look(after=100, B=(9, 9)) == Findings()
    assert service.passive.healthy("A")


def test_a_port_unreachable_ends_a_trial_only_after_a_whole_window() -> None:
    service = Service(ALONE)
    take_down(service)
    service.look(after=10)
    assert service.look(A=(1, 0, 1)) == Findings()
    assert service.look(A=(1, 0, 1)) == Findings()
    assert service.look(A=(1, 0, 1)) == turn("port unreachable", healthy=False)


def test_one_that_is_down_and_answers_all_the_same_is_back() -> None:
    service = Service(ALONE)
    take_down(service)
    assert service.look(A=(9,), B=(9, 9)) == Findings()  # as when the service cannot do without
    assert service.look(A=(9, 1), B=(9, 9)) == turn("it answers", healthy=True)


def test_a_pause_is_forgotten_when_the_backend_has_served_for_as_long() -> None:
    trial = Trial()
    assert not trial.answer(0)
    trial.fail(1)
    assert not trial.begin(10.9)
    assert trial.begin(11)
    assert not trial.begin(11)
    assert not trial.answer(12)
    trial.answer(21.9)
    trial.fail(21.9)
    assert trial.pause == 20  # it served for less than ten seconds
    trial.begin(42)
    trial.answer(43)
    trial.answer(63)
    trial.fail(64)
    assert trial.pause == 10
    assert trial.answer(65)
