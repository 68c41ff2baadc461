"""A control plane for tests: clients ask it where the servers of `xds:///name` are."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Sequence

import grpc

from support.servers import ServerProcess, unary

_HERE = pathlib.Path(__file__).parent


class ControlPlane(ServerProcess):
    """The process of a control plane."""

    script = _HERE / "control_plane_script.py"

    @property
    def environment(self) -> dict[str, str]:
        """Makes a program ask this control plane. gRPC reads it once in each process."""
        server = {
            "server_uri": self.target,
            "channel_creds": [{"type": "insecure"}],
            "server_features": ["xds_v3"],
        }
        bootstrap = {"xds_servers": [server], "node": {"id": "test"}}
        return {"GRPC_XDS_BOOTSTRAP_CONFIG": json.dumps(bootstrap)}


def assign(control_plane: str, name: str, targets: Sequence[str]) -> None:
    """From now on `xds:///name` leads to these servers, as the control plane at that address reports."""
    with grpc.insecure_channel(control_plane) as channel:
        unary(channel, "/test.Xds/Assign", json.dumps({"name": name, "targets": targets}).encode())
