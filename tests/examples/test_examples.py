"""Each example runs against a real server and does what it says; it is skipped if something it needs is missing."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import re
import socket
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest

from examples.programs import EXAMPLES, output_of, running, served
from support.call_server import CallServer
from support.waiting import eventually

SERVING = 1

pytestmark = pytest.mark.timeout(90)


@contextlib.contextmanager
def listening() -> Iterator[tuple[int, str]]:
    """A socket for a web server; returns its descriptor and its URL."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.fileno(), f"http://127.0.0.1:{listener.getsockname()[1]}"


def get(url: str) -> Any:
    """Returns what is served there once it is served; the socket listens before the server does."""
    with urllib.request.urlopen(url, timeout=30) as response:  # noqa: S310 -- our own
        return json.load(response)


@pytest.fixture(scope="module")
def target() -> Iterator[str]:
    """A server for all of these tests."""
    with served() as address:
        yield address


def test_fastapi(target: str) -> None:
    """A request makes a call over the application's pool, which the live page shows; a failed call is a bad gateway."""
    pytest.importorskip("fastapi")
    pytest.importorskip("uvicorn")
    pytest.importorskip("grpcpool.contrib.inspector")
    with (
        listening() as (fd, url),
        running(
            "-m",
            "uvicorn",
            "--fd",
            str(fd),
            "fastapi_app:app",
            fds=(fd,),
            environment={"TARGET": target, "ORDERS_POOL_MAX_SIZE": "3"},
        ),
    ):
        assert get(f"{url}/health/orders") == {"status": SERVING}
        (pool,) = get(f"{url}/grpcpool/pools")["pools"]
        assert pool["name"] == "orders"
        assert pool["stats"]["max_size"] == 3
        with pytest.raises(urllib.error.HTTPError, match="502"):
            get(f"{url}/health/nobody")


def test_flask_under_gunicorn(target: str) -> None:
    """Each worker has a pool of its own, though it was created before the fork."""
    pytest.importorskip("flask")
    workers = ("--preload", "--workers", "2", "--bind")
    with (
        listening() as (fd, url),
        running("-m", "gunicorn", *workers, f"fd://{fd}", "flask_app:app", fds=(fd,), environment={"TARGET": target}),
    ):
        answers: dict[int, dict[str, int]] = {}

        def both_have_answered() -> bool:
            answer = get(f"{url}/health/orders")
            answers[answer["pid"]] = answer
            return len(answers) == 2

        eventually(both_have_answered)
        assert {(each["status"], each["connections"]) for each in answers.values()} == {(SERVING, 1)}


_CELERY = """
broker_transport_options = {{"data_folder_in": "{0}", "data_folder_out": "{0}", "control_folder": "{0}/control"}}
broker_connection_retry_on_startup = True
"""


def test_celery(target: str, tmp_path: pathlib.Path) -> None:
    """Tasks in the processes of a real worker make their calls."""
    pytest.importorskip("celery")
    queue = tmp_path / "queue"
    queue.mkdir()
    (tmp_path / "orders_settings.py").write_text(_CELERY.format(queue))
    environment = {
        "TARGET": target,
        "BROKER": "filesystem://",
        "BACKEND": f"file://{queue}",
        "CELERY_SETTINGS": "orders_settings",
        "PYTHONPATH": str(tmp_path),
    }
    asks = "import celery_worker as c; print([c.check.delay('orders').get(timeout=30)['status'] for _ in range(4)])"
    worker = (
        "-m",
        "celery",
        "--app",
        "celery_worker",
        "worker",
        "--concurrency",
        "2",
        "--without-mingle",
        "--without-gossip",
    )
    with running(*worker, environment=environment):
        assert output_of("-W", "ignore", "-c", asks, environment=environment).strip() == str([SERVING] * 4)


def test_googles_client() -> None:
    """Messages are published from a hundred threads, and none is lost."""
    pytest.importorskip("google.cloud.pubsub_v1")
    with CallServer() as calls:
        said = output_of("-W", "ignore", "google_client.py", calls.target)
    (number, connections, late) = map(int, re.findall(r"\d+", said))
    assert number >= 10
    assert 1 <= connections <= 4
    assert late == 0


def test_auth_interceptor(target: str) -> None:
    """The expired token is renewed once, and used from then on."""
    said = output_of("auth_interceptor.py", environment={"TARGET": target}).splitlines()
    assert said == [f"status {SERVING} with token-2, {number} calls so far" for number in (2, 3, 4)]


def test_blue_green(target: str) -> None:
    """While the pool moves from server to server, every call is completed."""
    with served() as green:
        moved, outcome = output_of("blue_green.py", target, green).splitlines()
    assert moved == f"2 connections replaced; nothing runs on {target} any more"
    assert re.fullmatch(r"[1-9]\d+ completed", outcome)


# Ends the load after 200 requests. Locust's own limit of time includes its start, which may take seconds, and its
# files of results need not have the last requests.
_LIMITED = """
import itertools
import gevent
from locust import events

@events.init.add_listener
def limit(environment, **_):
    numbers = itertools.count(1)

    def count(**_):
        # Not in this greenlet, which belongs to a user, and ends with it.
        next(numbers) == 200 and gevent.spawn(environment.runner.quit)

    environment.events.request.add_listener(count)

    @environment.events.quit.add_listener
    def tell(**_):
        print("total", environment.stats.total.num_requests, environment.stats.total.num_failures)
"""


def test_locust(target: str, tmp_path: pathlib.Path) -> None:
    """Locust's users make calls over one pool, and none fails."""
    if not _has("locust"):
        pytest.skip("locust is not installed")
    limited = tmp_path / "limited.py"
    limited.write_text(_LIMITED)
    load = ("-u", "50", "-r", "50", "--host", target, "--only-summary")
    said = output_of("-W", "ignore", "-m", "locust", "-f", f"locustfile.py,{limited}", "--headless", *load)
    (numbers,) = re.findall(r"^total (\d+) (\d+)$", said, re.MULTILINE)
    requests, failures = map(int, numbers)
    assert requests > 50
    assert failures == 0


def test_unit_tests() -> None:
    """The example of a user's tests passes."""
    said = output_of(
        "-m", "pytest", "-q", "-n", "0", "-c", os.devnull, "--rootdir", ".", "-p", "no:cacheprovider", "test_greeter.py"
    )
    assert "5 passed" in said


def _has(module: str) -> bool:
    """Whether the module exists, without importing it: locust changes the whole process."""
    from importlib.util import find_spec  # noqa: PLC0415

    return find_spec(module) is not None


def test_all_are_tested() -> None:
    """Every program in the folder is run by a test here, and listed in its README."""
    programs = {path.name for path in EXAMPLES.glob("*.py")}
    source = pathlib.Path(__file__).read_text()
    listed = (EXAMPLES / "README.md").read_text()
    for program in programs:
        assert program in source or program.removesuffix(".py") in source
        assert program in listed
