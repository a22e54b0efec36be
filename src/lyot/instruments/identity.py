"""Checksums of what the models of the instruments depend on: names in the cache folder."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from lyot._version import __version__


def checksum_of(parts: Iterable[Any], /, *, of_package: Iterable[Any]) -> str:
    """Return a checksum of parts of a model, the code of the instruments included.

    Empty where one `of_package` comes from elsewhere, whose code is not known.
    """
    if any(not type(part).__module__.startswith("lyot.") for part in of_package):
        return ""
    digest = hashlib.sha256(_code())
    for part in parts:
        digest.update(part.tobytes() if isinstance(part, np.ndarray) else repr(part).encode())
    return digest.hexdigest()[:32]


@lru_cache(maxsize=1)
def _code() -> bytes:
    """Version of the package and the code of the instruments."""
    files = sorted(Path(__file__).parent.glob("*.*"))
    return b"".join([__version__.encode(), *(f.read_bytes() for f in files if f.is_file())])
