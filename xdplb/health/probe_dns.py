"""A question over UDP, and its answer (RFC 1035)."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from xdplb.errors import NotReadyError
from xdplb.health.target import ProbeFailed, datagram_socket

if TYPE_CHECKING:
    from dns.message import Message

    from xdplb.checks import DnsCheck
    from xdplb.health.target import Target

MAX_ANSWER: Final = 65535


def require_dnspython() -> None:
    """Find out whether questions can be written.

    Raises:
        NotReadyError: dnspython is not installed.
    """
    try:
        import dns.message  # noqa: F401, PLC0415 - only who checks by DNS needs it
    except ImportError:
        raise NotReadyError(
            "health checks by DNS need dnspython", "pip install 'xdplb[agent]'"
        ) from None


async def probe_dns(check: DnsCheck, target: Target) -> None:
    """Ask, and look at the first answer that belongs to the question.

    Others are passed over, as somebody may have guessed at them (RFC 5452).

    Raises:
        ProbeFailed: The port is unreachable, or the answer has an error, or no record.
        NotReadyError: dnspython is not installed.
        OSError: It cannot be sent.
    """
    require_dnspython()
    import dns.exception  # noqa: PLC0415 - only who checks by DNS needs it
    import dns.message  # noqa: PLC0415

    loop = asyncio.get_running_loop()
    question = dns.message.make_query(check.name, check.type)
    with datagram_socket(target) as sock:
        await loop.sock_sendall(sock, question.to_wire())
        while True:
            data = await loop.sock_recv(sock, MAX_ANSWER)
            try:
                answer = dns.message.from_wire(data)
            except dns.exception.DNSException:
                raise ProbeFailed("answer is no DNS message") from None
            if question.is_response(answer):
                break
    _judge(answer)


def _judge(answer: Message) -> None:
    import dns.flags  # noqa: PLC0415 - only who checks by DNS needs it
    import dns.rcode  # noqa: PLC0415

    if answer.rcode() != dns.rcode.NOERROR:
        raise ProbeFailed(dns.rcode.to_text(answer.rcode()))
    if not answer.answer:
        truncated = bool(answer.flags & dns.flags.TC)
        raise ProbeFailed("answer is truncated" if truncated else "answer has no record")
