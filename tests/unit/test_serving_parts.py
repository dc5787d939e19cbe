"""What serving is made of: one question for many, the socket, and whose name is ours."""

from __future__ import annotations

import asyncio
import socket
from ipaddress import ip_address
from pathlib import Path

import pytest
from health_peers import bound, nothing_left_open

from xdplb.errors import InvalidValueError, NotReadyError, PrivilegeError
from xdplb.listen import Listen
from xdplb.model import Endpoint
from xdplb.serving.guard import is_own_name
from xdplb.serving.recent import GOOD_FOR_S, Recent
from xdplb.serving.sockets import listening

LOOPBACK = ip_address("127.0.0.1")


class Question:
    """Takes a while, and may fail."""

    def __init__(self) -> None:
        self.asked = 0
        self.open = 0
        self.now = 0.0
        self.takes = 0.0
        self.go_on = asyncio.Event()
        self.error: Exception | None = None
        self.recent = Recent(self.find, lambda: self.now)

    async def find(self) -> int:
        self.asked += 1
        self.open += 1
        assert self.open == 1
        await self.go_on.wait()
        self.now += self.takes
        self.open -= 1
        if self.error is not None:
            raise self.error
        return self.asked


def test_all_who_ask_at_the_same_time_get_one_answer() -> None:
    async def main() -> None:
        question = Question()
        tasks = [asyncio.create_task(question.recent.get()) for _ in range(20)]
        await asyncio.sleep(0)
        tasks[0].cancel()  # one who goes away does not take it from the others
        await asyncio.sleep(0)
        question.go_on.set()
        assert await asyncio.gather(*tasks[1:]) == [1] * 19
        assert tasks[0].cancelled()

    asyncio.run(main())


@pytest.mark.parametrize(("takes", "rest"), [(0.0, GOOD_FOR_S), (2.0, 8.0)])
def test_an_answer_is_good_for_a_second_or_four_times_as_long_as_it_took(
    takes: float, rest: float
) -> None:
    async def main() -> None:
        question = Question()
        question.go_on.set()
        question.takes = takes
        assert await question.recent.get() == 1
        question.now += rest - 0.01
        assert await question.recent.get() == 1
        question.now += 0.02
        assert await question.recent.get() == 2

    asyncio.run(main())


def test_a_failure_is_an_answer_and_does_not_last() -> None:
    async def main() -> None:
        question = Question()
        question.go_on.set()
        question.error = NotReadyError("no")
        for _ in range(2):
            with pytest.raises(NotReadyError):
                await question.recent.get()
        question.error = None
        question.now += 1
        assert await question.recent.get() == 2

    asyncio.run(main())


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "127.0.0.1:9170", "[::1]", "[::1]:9170", "localhost", "LOCALHOST:8000",
     "192.0.2.1:80", socket.gethostname(), f"{socket.gethostname()}:80"],
)  # fmt: skip
def test_addresses_and_names_of_this_machine_are_its_own(host: str) -> None:
    assert is_own_name(host)


@pytest.mark.parametrize(
    "host",
    ["", "evil.example", "evil.example:9170", "127.0.0.1.evil.example", "localhost.evil.example",
     f"{socket.gethostname()}.evil.example", "127.0.0.1@evil.example", "[::1", "::1",
     "localhost:80:80", "localhost:x", "127.0.0.1 ", "[evil.example]"],
)  # fmt: skip
def test_any_other_name_could_be_somebody_elses(host: str) -> None:
    assert not is_own_name(host)


# The socket


def free_port() -> int:
    with bound(socket.SOCK_STREAM) as (_, port):
        return port


def test_a_port_can_be_had_again_at_once() -> None:
    place = Endpoint(LOOPBACK, free_port())
    for _ in range(2):
        with nothing_left_open(), listening(Listen(place)) as sock:
            assert sock.getsockname() == ("127.0.0.1", place.port)
            with socket.create_connection(("127.0.0.1", place.port)):
                pass


def test_ipv6_is_listened_on_alone() -> None:
    with listening(Listen(Endpoint(ip_address("::1"), free_port()))) as sock:
        assert sock.getsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY) == 1


def test_a_port_in_use_is_named_with_what_shows_by_whom() -> None:
    with bound(socket.SOCK_STREAM) as (taken, port), nothing_left_open():
        taken.listen()
        place = Endpoint(LOOPBACK, port)
        with pytest.raises(NotReadyError, match=f"listens on 127.0.0.1:{port}") as caught:
            listening(Listen(place)).__enter__()
    assert caught.value.exit_code == 3
    assert "ss -ltnp" in caught.value.hint


def test_an_address_of_somebody_else_cannot_be_listened_on() -> None:
    place = Endpoint(ip_address("192.0.2.1"), 9170)
    with pytest.raises(NotReadyError, match="is no address of this network namespace"):
        listening(Listen(place, allow_remote=True)).__enter__()


def test_a_port_may_need_a_privilege(monkeypatch: pytest.MonkeyPatch) -> None:
    def bind(_: socket.socket, address: object) -> None:
        raise PermissionError(13, f"Permission denied: {address}")

    monkeypatch.setattr(socket.socket, "bind", bind)
    with pytest.raises(PrivilegeError, match=r"listen on 127\.0\.0\.1:80"):
        listening(Listen(Endpoint(LOOPBACK, 80))).__enter__()


def test_a_unix_socket_is_for_its_group_and_goes_with_the_process(tmp_path: Path) -> None:
    path = tmp_path / "agent.sock"
    with listening(Listen(path)):
        assert path.is_socket()
        assert path.stat().st_mode & 0o777 == 0o660
        with pytest.raises(NotReadyError, match="another process listens on"):
            listening(Listen(path)).__enter__()
        assert path.is_socket()
    assert not path.exists()


def test_what_a_dead_process_left_is_replaced_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "agent.sock"
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(f"{path}")
    with listening(Listen(path)), socket.socket(socket.AF_UNIX) as client:
        client.connect(f"{path}")
    path.write_text("precious")
    with pytest.raises(InvalidValueError, match="is there, and no socket"):
        listening(Listen(path)).__enter__()
    assert path.read_text() == "precious"


def test_the_socket_of_a_successor_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "agent.sock"
    with listening(Listen(path)):
        path.unlink()
        with socket.socket(socket.AF_UNIX) as successor:
            successor.bind(f"{path}")
    assert path.is_socket()


def test_a_directory_that_is_not_there_is_a_refusal() -> None:
    with pytest.raises(NotReadyError, match="cannot listen on /nowhere"):
        listening(Listen(Path("/nowhere/agent.sock"))).__enter__()
