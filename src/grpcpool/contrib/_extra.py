"""What an integration raises if its extra is not installed."""

from __future__ import annotations


def without_extra(extra: str, error: ModuleNotFoundError) -> ModuleNotFoundError:
    """Returns the error that says what to install."""
    return ModuleNotFoundError(
        f'grpcpool.contrib.{extra} needs {error.name}: pip install "grpcpool[{extra}]"', name=error.name
    )
