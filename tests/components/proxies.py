"""The proxies: HAProxy and nginx, which balance connections, and nginx and Envoy, which speak gRPC themselves.

Each is configured only as far as its test needs it.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import pathlib
import re
import subprocess
from collections import Counter
from collections.abc import Sequence
from typing import Any

import grpc

from components.programs import Program, absent
from grpcpool import isolated
from support.servers import PID, Server, unary


class Balancer(Program):
    """Passes whole connections on to servers: each to the next, or, if that is down, to another.

    It has no health checks: on a busy machine a check may come late, and fail.
    """

    def __init__(self, servers: Sequence[Server]) -> None:
        """In front of these servers."""
        super().__init__()
        self.servers = servers


class HAProxy(Balancer):
    """HAProxy in tcp mode."""

    name = "haproxy"

    def command(self) -> list[str]:
        """Runs in the foreground, with a configuration file."""
        lines = [
            "defaults",
            "mode tcp",
            "timeout connect 2s",
            "timeout client 1m",
            "timeout server 1m",
            "option redispatch 1",
            f"frontend front\nbind {self.target}\ndefault_backend servers",
            "backend servers",
            "balance roundrobin",
            *(f"server s{i} {server.target}" for i, server in enumerate(self.servers)),
        ]
        (self.folder / "haproxy.cfg").write_text("\n".join(lines) + "\n")
        return ["-db", "-f", "haproxy.cfg"]


class _Nginx(Program):
    name = "nginx"

    def command(self) -> list[str]:
        """One process in the foreground, with a configuration file and only its own folder."""
        process = "daemon off; master_process off; pid nginx.pid; error_log stderr warn;"
        events = "events { worker_connections 4096; }"
        (self.folder / "nginx.conf").write_text(f"{process}\n{self.configuration()}\n{events}\n")
        return ["-p", str(self.folder), "-c", "nginx.conf"]

    def configuration(self) -> str:
        """The configuration except for the processes."""
        raise NotImplementedError


class NginxStream(Balancer, _Nginx):
    """The nginx program with its stream module."""

    def __init__(self, servers: Sequence[Server]) -> None:
        """In front of these servers. The module is a separate file in a folder that `nginx -V` names."""
        super().__init__(servers)
        built = subprocess.run([self._path, "-V"], capture_output=True, text=True, check=True).stderr  # noqa: S603
        folder = "".join(re.findall(r"--modules-path=(\S+)", built))
        self._module = pathlib.Path(folder, "ngx_stream_module.so")
        if not self._module.exists():
            absent(f"nginx has no {self._module}")

    def configuration(self) -> str:
        """No server is skipped because it was down a moment ago."""
        servers = " ".join(f"server {server.target} max_fails=0;" for server in self.servers)
        return f"""load_module {self._module};
            stream {{
                upstream servers {{ {servers} }}
                server {{ listen {self.target}; proxy_pass servers; }}
            }}"""


class Nginx(_Nginx):
    """The nginx program as a gRPC proxy; it ends each connection after a number of calls (GOAWAY)."""

    def __init__(self, server: Server, *, calls_per_connection: int) -> None:
        """In front of this server."""
        super().__init__()
        self._server = server
        self._calls_per_connection = calls_per_connection

    def configuration(self) -> str:
        """It keeps connections to the server open, so that calls are quick."""
        return f"""http {{
            log_format connection $connection;
            access_log connections.log connection;
            client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi;
            uwsgi_temp_path uwsgi; scgi_temp_path scgi;
            keepalive_requests {self._calls_per_connection};
            upstream server {{ server {self._server.target}; keepalive 64; keepalive_requests 1000000; }}
            server {{
                listen {self.target} http2;
                location / {{ grpc_pass grpc://server; }}
            }}
        }}"""

    def calls_by_connection(self) -> Counter[str]:
        """The number of calls that ended on each connection."""
        return Counter((self.folder / "connections.log").read_text().split())


class Envoy(Program):
    """Envoy as a gRPC proxy that limits the streams and the life of a connection (GOAWAY)."""

    name = "envoy"

    def __init__(self, server: Server, *, max_streams: int, max_duration: float | None = None) -> None:
        """In front of this server; `max_duration` is the seconds after which a connection ends."""
        super().__init__()
        self._server = server
        self._max_streams = max_streams
        self._max_duration = max_duration

    def command(self) -> list[str]:
        """One process with one worker thread, in the foreground, with a configuration file."""
        listener = {"address": _address(self.port), "filter_chains": [{"filters": [self._connection_manager()]}]}
        configuration = {
            "admin": {"address": _address(0)},
            "static_resources": {"listeners": [listener], "clusters": [self._cluster()]},
        }
        (self.folder / "envoy.json").write_text(json.dumps(configuration))
        process = ["--disable-hot-restart", "--concurrency", "1", "--log-level", "warning"]
        return ["-c", "envoy.json", "--admin-address-path", "admin.txt", *process]

    def counter(self, name: str) -> int:
        """Envoy's counter of connections to it, such as ``cx_total``."""
        name = f"http.grpc.downstream_{name}"
        admin = http.client.HTTPConnection((self.folder / "admin.txt").read_text().strip(), timeout=10)
        with contextlib.closing(admin):
            admin.request("GET", f"/stats?format=json&filter=^{name}$")
            (counter,) = json.load(admin.getresponse())["stats"]
        value: int = counter["value"]
        return value

    def _connection_manager(self) -> dict[str, Any]:
        filters = "type.googleapis.com/envoy.extensions.filters"
        route = {"match": {"prefix": "/"}, "route": {"cluster": "server", "timeout": "0s"}}
        manager: dict[str, Any] = {
            "@type": f"{filters}.network.http_connection_manager.v3.HttpConnectionManager",
            "stat_prefix": "grpc",
            "codec_type": "HTTP2",
            "http2_protocol_options": {"max_concurrent_streams": self._max_streams},
            "drain_timeout": "0.1s",
            "route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [route]}]},
            "http_filters": [{"name": "router", "typed_config": {"@type": f"{filters}.http.router.v3.Router"}}],
        }
        if self._max_duration is not None:
            manager["common_http_protocol_options"] = {"max_connection_duration": f"{self._max_duration}s"}
        return {"name": "grpc", "typed_config": manager}

    def _cluster(self) -> dict[str, Any]:
        endpoint = {"endpoint": {"address": _address(self._server.port)}}
        http2: dict[str, Any] = {"explicit_http_config": {"http2_protocol_options": {}}}
        options = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
        return {
            "name": "server",
            "load_assignment": {"cluster_name": "server", "endpoints": [{"lb_endpoints": [endpoint]}]},
            "typed_extension_protocol_options": {options: {"@type": f"type.googleapis.com/{options}", **http2}},
        }


def name_of(server: Server) -> bytes:
    """The server's answer to `PID`."""
    return str(server.pid).encode()


def new_connection_goes_to(server: Server, front: Program) -> bool:
    """Whether a new connection to `front` reaches `server`."""
    with grpc.insecure_channel(front.target, isolated()) as channel:
        return unary(channel, PID, b"", wait_for_ready=True) == name_of(server)


def _address(port: int) -> dict[str, Any]:
    return {"socket_address": {"address": "127.0.0.1", "port_value": port}}
