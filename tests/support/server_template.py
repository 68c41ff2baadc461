"""A program from which the tests' servers are forked: gRPC, which takes longest to import, is imported here once.

`servers` starts it and sends one request at a time: the name of a script and its arguments, with the server's standard
input and output; or what to wait for. Here no server, channel or thread is ever created, so that the fork is safe.
"""

from __future__ import annotations

import contextlib
import faulthandler
import importlib
import json
import os
import pathlib
import signal
import socket
import sys
import traceback
from typing import Any, NoReturn

if __name__ == "__main__":
    sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))

# Imported before they are to serve. Any other can be forked, too, and is imported then.
_SCRIPTS = ("support.server_script", "support.call_server_script", "support.refusing_server_script")
_MOST = 65536


def _serve(script: str, arguments: list[str], descriptors: list[int]) -> NoReturn:
    """Runs a script in this process, which is its own."""
    try:
        for own, descriptor in enumerate(descriptors):
            os.dup2(descriptor, own)
            os.close(descriptor)
        sys.argv = [script, *arguments]
        importlib.import_module(script).main()
    except BaseException:  # noqa: BLE001 -- whatever it is, the process ends here
        traceback.print_exc()
        os._exit(1)
    os._exit(0)


def _answer(requests: socket.socket, request: dict[str, Any], descriptors: list[int]) -> int:
    if "script" in request:
        pid = os.fork()
        if not pid:
            requests.close()
            _serve(request["script"], request["arguments"], descriptors)
        for descriptor in descriptors:
            os.close(descriptor)
        return pid
    if "stopped" in request:
        # One that ended by itself has its end said here: the tests would look for it in the pool.
        found = os.waitid(os.P_PID, request["stopped"], os.WSTOPPED | os.WEXITED)
        assert found is not None
        return 0 if found.si_code == os.CLD_STOPPED else found.si_status or -1
    try:
        return os.waitpid(request["ended"], 0)[1]
    except ChildProcessError:
        # It has been waited for already: two ended it at once, or a system that ignores the end of children did.
        return 0


def main() -> None:
    """Does what is requested until the other end is closed."""
    # A server that crashes says where.
    faulthandler.enable()
    # Ctrl-C ends the tests, and with them this program and the servers.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for script in _SCRIPTS:
        # Where what it needs is not installed, it will say so when it is to serve.
        with contextlib.suppress(ModuleNotFoundError):
            importlib.import_module(script)
    with socket.socket(fileno=int(sys.argv[1])) as requests:
        while True:
            request, descriptors, _, _ = socket.recv_fds(requests, _MOST, 2)
            if not request:
                return
            answer = _answer(requests, json.loads(request), descriptors)
            requests.sendall(json.dumps(answer).encode())


if __name__ == "__main__":
    main()
