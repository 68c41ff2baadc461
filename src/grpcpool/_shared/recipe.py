"""What a pool is made of, as one value.

Pools with equal recipes are shared within a process, and a recipe is what of a pool can be sent to another process.
There, callables are found by their names: what they hold, such as the key of a certificate, is never sent.
"""

from __future__ import annotations

import dataclasses
import importlib
import sys
from collections.abc import Callable
from operator import attrgetter
from types import FunctionType
from typing import Any, NamedTuple

import grpc

from .._values.config import PoolConfig
from .._values.listener import Listener
from .destination import AddressSource
from .module_globals import globals_of, modules
from .sent_factories import FACTORIES

Credentials = grpc.ChannelCredentials | Callable[[], grpc.ChannelCredentials]
"""Channel credentials, or a callable that creates them."""

# The second in processes that `multiprocessing` has started.
_MAIN = ("__main__", "__mp_main__")

# Whose values pickle, and are what they seem in another process.
_PLAIN = (str, bytes, int, float, bool, type(None))


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """The arguments of a pool.

    Attributes:
        targets: One, or several in an order of preference; none for a pool with a factory of its own.
        credentials: Those of `secure_channel`; `None` for insecure channels.
        options: Channel options.
        compression: The default compression of calls.
        config: The settings as given.
        name: The name as given.
        listeners: The listeners as given.
        addresses: The user's own discovery.
        factory: Creates the channels, if the user has given that.
        constructor: What creates the channels instead of gRPC's constructor, see `patched`. It is not sent.
        bounds: `PoolConfig.min_size` and `max_size` of a new pool, if the one that is copied or sent was resized.
    """

    targets: tuple[str, ...] = ()
    credentials: Credentials | None = None
    options: tuple[tuple[str, Any], ...] = ()
    compression: grpc.Compression | None = None
    config: PoolConfig | None = None
    name: str | None = None
    listeners: tuple[Listener, ...] = ()
    addresses: AddressSource | None = None
    factory: Callable[[], Any] | None = None
    constructor: Callable[..., Any] | None = None
    bounds: tuple[int, int] | None = None

    def of_new_pool(self) -> Recipe:
        """The same, with the bounds among the settings."""
        if self.bounds is None:
            return self
        low, high = self.bounds
        config = (self.config or PoolConfig()).replace(min_size=low, max_size=high)
        return dataclasses.replace(self, config=config, bounds=None)

    def key(self) -> tuple[Any, ...]:
        """Equal for pools that may be one, whatever their bounds are now."""
        return (
            self.targets,
            _hashable(self.credentials),
            # Python takes 1 and True for equal. gRPC may not.
            tuple((name, type(value), _hashable(value)) for name, value in self.options),
            self.compression,
            _hashable(self.config or PoolConfig()),
            self.name,
            tuple(map(_Same, self.listeners)),
            _hashable(self.addresses),
            _hashable(self.factory),
            _hashable(self.constructor),
        )

    def may_refer_back(self) -> bool:
        """Whether a part, such as a method, may refer to the object that owns the pool, or a handle on it."""
        prime = None if self.config is None else self.config.prime
        parts = (self.credentials, prime, *self.listeners, self.addresses, self.factory)
        return not all(map(_refers_to_globals_only, parts))

    # --- to other processes -------------------------------------------------------------------------------------

    def sent(self) -> dict[str, Any]:
        """The parts, as they can be pickled.

        Raises:
            TypeError: One cannot be sent; the message names it.
        """
        for name, value in self.options:
            if not isinstance(value, _PLAIN):
                raise _unsendable(f"option {name!r}", type(value).__name__, "give options of text, numbers or bytes")
        config, prime = self.config, None
        if config is not None and config.prime is not None:
            prime = named(config.prime, "PoolConfig.prime")
            config = config.replace(prime=None)
        factory = self.factory
        if factory is not None:
            _check_factory(factory)
        return {
            "targets": self.targets,
            "credentials": None if self.credentials is None else named(self.credentials, "credentials"),
            "options": self.options,
            "compression": self.compression,
            "config": config,
            "prime": prime,
            "name": self.name,
            "bounds": self.bounds,
            "listeners": tuple(instance_named(each, "listeners") for each in self.listeners),
            "addresses": None if self.addresses is None else named(self.addresses, "addresses"),
            "factory": None if factory is None else (FACTORIES.mark_of(factory), factory),
        }

    @classmethod
    def received(cls, sent: dict[str, Any]) -> Recipe:
        """The recipe that consists of the parts `sent`.

        Raises:
            ImportError: This process does not have a part.
        """
        prime, config = sent["prime"], sent["config"]
        if prime is not None:
            config = config.replace(prime=prime.find())
        parts = {name: value for name, value in sent.items() if name != "prime"}
        for name in ("credentials", "addresses"):
            if parts[name] is not None:
                parts[name] = parts[name].find()
        parts["listeners"] = tuple(each.find() for each in sent["listeners"])
        if parts["factory"] is not None:
            parts["factory"] = FACTORIES.received(*parts["factory"])
        return cls(**{**parts, "config": config})


