"""Probes one address: what the server announces, the round-trip time, and which services it has.

gRPC servers treat pings without calls between them as abuse, and close the connection after the third. So at most two
pings are sent before each call.
"""

from __future__ import annotations

import dataclasses
import ssl
import statistics
from collections.abc import Iterator
from typing import Any, Final

from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from grpc_health.v1 import health_pb2  # type: ignore[import-untyped]
from grpc_reflection.v1alpha import reflection_pb2  # type: ignore[import-untyped]
from h2.settings import SettingCodes

from grpcpool._grpc.servers_words import server_by_its_words

from .._deadline import Deadline
from .._target import Address
from .dial import DialError, DialledSocket, dial
from .http2 import Http2Connection, Http2Error, Response, announced_setting

_OK, _NOT_FOUND, _UNIMPLEMENTED = 0, 5, 12
_PINGS_BETWEEN_CALLS = 2
_UNKNOWN_METHOD: Final = "/grpcpool.cli.Probe/Unknown"
_HEALTH: Final = "/grpc.health.v1.Health/Check"
_REFLECTIONS: Final = ("v1", "v1alpha")
_GRPC_HEADERS = ("grpc-", "content-", "trailer", "date", ":", "accept-encoding")


@dataclasses.dataclass(slots=True)
class Settings:
    """The HTTP/2 settings that a server announced; `None`: not announced, so that `DEFAULTS` holds."""

    max_concurrent_streams: int | None = None
    initial_window_size: int | None = None
    max_frame_size: int | None = None
    max_header_list_size: int | None = None


DEFAULTS: Final = Settings(None, 65535, 16384, None)
"""The settings that hold without an announcement (RFC 9113, 6.5.2); `None`: no limit."""


@dataclasses.dataclass(slots=True)
class AddressReport:
    """The results for one address. Durations are seconds.

    Attributes:
        address: The address in gRPC's syntax.
        error: Why the report is empty or incomplete; `None` if it is complete.
        connect_seconds: How long TCP took.
        tls_seconds: How long TLS took.
        tls_version: The version of TLS.
        alpn: The protocol chosen by ALPN.
        settings: What the server announced; `None` if it does not speak HTTP/2.
        pings: The round-trip times.
        http_status: The HTTP status of a call to a nonexistent method: 200 from a gRPC server.
        server: The server software, from the header ``server`` or the wording of an error; `None` if unknown.
        headers: The other headers of that response that are not gRPC's.
        health: ``SERVING`` and so on; `None` if the server has no health service.
        reflection: The versions of reflection that the server has.
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
        """Whether an HTTP/2 server answered."""
        return self.settings is not None

    @property
    def ping_seconds(self) -> tuple[float, float] | None:
        """The shortest and the median round trip."""
        return (min(self.pings), statistics.median(self.pings)) if self.pings else None


@dataclasses.dataclass(frozen=True, slots=True)
class ProbeOptions:
    """How to connect and call.

    Attributes:
        context: For TLS; `None` to connect without TLS.
        name: The name that the certificate must match.
        authority: The ``:authority`` of calls.
    """

    context: ssl.SSLContext | None
    name: str
    authority: str


def probe_address(address: Address, options: ProbeOptions, deadline: Deadline) -> AddressReport:
    """Probes an address until the deadline at most; errors are part of the report."""
    report = AddressReport(str(address))
    try:
        dialled = dial(address, options.context, options.name, deadline)
    except DialError as error:
        report.error = str(error)
        return report
    _record_connection(report, dialled)
    scheme = "http" if options.context is None else "https"
    connection = Http2Connection(dialled.socket, scheme=scheme, authority=options.authority, deadline=deadline)
    try:
        connection.handshake()
        _inspect_server(report, connection)
    except Http2Error as error:
        report.error = str(error)
    finally:
        connection.close()
    return report


def _record_connection(report: AddressReport, dialled: DialledSocket) -> None:
    report.connect_seconds, report.tls_seconds = dialled.connect_seconds, dialled.tls_seconds
    report.tls_version, report.alpn = dialled.tls_version, dialled.alpn


def _inspect_server(report: AddressReport, connection: Http2Connection) -> None:
    """Inspects a server after the handshake. Settings that it announces later count, too."""
    report.settings = _settings(connection)
    _record_server(report, _ping_and_call(report, connection, _UNKNOWN_METHOD, b""))
    _record_health(report, _ping_and_call(report, connection, _HEALTH, b""))
    for version in _REFLECTIONS:
        _record_reflection(report, version, _ping_and_call(report, connection, _reflection(version), _list_services()))
    report.settings = _settings(connection)


def _ping_and_call(report: AddressReport, connection: Http2Connection, path: str, request: bytes) -> Response:
    report.pings += [connection.ping() for _ in range(_PINGS_BETWEEN_CALLS)]
    return connection.call(path, request)


def _settings(connection: Http2Connection) -> Settings:
    values = (
        announced_setting(connection.settings, SettingCodes[field.name.upper()])
        for field in dataclasses.fields(Settings)
    )
    return Settings(*values)


def _reflection(version: str) -> str:
    return f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo"


def _list_services() -> bytes:
    # The messages of v1 and v1alpha are identical.
    request: bytes = reflection_pb2.ServerReflectionRequest(list_services="").SerializeToString()
    return request


def _record_server(report: AddressReport, response: Response) -> None:
    report.http_status = response.http_status
    report.headers = {
        name: value
        for name, value in (response.headers | response.trailers).items()
        if not name.startswith(_GRPC_HEADERS) and name != "server"
    }
    report.server = response.headers.get("server") or _server_by_details(response)


def _server_by_details(response: Response) -> str | None:
    """Returns which gRPC server this is, by the details that it sends for a nonexistent method."""
    return server_by_its_words(response.details) if response.status == _UNIMPLEMENTED else None


def _record_health(report: AddressReport, response: Response) -> None:
    if response.status == _OK:
        health = _parsed(health_pb2.HealthCheckResponse, response)
        if health is not None:
            names = health_pb2.HealthCheckResponse.ServingStatus
            # A server may send a number without a name.
            report.health = dict(zip(names.values(), names.keys(), strict=True)).get(health.status, str(health.status))
    elif response.status == _NOT_FOUND:
        # There is a health service, but it has no status for the server as a whole.
        report.health = "SERVICE_UNKNOWN"


def _record_reflection(report: AddressReport, version: str, response: Response) -> None:
    if response.status != _OK:
        return
    report.reflection.append(version)
    report.services = sorted({*report.services, *_service_names(response)})


def _service_names(response: Response) -> Iterator[str]:
    reflected = _parsed(reflection_pb2.ServerReflectionResponse, response)
    if reflected is not None:
        yield from (service.name for service in reflected.list_services_response.service)


def _parsed(kind: Any, response: Response) -> Any:
    """Returns the response's message; `None` if there is none of that kind."""
    try:
        return None if response.message is None else kind.FromString(response.message)
    except DecodeError:
        return None
