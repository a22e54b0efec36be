"""Files written atomically: under a temporary name, then moved into place in one step."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

from lyot.errors import LyotError, reason_of


@cache
def _host() -> str:
    """Return a name of where process ids are counted: the host, or a container on it."""
    try:
        return f"{socket.gethostname()}.{os.stat('/proc/self/ns/pid').st_ino}"
    except OSError:
        return socket.gethostname()


def temporary_prefix() -> str:
    """Return the prefix of this process's temporary names: it holds the host and process id."""
    return f".lyot-{_host()}-{os.getpid()}-"


def is_stale(name: str, /) -> bool:
    """Tell whether a temporary name is that of a process of this host that has ended."""
    head, _, _ = name.rpartition("-")
    head, _, process = head.rpartition("-")
    if head != f".lyot-{_host()}" or not process.isdigit():
        return False
    try:
        os.kill(int(process), 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        pass
    return False


def remove_stale(folder: str | Path, /) -> None:
    """Remove the temporary files of processes that were killed while they wrote to a folder."""
    folder = Path(folder)
    for path in folder.iterdir() if folder.is_dir() else ():
        if is_stale(path.name):
            shutil.rmtree(path, ignore_errors=True)


@cache
def _sweep_once(folder: Path, process: int) -> None:
    """Remove, once in each process, what others that were killed have left in a folder."""
    del process
    with suppress(OSError):
        remove_stale(folder)


@contextmanager
def atomic_write(path: str | Path, /) -> Iterator[Path]:
    """Give a temporary path; the file, or folder, written there takes its final name in one move.

    It has the same file name (headers record it), in a temporary folder beside the final one that
    is removed where the block fails; an `OSError` becomes a `LyotError` that names the path.
    Temporary folders that killed processes left beside it are removed first.
    """
    path = Path(path)
    holder = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        _sweep_once(path.parent, os.getpid())
        holder = tempfile.mkdtemp(prefix=temporary_prefix(), dir=path.parent)
        yield Path(holder) / path.name
        os.replace(Path(holder) / path.name, path)
    except OSError as err:
        raise _write_error(err, path) from err
    finally:
        if holder is not None:
            shutil.rmtree(holder, ignore_errors=True)


def save_model(model: Any, path: Path, /) -> None:
    """Save a model; say where what it took over from its exposure cannot be written."""
    try:
        model.save(str(path))
    except (OSError, LyotError):
        raise
    except Exception as err:
        raise LyotError(
            f"{path.name} was not written: what its exposures record beside their pixels is "
            f"damaged ({reason_of(err)}); fetch them again."
        ) from err


def write_json(content: Any, path: str | Path, /) -> None:
    """Write plain values as JSON."""
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def _write_error(err: OSError, path: Path) -> LyotError:
    """Say in one sentence why a file was not written."""
    # Of the latter astropy makes an error without a number.
    if err.errno == errno.ENOSPC or "Not enough space" in str(err):
        text = f"{path} was not written: the disk is full; free some space and run again."
    elif err.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST):
        text = (
            f"{path} was not written: {path.parent} is not a folder you may write to; name another."
        )
    else:
        text = f"{path} was not written ({err.strerror or err})."
    return LyotError(text)


def check_free_space(folder: str | Path, n_bytes: int, what: str, /) -> None:
    """Raise `LyotError` where the disk of a folder has less than `n_bytes` free for `what`."""
    folder = Path(folder)
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    if free < n_bytes:
        raise LyotError(
            f"{what} takes {_size(n_bytes)} and {folder} has {_size(free)} free; free some space, "
            "or do not save the product."
        )


def _size(n_bytes: int) -> str:
    return f"{n_bytes / 1e9:.1f} GB" if n_bytes >= 1e8 else f"{n_bytes / 1e6:.2f} MB"


def checksum(path: str | Path, /) -> str:
    """Return the SHA-256 checksum of a file, in hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


MAX_FULL_CHECKSUM_BYTES = 16 * 2**20
N_SAMPLES, SAMPLE_BYTES = 64, 2**17


def sampled_checksum(path: str | Path, /) -> str:
    """Return the size of a product and a checksum, beyond 16 MiB of 64 samples of 128 KiB.

    It shows truncation and overwriting, not each change of a byte: inputs take `checksum`.
    """
    size = os.path.getsize(path)
    if size <= MAX_FULL_CHECKSUM_BYTES:
        return f"{size}:{checksum(path)}"
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        for k in range(N_SAMPLES):
            file.seek(k * (size - SAMPLE_BYTES) // (N_SAMPLES - 1))
            digest.update(file.read(SAMPLE_BYTES))
    return f"{size}:{digest.hexdigest()}"
