"""Makes the documentation's pictures of the command: two terminals as SVG, a report as PNG.

``python docs/screenshots/terminal.py`` starts a server, runs ``grpcpool probe`` and ``grpcpool bench``, and writes the
pictures into its own folder. It needs the extra ``cli`` and, for the report, Chromium. The numbers are those of the
machine that it runs on.
"""

from __future__ import annotations

import contextlib
import io
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc  # type: ignore[import-untyped]
from grpc_reflection.v1alpha import reflection  # type: ignore[import-untyped]
from rich.console import Console
from rich.terminal_theme import MONOKAI

from grpcpool import PoolConfig
from grpcpool._demo.process import running_server
from grpcpool.cli._bench.channels import Server
from grpcpool.cli._bench.options import BenchOptions
from grpcpool.cli._bench.run import make_plan, run_bench
from grpcpool.cli._probe.run import run_probe
from grpcpool.cli._tls import Tls

_HERE = pathlib.Path(__file__).parent
_CHECK = "grpc.health.v1.Health/Check"
_WIDTH = 92
_WINDOW = "1240,1420"
_FONT_FACE = re.compile(r"@font-face \{.*?\}", re.DOTALL)
_STREAMS = 100
_PAUSE = 0.03


class _Slow(health.HealthServicer):  # type: ignore[misc]
    """Takes as long as a service that queries a database."""

    def Check(self, request: object, context: object) -> object:  # noqa: N802 -- gRPC's name
        time.sleep(_PAUSE)
        return super().Check(request, context)


def serve() -> None:
    """Serves, in its own process, until standard input ends."""
    options = [("grpc.max_concurrent_streams", _STREAMS), ("grpc.so_reuseport", 0)]
    server = grpc.server(ThreadPoolExecutor(512), options=options)
    servicer = _Slow()
    servicer.set("", health_pb2.HealthCheckResponse.SERVING)
    health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
    reflection.enable_server_reflection([health.SERVICE_NAME, reflection.SERVICE_NAME], server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    sys.stdout.write(f"{port}\n")
    sys.stdout.flush()
    sys.stdin.read()
    server.stop(None).wait()


@contextlib.contextmanager
def terminal(name: str, command: str) -> Iterator[Console]:
    """Yields a terminal that shows `command`; the end of the ``with`` block writes a picture of it."""
    console = Console(record=True, width=_WIDTH, file=io.StringIO(), force_terminal=True, highlight=False)
    console.print(f"[bold]$ {command}[/bold]")
    yield console
    # A picture loads no fonts; a viewer without this font uses another.
    svg = _FONT_FACE.sub("", console.export_svg(title="grpcpool", theme=MONOKAI))
    (_HERE / f"{name}.svg").write_text(svg, encoding="utf-8")


def picture_of(report: pathlib.Path) -> None:
    """Renders the report with Chromium."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        sys.stderr.write("Chromium is not installed: the report's picture is unchanged\n")
        return
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--virtual-time-budget=8000"]
    out = _HERE / "report.png"
    command = [chromium, *options, f"--window-size={_WINDOW}", f"--screenshot={out}", report.as_uri()]
    subprocess.run(command, capture_output=True, timeout=120, check=True)  # noqa: S603 -- found on PATH


def main() -> None:
    """Makes all the pictures."""
    with running_server([__file__, "serve"]) as port, tempfile.TemporaryDirectory() as folder:
        target, tls, report = f"localhost:{port}", Tls(), pathlib.Path(folder, "report.html")
        with terminal("probe", f"grpcpool probe {target}") as console:
            run_probe(target, tls, timeout=5.0, in_flight=500, with_json=False, console=console)
        arguments = ["bench", target, _CHECK, "--concurrency", "50,400", "--duration", "8", "--report", "report.html"]
        server = Server(target, tls, PoolConfig())
        plan = make_plan(server, _CHECK, "{}", (), (10.0, 2.0, 8.0))
        with terminal("bench", f"grpcpool {' '.join(arguments)}") as console:
            options = BenchOptions("50,400", "bare,native,pool", report, arguments)
            run_bench(server, plan, options, with_json=False, console=console)
        picture_of(report)


if __name__ == "__main__":
    if sys.argv[1:] == ["serve"]:
        serve()
    else:
        main()
