"""The version of this package, as it is installed."""

from __future__ import annotations

import importlib.metadata

__version__ = importlib.metadata.version("grpcpool")
