"""Arrays that take long to make, remembered in the user's cache folder.

A file holds the arrays of one name: a checksum of name and content, a line of JSON with types and
shapes, and the values; `numpy.load` takes four times as long. One that is damaged, foreign or of
another name is made again. What cannot be written is not remembered, without a word.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import sys
import tempfile
import time
import zlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import numpy as np

from lyot.types import Array

N_CHECKSUM = 4
"""Bytes of the checksum."""
MAX_WRITE_S = 3600.0
"""Age of what a process that was killed while it wrote has left."""
MAX_BYTES = 512 * 2**20
"""Size of the folder beyond which what was not used for longest is removed."""


def cache_folder() -> Path | None:
    """Return the folder: LYOT_CACHE_DIR, none where that is empty; else the system's place."""
    named = os.environ.get("LYOT_CACHE_DIR")
    if named is not None:
        return Path(named) if named else None
    home = {
        "darwin": "~/Library/Caches",
        "win32": os.environ.get("LOCALAPPDATA") or "~/AppData/Local",
    }.get(sys.platform, "~/.cache")
    stated = os.environ.get("XDG_CACHE_HOME", "")
    return Path(stated if os.path.isabs(stated) else home).expanduser() / "lyot"


def remembered(group: str, name: str, make: Callable[[], dict[str, Array]], /) -> dict[str, Array]:
    """Return arrays by name from the cache folder, else make and remember them.

    `group` and `name` tell all that the arrays depend on; an empty group is not remembered.
    """
    root = cache_folder()
    if root is None or not group:
        return make()
    path, identity = root / group / f"{name}.arrays", f"{group}/{name}"
    try:
        held = _unpacked(path.read_bytes(), identity)
    except OSError:
        held = None
    if held is not None:
        return held
    arrays = make()
    with suppress(OSError):
        _write(path, _packed(arrays, identity))
    return arrays


def _packed(arrays: dict[str, Array], identity: str) -> bytes:
    kinds = {name: (array.dtype.str, array.shape) for name, array in arrays.items()}
    content = json.dumps(kinds).encode() + b"\n" + b"".join(a.tobytes() for a in arrays.values())
    return _checksum(content, identity) + content


def _unpacked(stored: bytes, identity: str) -> dict[str, Array] | None:
    content, arrays = stored[N_CHECKSUM:], {}
    if stored[:N_CHECKSUM] != _checksum(content, identity):
        return None
    kinds, _, values = content.partition(b"\n")
    first = 0
    for name, (dtype, shape) in json.loads(kinds).items():
        array = np.frombuffer(values, dtype, math.prod(shape), first).reshape(shape)
        arrays[name] = array.copy()
        first += array.nbytes
    return arrays


def _checksum(content: bytes, identity: str) -> bytes:
    return zlib.crc32(content, zlib.crc32(identity.encode())).to_bytes(N_CHECKSUM, "big")


def _write(path: Path, content: bytes) -> None:
    """Write a file that appears whole or not at all."""
    if not path.parent.is_dir():
        path.parent.mkdir(parents=True, exist_ok=True)
        _prune(path.parents[1])
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, suffix=".part")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
        os.replace(temporary, path)
    except OSError:
        os.unlink(temporary)
        raise


def _prune(root: Path) -> None:
    """Remove the groups that were changed longest ago, until the rest is small enough."""
    sizes = {
        group: sum(file.stat().st_size for file in group.iterdir())
        for group in root.iterdir()
        if group.is_dir()
    }
    for part in root.glob("*/*.part"):  # of a process that was killed
        if time.time() - part.stat().st_mtime > MAX_WRITE_S:
            part.unlink(missing_ok=True)
    for group in sorted(sizes, key=lambda each: each.stat().st_mtime):
        if sum(sizes.values()) <= MAX_BYTES:
            return
        del sizes[group]
        shutil.rmtree(group, ignore_errors=True)
