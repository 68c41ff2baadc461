"""The server for the tests of calls: its four methods, one of each kind, do what the request says."""

from __future__ import annotations

import itertools
import json
import pathlib
from typing import Any, Literal

from support.servers import ServerProcess, unary
from support.waiting import eventually

_HERE = pathlib.Path(__file__).parent
CERTIFICATE = _HERE / "certs" / "localhost"

UU, US, SU, SS = (f"/calls.Test/{name}" for name in ("Uu", "Us", "Su", "Ss"))
TELL = "/calls.Test/Tell"

_tags = itertools.count(1)


class CallServer(ServerProcess):
    """A server with four methods, which do what the request says; if requests are streamed, what the first one says.

    ``ok`` answers ``0`` (a stream: ``0``, ``1``, ``2``) with metadata before and after; ``none`` answers an empty
    stream; ``fail`` fails ``PERMISSION_DENIED``; ``hold:tag`` runs until the call ends for other reasons, or is let go
    (a stream sends ``0`` first); ``left`` answers the time remaining; ``note:text`` records the text; ``work:ms`` runs
    that long, and is counted; ``metadata`` and ``peer`` answer what the server sees; anything else is echoed.
    """

    script = _HERE / "call_server_script.py"

    def tell(self, what: Literal["held", "notes", "most"]) -> Any:
        """Returns what the server reports.

        Args:
            what: ``held``: the tags of the calls that are held now; ``notes``: what was recorded since the last
                time; ``most``: the most calls at once on each connection since the last time.
        """
        with self.channel() as channel:
            return json.loads(unary(channel, TELL, what.encode()))

    def say(self, health: Literal["SERVING", "NOT_SERVING"]) -> None:
        """From now on the server as a whole has this health; it needs ``--services``."""
        with self.channel() as channel:
            unary(channel, TELL, health.encode())

    def wait_until_held(self, tag: str) -> None:
        """Returns when a call ``hold:tag`` runs."""
        with self.channel() as channel:
            eventually(lambda: tag in json.loads(unary(channel, TELL, b"held")))

    def wait_until_let_go(self, tag: str) -> None:
        """Returns when no call ``hold:tag`` runs."""
        with self.channel() as channel:
            eventually(lambda: tag not in json.loads(unary(channel, TELL, b"held")))


def new_tag() -> str:
    """A tag for a held call, different from all others."""
    return f"call-{next(_tags)}"
