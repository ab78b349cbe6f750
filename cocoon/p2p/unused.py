"""What py-libp2p 0.8.1 imports and Cocoon never or seldom uses: stood in for, or loaded late.

A peer speaks TCP, Noise and Yamux with Ed25519 keys. The library's package file
imports every transport, relay and certificate client besides, which took more
than half of a peer's start and a quarter of its memory. A stand-in satisfies
the imports, and whoever calls one of its names is told so. ``compat`` calls
:func:`stand_in` before the first import of libp2p.

Purity: shell (changes the import system). Spec: docs/dependencies.md.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import sys
import types
from collections.abc import Iterable, Mapping, Sequence
from typing import Final

#: Package to the names in it that must not be truthy classes; the packages below it are stood in for too.
UNUSED: Final[Mapping[str, Mapping[str, object]]] = {
    "fastecdsa": {},  # ECDSA keys; it has no Linux wheel, so no lock names it
    "libp2p.transport.quic": {},
    "libp2p.transport.websocket": {},
    "libp2p.security.tls": {},  # with it certificates by ACME: requests, httpx
    "libp2p.discovery": {},  # mDNS, UPnP, rendezvous
    "libp2p.relay": {},
    "libp2p.bitswap": {},  # blocks of IPFS, for the keys of Kademlia calls that we do not make
    "dns.quic": {"have_quic": False},  # the resolver asks this before it uses any other name
    "prometheus_client": {},  # with it an HTTP server
    "cryptography.x509": {},  # certificates
    "cryptography.hazmat.primitives.serialization.ssh": {},
}

#: Loaded when one of their names is first used: to dial a peer by a DNS name, to list the interfaces of this machine.
LATE: Final = ("dns", "psutil")


class UnusedPartError(NotImplementedError):
    """A part of a library that Cocoon leaves out was used."""


class _Names(type):
    """Whatever is looked up in a refused class, a submodule or a member of an enumeration, is refused in its turn."""

    def __getattr__(cls, name: str) -> _Names:
        return _refused(f"{cls.__module__}.{cls.__name__}", name)


class _Refused(Exception, metaclass=_Names):
    """Stands for a class, a function or an error of a part that is left out; a call raises UnusedPartError."""

    def __new__(cls, *_args: object, **_kwargs: object) -> _Refused:
        raise UnusedPartError(f"{cls.__module__}.{cls.__name__} is left out of Cocoon: see docs/dependencies.md")


def _refused(place: str, name: str) -> _Names:
    if name.startswith("__"):  # the interpreter asks, and takes its absence for an answer
        raise AttributeError(name)
    return _Names(name, (_Refused,), {"__module__": place})


class _StandIn(types.ModuleType):
    def __getattr__(self, name: str) -> _Names:
        return _refused(self.__name__, name)


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    def find_spec(
        self, fullname: str, path: Sequence[str] | None = None, target: types.ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if _below(fullname, UNUSED):
            return importlib.machinery.ModuleSpec(fullname, self, is_package=True)
        if not _below(fullname, LATE):
            return None
        spec = importlib.machinery.PathFinder.find_spec(fullname, path, target)
        if spec is not None and isinstance(spec.loader, importlib.machinery.SourceFileLoader):
            spec.loader = _LateLoader(spec.loader)
        return spec

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> types.ModuleType:
        module = _StandIn(spec.name)
        module.__dict__.update(UNUSED.get(spec.name, {}))
        return module

    def exec_module(self, module: types.ModuleType) -> None:
        """Nothing to run: the stand-in is complete."""


class _Late(types.ModuleType):
    """A module that runs when it is first asked for a name it does not have yet.

    ``importlib.util.LazyLoader`` runs it at its second import already, which asks for ``__spec__``.
    """

    def __getattr__(self, name: str) -> object:
        spec = self.__spec__
        if name.startswith("__") or spec is None or not isinstance(spec.loader, _LateLoader):
            raise AttributeError(name)
        self.__class__ = types.ModuleType  # type: ignore[assignment]
        spec.loader = spec.loader.real
        spec.loader.exec_module(self)
        return getattr(self, name)


class _LateLoader(importlib.abc.Loader):
    def __init__(self, real: importlib.machinery.SourceFileLoader) -> None:
        self.real = real

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> types.ModuleType:
        return _Late(spec.name)

    def exec_module(self, module: types.ModuleType) -> None:
        """Later: see ``_Late``."""


def _below(fullname: str, packages: Iterable[str]) -> bool:
    return any(fullname == package or fullname.startswith(f"{package}.") for package in packages)


def stand_in() -> None:
    """From now on an import of such a package gives its stand-in or a late one, unless it is loaded already."""
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())
