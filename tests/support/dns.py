"""A DNS server for tests, whose answers a test sets, and a way to make this process ask it.

gRPC's own resolver does not: it reads the system's settings.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections import Counter
from collections.abc import Iterator
from types import TracebackType
from typing import Self

import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import dns.resolver
import dns.rrset

from support.waiting import LONG


class DnsServer:
    """Answers questions for A and AAAA records of names, over UDP on loopback."""

    def __init__(self) -> None:
        """Does not run yet, and knows no name."""
        self._records: dict[str, tuple[str, ...]] = {}
        self.asked: Counter[str] = Counter()
        """How often each name was asked for, as far as it was asked for A records."""
        self.is_silent = False
        """Whether questions get no answer at all."""
        self.fails = False
        """Whether each question is answered with SERVFAIL."""
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]
        self._thread = threading.Thread(target=self._serve, name="test-dns", daemon=True)

    def set(self, name: str, *addresses: str) -> None:
        """The name has these addresses from now on; with none it exists, but has no address."""
        self._records[name] = addresses

    def forget(self, name: str) -> None:
        """The name does not exist from now on."""
        del self._records[name]

    def resolver(self, lifetime: float = 1.0) -> dns.resolver.Resolver:
        """A resolver that asks this server alone, and gives up after `lifetime` seconds."""
        resolver = dns.resolver.Resolver(configure=False)
        resolver.nameservers = ["127.0.0.1"]
        resolver.port = self.port
        resolver.lifetime = resolver.timeout = lifetime
        # One that fails is not asked again within the same look-up.
        resolver.retry_servfail = False
        return resolver

    def _serve(self) -> None:
        while True:
            question, client = self._socket.recvfrom(4096)
            if not question:
                return
            if not self.is_silent:
                self._socket.sendto(self._answer(dns.message.from_wire(question)), client)

    def _answer(self, question: dns.message.Message) -> bytes:
        answer = dns.message.make_response(question)
        answer.flags |= dns.flags.RA
        asked = question.question[0]
        name = asked.name.to_text(omit_final_dot=True)
        if asked.rdtype == dns.rdatatype.A:
            self.asked[name] += 1
        if self.fails:
            answer.set_rcode(dns.rcode.SERVFAIL)
        elif name not in self._records:
            answer.set_rcode(dns.rcode.NXDOMAIN)
        else:
            is_ipv6 = asked.rdtype == dns.rdatatype.AAAA
            found = [text for text in self._records[name] if (":" in text) is is_ipv6]
            if found:
                answer.answer.append(dns.rrset.from_text_list(asked.name, 0, "IN", asked.rdtype, found))
        return answer.to_wire()

    def __enter__(self) -> Self:
        """Starts it."""
        self._thread.start()
        return self

    def __exit__(
        self, exc_type: type[BaseException] | None, exc_val: BaseException | None, exc_tb: TracebackType | None
    ) -> None:
        """Stops it."""
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stopping:
            stopping.sendto(b"", ("127.0.0.1", self.port))
        self._thread.join(LONG)
        self._socket.close()


@contextlib.contextmanager
def asked_by_this_process(server: DnsServer, *, lifetime: float = 1.0) -> Iterator[None]:
    """Within, `socket.getaddrinfo` asks the server, on all threads."""
    dns.resolver.override_system_resolver(server.resolver(lifetime))
    try:
        yield
    finally:
        dns.resolver.restore_system_resolver()
