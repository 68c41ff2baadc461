"""The inspector served on its own."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import threading
from typing import Any

import httpx2
import pytest

import grpcpool.aio
from grpcpool.contrib.inspector import Inspector, serve
from support.servers import ECHO, Server


def test_it_is_served_on_loopback() -> None:
    """It listens on loopback, on a port that the system chooses, until it is closed; then its thread has ended."""
    with serve(Inspector()) as served:
        assert served.url.startswith("http://127.0.0.1:")
        assert httpx2.get(f"{served.url}pools").json()["pools"] == []
        assert any(thread.name == "grpcpool-inspector" for thread in threading.enumerate())
    assert not any(thread.name == "grpcpool-inspector" for thread in threading.enumerate())
    with pytest.raises(httpx2.ConnectError):
        httpx2.get(served.url)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_foreign_host_names_are_rejected(host: str) -> None:
    """A foreign page whose name resolves to this machine cannot read the inspector's page."""
    with serve(Inspector(), host=host) as served:
        assert httpx2.get(served.url, headers={"host": "evil.example"}).status_code == 400
        assert httpx2.get(served.url).status_code == 200
        assert httpx2.get(served.url, headers={"host": "localhost"}).status_code == 200


def test_it_samples_while_it_is_served() -> None:
    """Served on its own, it uses its own lifespan, which takes samples."""
    inspector = Inspector(every=0.01, keep=1.0)
    with serve(inspector) as served:
        assert httpx2.get(f"{served.url}pools").json()["every"] == 0.01


def test_an_asyncio_pool_is_shown_from_another_thread(server: Server) -> None:
    """A pool on one event loop is shown by an inspector that is served on another."""

    async def live() -> None:
        async with grpcpool.aio.insecure_channel(server.target, name="elsewhere") as pool:
            await pool.unary_unary(ECHO)(b"1")
            with serve(Inspector(pool)) as served:
                response = await asyncio.to_thread(httpx2.get, f"{served.url}pools")
            (shown,) = response.json()["pools"]
            assert (shown["name"], shown["state"], shown["stats"]["ready"]) == ("elsewhere", "open", 1)
            await pool.unary_unary(ECHO)(b"2")

    asyncio.run(live())


def test_a_pool_is_not_an_inspector() -> None:
    """The error names the remedy: otherwise each request would fail."""
    pool: Any = grpcpool.insecure_channel("localhost:1")
    with pytest.raises(TypeError, match=r"for a pool, serve\(Inspector\(pool\)\)"):
        serve(pool)


def test_a_port_in_use_raises_at_once() -> None:
    """`serve` itself raises if the port is in use."""
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(OSError, match="in use"):
        serve(Inspector(), taken.getsockname()[1])


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
@pytest.mark.parametrize("keep", ["served = ", ""], ids=["kept", "dropped"])
def test_a_forked_child_does_not_keep_the_port(keep: str) -> None:
    """When the server is closed, its port is free, although a child that was forked meanwhile goes on."""
    program = f"""
import os, signal, socket, sys, urllib.request
from grpcpool.contrib.inspector import Inspector, serve
with socket.create_server(("127.0.0.1", 0)) as free:
    port = free.getsockname()[1]
{keep}serve(Inspector(), port)
urllib.request.urlopen(f"http://127.0.0.1:{{port}}/pools").close()
ours, theirs = os.pipe()
child = os.fork()
if not child:
    os.write(theirs, b"1")
    signal.pause()
os.read(ours, 1)
if {bool(keep)}:
    served.close()
    serve(Inspector(), port).close()
else:
    # The child no longer listens, although its parent does.
    links = [os.readlink(f"/proc/{{child}}/fd/{{fd}}") for fd in os.listdir(f"/proc/{{child}}/fd")]
    with open("/proc/net/tcp") as table:
        inodes = [line.split()[9] for line in table if f":{{port:04X}} 00000000:0000 0A" in line]
    assert inodes, "nothing listens"
    assert not any(f"socket:[{{inode}}]" in links for inode in inodes), links
os.kill(child, signal.SIGKILL)
os.waitpid(child, 0)
"""
    if not keep and sys.platform != "linux":
        pytest.skip("only Linux lists the sockets of a process")
    # Python warns of a fork beside other threads.
    quiet = ("-W", "ignore:This process")
    done = subprocess.run(  # noqa: S603 -- our own
        [sys.executable, *quiet, "-c", program], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_its_thread_imports_nothing() -> None:
    """A fork while a thread imports a module would leave the child without it: all are imported before."""
    program = """
import sys, threading, urllib.request
from grpcpool.contrib.inspector import Inspector, serve

class Spy:
    def find_spec(self, name, *_):
        if threading.current_thread().name == "grpcpool-inspector":
            print(name)

sys.meta_path.insert(0, Spy())
with serve(Inspector()) as served:
    urllib.request.urlopen(served.url + "pools").close()
"""
    done = subprocess.run(  # noqa: S603 -- our own
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_without_uvicorn_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without uvicorn, the error says how to install it."""
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    with pytest.raises(ImportError, match="pip install uvicorn"):
        serve(Inspector())
