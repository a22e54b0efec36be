"""Modules of other packages that are executed when something of them is first used."""

from __future__ import annotations

import sys
import threading
from importlib.abc import Loader
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType
from typing import Any

LATE = (
    "astropy.modeling.fitting",
    "astropy.nddata",
    "crds",
    "crds.core.heavy_client",
    "numcodecs",
    "numpy.f2py",
    "numpy.testing",
    "scipy.interpolate",
    "scipy.optimize",
)
"""What other packages import and a run of the pipeline has no use for: a fifth of its imports.

Whatever imports a part of a late package gets it without the rest. Elsewhere only such parts of
these packages are imported as stand alone.
"""

_lock = threading.RLock()


class _Late(ModuleType):
    """A module without content, until something of it is asked for."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") and name not in ("__all__", "__version__"):
            raise AttributeError(name)  # the import system asks for more than there need be
        with _lock:  # held while it is executed, so that other threads wait
            waiting: Loader | None = vars(self).pop("_waiting", None)
            if waiting is not None:
                try:
                    waiting.exec_module(self)
                except BaseException:
                    self._waiting = waiting
                    raise
            if name in vars(self):
                return vars(self)[name]
        raise AttributeError(f"module {self.__name__!r} has no attribute {name!r}")


class _Put(Loader):
    """Makes a late module, and leaves it the loader that will execute it."""

    def __init__(self, real: Loader) -> None:
        self.real = real

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return _Late(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        assert module.__spec__ is not None
        module.__spec__.loader = module.__loader__ = vars(module)["_waiting"] = self.real


class _Finder:
    """Finds the late modules, where they are not imported yet."""

    @staticmethod
    def find_spec(name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        spec = PathFinder.find_spec(name, path, target) if name in LATE else None
        if spec is not None and spec.loader is not None:
            spec.loader = _Put(spec.loader)
        return spec


def defer() -> None:
    """Execute `LATE` when they are used; those that are imported already stay as they are."""
    if _Finder not in sys.meta_path:
        sys.meta_path.insert(0, _Finder)