class Named(NamedTuple):
    """Something that every process finds by its name."""

    module: str
    qualname: str

    def find(self) -> Any:
        """The object.

        Raises:
            ImportError: It is not there.
        """
        try:
            # The main module of a process that was started for a task may not be the one where the pool was made.
            home = sys.modules[self.module] if self.module == "__main__" else importlib.import_module(self.module)
            return attrgetter(self.qualname)(home)
        except AttributeError as error:
            text = f"{self.module}.{self.qualname}, which a pool that was sent here needs, is not in this process"
            raise ImportError(f"{text}; define it in a module that both processes import") from error


def named(part: Any, what: str) -> Named:
    """The name of a callable, if it leads back to it.

    Args:
        part: The callable.
        what: What it is for the pool, for the message. The part itself is not shown: it may hold a secret.

    Raises:
        TypeError: It cannot be found by its name.
    """
    name = Named(getattr(part, "__module__", None) or "", getattr(part, "__qualname__", ""))
    if not (callable(part) and name.module and name.qualname and _leads_to(name, part)):
        remedy = "use a function at the top level of a module, which creates what is needed where it is called"
        raise _unsendable(what, type(part).__name__, remedy)
    return name


def instance_named(part: Any, what: str) -> Named:
    """The name of an object that a module holds in a global variable.

    Raises:
        TypeError: No module does.
    """
    # The main module of another process may be another program.
    for module, home in sorted(modules(), key=lambda found: found[0] in _MAIN):
        for name, value in globals_of(home):
            if value is part and not name.startswith("_"):
                return Named(module, name)
    raise _unsendable(what, type(part).__name__, "keep the object in a global variable of a module")


def _leads_to(name: Named, part: Any) -> bool:
    try:
        # Equal, not the same: methods of a class are new objects each time.
        return bool(name.find() == part)
    except (ImportError, AttributeError):
        return False


def _check_factory(factory: Callable[[], Any]) -> None:
    """Checks that a factory can be pickled.

    Raises:
        TypeError: It cannot.
    """
    import pickle  # noqa: PLC0415 -- what pickles has imported it

    try:
        pickle.dumps(factory)
    except Exception as error:
        if not _is_special_pickler_at_work():
            remedy = "use a function at the top level of a module, or a pickler such as cloudpickle"
            raise _unsendable("factory", type(factory).__name__, remedy) from error


def _is_special_pickler_at_work() -> bool:
    """Whether what is pickling is a pickler of a library, which may know how to pickle more than Python's own."""
    import pickle  # noqa: PLC0415 -- as above

    frame = sys._getframe(1)
    while frame.f_back is not None:
        frame = frame.f_back
        if isinstance(frame.f_locals.get("self"), pickle.Pickler | pickle._Pickler):
            return True
    return False


def _unsendable(what: str, kind: str, remedy: str) -> TypeError:
    return TypeError(
        f"cannot send a pool to another process: its {what}, of type {kind}, cannot be found there; {remedy}"
    )


def _refers_to_globals_only(part: Any) -> bool:
    if type(part) is FunctionType:
        return part.__closure__ is None and part.__defaults__ is None and part.__kwdefaults__ is None
    return part is None or isinstance(part, grpc.ChannelCredentials)


class _Same:
    """Equal only to itself and to others of the same object."""

    __slots__ = ("value",)

    def __init__(self, value: object) -> None:
        self.value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and self.value is other.value

    def __hash__(self) -> int:
        return id(self.value)


def _hashable(value: Any) -> Any:
    try:
        hash(value)
    except TypeError:
        return _Same(value)
    return value
