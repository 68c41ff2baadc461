"""A TCP server that is no HTTP/2 server, run as a process of its own: says to each client what it was told to say.

``silence`` says nothing, ``goodbye`` closes at once; anything else is said. Prints its port, ends when its input does.
"""

from __future__ import annotations

import os
import socket
import sys
import threading


def _serve(listening: socket.socket, says: str) -> None:
    kept = []
    while True:
        client, _ = listening.accept()
        if says not in ("silence", "goodbye"):
            client.sendall(says.encode())
        if says == "goodbye":
            client.close()
        else:
            kept.append(client)


def main() -> None:
    """Serves until standard input ends."""
    listening = socket.create_server(("127.0.0.1", 0))
    threading.Thread(target=_serve, args=(listening, sys.argv[1]), daemon=True).start()
    sys.stdout.write(f"{listening.getsockname()[1]}\n")
    sys.stdout.flush()
    sys.stdin.read()
    os._exit(0)


if __name__ == "__main__":
    main()
