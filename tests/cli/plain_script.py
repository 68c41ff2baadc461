"""A TCP server that does not speak HTTP/2, run as a process of its own: sends its argument to each client.

``silence`` sends nothing, ``goodbye`` closes at once; anything else is sent. It prints its port, and ends when its
standard input does.
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
