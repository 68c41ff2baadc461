"""Looks at one address: what is announced, how far away it is, and what is served.

gRPC's servers take pings for abuse when calls do not come between them: after the third idle one they hang up. So there
are at most two pings before each call.
"""

from __future__ import annotations

import dataclasses
import ssl
import statistics
from collections.abc import Iterator
from typing import Final

from grpc_health.v1 import health_pb2  # type: ignore[import-untyped]
from grpc_reflection.v1alpha import reflection_pb2  # type: ignore[import-untyped]
from h2.settings import SettingCodes

from grpcpool._grpc.servers_words import server_by_its_words

from .._target import Address
from .dial import DialError, Dialled, dial
from .wire import Answer, Wire, WireError, announced

_OK, _NOT_FOUND, _UNIMPLEMENTED = 0, 5, 12
_PINGS_BETWEEN_CALLS = 2
_UNKNOWN: Final = "/grpcpool.cli.Probe/Unknown"
_HEALTH: Final = "/grpc.health.v1.Health/Check"
_REFLECTIONS: Final = ("v1", "v1alpha")
_OF_GRPC = ("grpc-", "content-", "trailer", "date", ":", "accept-encoding")


@dataclasses.dataclass(slots=True)
class Settings:
    """What a server announced; `None` for what it left at HTTP/2's default (see `DEFAULTS`)."""

    max_concurrent_streams: int | None = None
    initial_window_size: int | None = None
    max_frame_size: int | None = None
    max_header_list_size: int | None = None


DEFAULTS: Final = Settings(None, 65535, 16384, None)
"""What holds without an announcement (RFC 9113, 6.5.2); `None`: no limit."""


@dataclasses.dataclass(slots=True)
class Finding:
    """What was found at one address. Durations are seconds.

    Attributes:
        address: As gRPC writes it.
        error: Why there is no more, or not all, to be told; `None` if all went well.
        connect_seconds: How long TCP took.
        tls_seconds: How long TLS took.
        tls_version: Its version.
        alpn: The protocol chosen by ALPN.
        settings: What the server announced; `None` if it does not speak HTTP/2.
        pings: The round trips.
        http_status: Of the answer to a call of a method that there is not: 200 from a gRPC server.
        server: Who answered, by headers or words, as far as they tell.
        headers: Other headers of that answer that are not gRPC's.
        health: ``SERVING`` and so on; `None` if health is not served.
        reflection: The versions of reflection that are served.
        services: The services that reflection lists.
    """

    address: str
    error: str | None = None
    connect_seconds: float | None = None
    tls_seconds: float | None = None
    tls_version: str | None = None
    alpn: str | None = None
    settings: Settings | None = None
    pings: list[float] = dataclasses.field(default_factory=list)
    http_status: int | None = None
    server: str | None = None
    headers: dict[str, str] = dataclasses.field(default_factory=dict)
    health: str | None = None
    reflection: list[str] = dataclasses.field(default_factory=list)
    services: list[str] = dataclasses.field(default_factory=list)

    @property
    def answers(self) -> bool:
        """Whether an HTTP/2 server is there."""
        return self.settings is not None

    @property
    def ping_seconds(self) -> tuple[float, float] | None:
        """The least and the median round trip."""
        return (min(self.pings), statistics.median(self.pings)) if self.pings else None


@dataclasses.dataclass(frozen=True, slots=True)
class Manner:
    """How to look.

    Attributes:
        context: For TLS; `None` for none.
        name: What the certificate has to be for.
        authority: The ``:authority`` of calls.
        timeout: Seconds that each step may take.
    """

    context: ssl.SSLContext | None
    name: str
    authority: str
    timeout: float


def look(address: Address, manner: Manner) -> Finding:
    """Finds out what there is at an address; what goes wrong is part of that."""
    finding = Finding(str(address))
    try:
        dialled = dial(address, manner.context, manner.name, manner.timeout)
    except DialError as error:
        finding.error = str(error)
        return finding
    _note_dialled(finding, dialled)
    scheme = "http" if manner.context is None else "https"
    wire = Wire(dialled.socket, scheme=scheme, authority=manner.authority, timeout=manner.timeout)
    try:
        wire.greet()
        _look_on(finding, wire)
    except WireError as error:
        finding.error = str(error)
    finally:
        wire.close()
    return finding


def _note_dialled(finding: Finding, dialled: Dialled) -> None:
    finding.connect_seconds, finding.tls_seconds = dialled.connect_seconds, dialled.tls_seconds
    finding.tls_version, finding.alpn = dialled.tls_version, dialled.alpn


def _look_on(finding: Finding, wire: Wire) -> None:
    """Looks at a server that has greeted. What it announces later counts, too."""
    finding.settings = _settings(wire)
    _note_answer(finding, _ping_and_call(finding, wire, _UNKNOWN, b""))
    _note_health(finding, _ping_and_call(finding, wire, _HEALTH, b""))
    for version in _REFLECTIONS:
        _note_reflection(finding, version, _ping_and_call(finding, wire, _reflection(version), _list_services()))
    finding.settings = _settings(wire)


def _ping_and_call(finding: Finding, wire: Wire, path: str, request: bytes) -> Answer:
    finding.pings += [wire.ping() for _ in range(_PINGS_BETWEEN_CALLS)]
    return wire.call(path, request)


def _settings(wire: Wire) -> Settings:
    told = (announced(wire.settings, SettingCodes[field.name.upper()]) for field in dataclasses.fields(Settings))
    return Settings(*told)


def _reflection(version: str) -> str:
    return f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo"


def _list_services() -> bytes:
    # The messages of v1 and of v1alpha are alike.
    listing: bytes = reflection_pb2.ServerReflectionRequest(list_services="").SerializeToString()
    return listing


def _note_answer(finding: Finding, answer: Answer) -> None:
    finding.http_status = answer.http_status
    finding.headers = {
        name: value
        for name, value in (answer.headers | answer.trailers).items()
        if not name.startswith(_OF_GRPC) and name != "server"
    }
    finding.server = answer.headers.get("server") or _by_words(answer)


def _by_words(answer: Answer) -> str | None:
    """Which gRPC server this is, by its words about a method that it does not have."""
    return server_by_its_words(answer.details) if answer.status == _UNIMPLEMENTED else None


def _note_health(finding: Finding, answer: Answer) -> None:
    if answer.status == _OK:
        for message in answer.messages():
            status = health_pb2.HealthCheckResponse.FromString(message).status
            finding.health = health_pb2.HealthCheckResponse.ServingStatus.Name(status)
    elif answer.status == _NOT_FOUND:
        # Health is served, but not of the server as a whole.
        finding.health = "SERVICE_UNKNOWN"


def _note_reflection(finding: Finding, version: str, answer: Answer) -> None:
    if answer.status != _OK:
        return
    finding.reflection.append(version)
    finding.services = sorted({*finding.services, *_listed(answer)})


def _listed(answer: Answer) -> Iterator[str]:
    for message in answer.messages():
        response = reflection_pb2.ServerReflectionResponse.FromString(message)
        yield from (service.name for service in response.list_services_response.service)
