"""TLS settings from the command line, for a socket and for gRPC."""

from __future__ import annotations

import dataclasses
import pathlib
import ssl

import grpc

from ._errors import CommandError, UsageError


@dataclasses.dataclass(frozen=True, slots=True)
class Tls:
    """The TLS options of the command line.

    Attributes:
        wanted: Whether ``--tls`` was given; `ca` and `cert` imply it.
        ca: File with the certificates to trust; `None` trusts those of the system, or
            in gRPC those that it comes with.
        cert: File with the client certificate (and its chain up to the root).
        key: File with the key of `cert`.
        authority: Name that the certificate must match, and the ``:authority`` of calls; `None`: the target's.
    """

    wanted: bool = False
    ca: pathlib.Path | None = None
    cert: pathlib.Path | None = None
    key: pathlib.Path | None = None
    authority: str | None = None

    @property
    def used(self) -> bool:
        """Whether connections use TLS."""
        return self.wanted or self.ca is not None or self.cert is not None

    def check(self) -> None:
        """Checks that the options fit together.

        Raises:
            UsageError: There is a certificate without a key, or a key without a certificate, or an empty authority.
        """
        if (self.cert is None) != (self.key is None):
            raise UsageError("--cert and --key must be given together")
        if self.authority is not None and not self.authority.strip("."):
            raise UsageError("--authority must not be empty")

    def context(self) -> ssl.SSLContext:
        """Returns a context for sockets that offers HTTP/2.

        Raises:
            CommandError: A file cannot be loaded as a certificate or key.
        """
        try:
            context = ssl.create_default_context(cafile=self.ca)
            if self.cert is not None:
                context.load_cert_chain(self.cert, self.key)
        except (OSError, ssl.SSLError) as error:
            raise CommandError(f"cannot load the certificates ({self._files()}): {error}") from error
        context.set_alpn_protocols(["h2"])
        return context

    def credentials(self) -> grpc.ChannelCredentials | None:
        """Returns credentials for gRPC; `None` without TLS.

        Raises:
            CommandError: A file cannot be read.
        """
        if not self.used:
            return None
        try:
            ca, key, cert = (None if path is None else path.read_bytes() for path in (self.ca, self.key, self.cert))
        except OSError as error:
            raise CommandError(f"cannot read the certificates: {error}") from error
        return grpc.ssl_channel_credentials(ca, key, cert)

    def options(self) -> tuple[tuple[str, str], ...]:
        """Returns gRPC's channel options for the authority."""
        if self.authority is None:
            return ()
        name = self.authority.rpartition(":")[0] or self.authority
        given = (("grpc.default_authority", self.authority),)
        return (*given, ("grpc.ssl_target_name_override", name)) if self.used else given

    def _files(self) -> str:
        return ", ".join(str(path) for path in (self.ca, self.cert, self.key) if path is not None)
