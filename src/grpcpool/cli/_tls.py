"""TLS as the options ask for it: for a socket, and for gRPC."""

from __future__ import annotations

import dataclasses
import pathlib
import ssl

import grpc

from ._failure import CommandError, UsageError


@dataclasses.dataclass(frozen=True, slots=True)
class Tls:
    """What the options say of TLS.

    Attributes:
        wanted: Whether to use it; a certificate wants it, too.
        ca: File of the certificates to trust; `None` trusts those of the system.
        cert: File of the client's own certificate (and those up to its root).
        key: File of its key.
        authority: Name that the certificate has to be for, and the ``:authority`` of calls; `None`: the target's.
    """

    wanted: bool = False
    ca: pathlib.Path | None = None
    cert: pathlib.Path | None = None
    key: pathlib.Path | None = None
    authority: str | None = None

    @property
    def used(self) -> bool:
        """Whether connections are to be secure."""
        return self.wanted or self.ca is not None or self.cert is not None

    def check(self) -> None:
        """Refuses what makes no sense.

        Raises:
            UsageError: A certificate has no key, or a key no certificate.
        """
        if (self.cert is None) != (self.key is None):
            raise UsageError("--cert and --key go together")

    def context(self) -> ssl.SSLContext:
        """A context for sockets that offers HTTP/2.

        Raises:
            CommandError: A file is no certificate, or no key of it.
        """
        try:
            context = ssl.create_default_context(cafile=self.ca)
            if self.cert is not None:
                context.load_cert_chain(self.cert, self.key)
        except (OSError, ssl.SSLError) as error:
            raise CommandError(f"the certificates cannot be used ({self._files()}): {error}") from error
        context.set_alpn_protocols(["h2"])
        return context

    def credentials(self) -> grpc.ChannelCredentials | None:
        """Credentials for gRPC; `None` if connections are not to be secure.

        Raises:
            CommandError: A file cannot be read.
        """
        if not self.used:
            return None
        try:
            ca, key, cert = (None if path is None else path.read_bytes() for path in (self.ca, self.key, self.cert))
        except OSError as error:
            raise CommandError(f"the certificates cannot be read: {error}") from error
        return grpc.ssl_channel_credentials(ca, key, cert)

    def options(self) -> tuple[tuple[str, str], ...]:
        """Channel options of gRPC for the authority."""
        if self.authority is None:
            return ()
        name = self.authority.rpartition(":")[0] or self.authority
        given = (("grpc.default_authority", self.authority),)
        return (*given, ("grpc.ssl_target_name_override", name)) if self.used else given

    def _files(self) -> str:
        return ", ".join(str(path) for path in (self.ca, self.cert, self.key) if path is not None)
