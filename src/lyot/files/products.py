"""Products: made from exposures, marked with how they were made, written whole or not at all."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import socket
import tempfile
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar

import numpy as np

from lyot._version import __version__
from lyot.errors import LyotError
from lyot.files.exposure import Cube
from lyot.files.star import StarPosition

PROVENANCE_KEY = "lyot"
"""Name of the branch of a product's tree that holds what the schemas have no place for."""

FITS_BLOCK = 2880


def derived_model(kind: str, like: Any, arrays: dict[str, Any], /) -> Any:
    """Make a model with the metadata of another and new arrays.

    Parameters
    ----------
    kind : str
        Name of a stdatamodels class, for example ``CubeModel``.
    like : JwstDataModel
        Model whose metadata, WCS included, are taken over; it is not changed.
    arrays : dict
        Arrays by attribute name.

    Returns
    -------
    JwstDataModel
        The new model.
    """
    from stdatamodels.jwst import datamodels

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = getattr(datamodels, kind)()
        for name, array in arrays.items():
            setattr(model, name, array)
        model.update(like)
        if like.meta.hasattr("wcs"):
            model.meta.wcs = like.meta.wcs
    model.meta.model_type = kind
    drop_unknown_long_keywords(model)
    return model


def drop_unknown_long_keywords(model: Any, /) -> None:
    """Drop keywords that no schema knows and whose names FITS cannot hold without a warning.

    Parameters
    ----------
    model : JwstDataModel
        Changed in place.
    """
    for extension in model.instance.get("extra_fits", {}).values():
        if "header" in extension:
            extension["header"] = [row for row in extension["header"] if len(row[0]) <= 8]


def stamp(
    model: Any,
    step: str,
    /,
    *,
    recipe: dict[str, Any],
    inputs: list[str],
    star: StarPosition | None = None,
    details: dict[str, Any] | None = None,
) -> None:
    """Record in a product which step made it, with which parameters, of what.

    Parameters
    ----------
    model : JwstDataModel
        Changed in place.
    step : str
        Name in ``meta.cal_step``, for example ``klip``.
    recipe : dict
        Parameters of the step, as plain values.
    inputs : list of str
        Names of the inputs.
    star : StarPosition, optional
        Where the star is on the product's pixels; also written as STARCENX/Y (1-based).
    details : dict, optional
        Numbers and arrays that the step measured.
    """
    setattr(model.meta.cal_step, step, "COMPLETE")
    branch = provenance_of(model)
    branch["software"] = "lyot"
    branch["version"] = __version__
    branch.setdefault("steps", {})
    branch["steps"][step] = {"recipe": recipe, "inputs": list(inputs)} | (details or {})
    if star is not None:
        branch["star"] = star.to_dict()
        set_keyword(model, "SCI", "STARCENX", star.x + 1.0, "x position of the star (1-based)")
        set_keyword(model, "SCI", "STARCENY", star.y + 1.0, "y position of the star (1-based)")
    set_provenance(model, branch)
    set_keyword(model, "PRIMARY", "LYOTVER", __version__, "Version of lyot")


def provenance_of(model: Any, /) -> dict[str, Any]:
    """Return what is recorded in a product beyond the schemas.

    Parameters
    ----------
    model : JwstDataModel
        Any model.

    Returns
    -------
    dict
        A copy of the branch; its arrays are in memory, so the file may be closed. Empty where
        there is none.
    """

    def _copy(node: Any) -> Any:
        """Copy a node down to its arrays."""
        if isinstance(node, dict):
            return {k: _copy(v) for k, v in node.items()}
        return np.asarray(node) if hasattr(node, "dtype") else node

    branch: dict[str, Any] = _copy(dict(model.instance.get(PROVENANCE_KEY, {})))
    return branch


def set_provenance(model: Any, branch: dict[str, Any], /) -> None:
    """Record something in a product beyond the schemas.

    Parameters
    ----------
    model : JwstDataModel
        Changed in place.
    branch : dict
        What `provenance_of` returns from then on.
    """
    model.instance[PROVENANCE_KEY] = branch


def star_of(model: Any, /) -> StarPosition | None:
    """Return the star position that a product records.

    Parameters
    ----------
    model : JwstDataModel
        Any model.

    Returns
    -------
    StarPosition or None
        None where none is recorded.
    """
    values = provenance_of(model).get("star")
    return StarPosition(**values) if values else None


def set_keyword(model: Any, extension: str, key: str, value: Any, comment: str, /) -> None:
    """Set a FITS keyword that the schema does not know.

    Parameters
    ----------
    model : JwstDataModel
        Changed in place.
    extension : str
        Name of the extension, for example ``SCI``.
    key, value, comment : str, object, str
        The card.
    """
    extra = model.instance.setdefault("extra_fits", {}).setdefault(extension, {})
    rows = [row for row in extra.get("header", []) if row[0] != key]
    extra["header"] = [*rows, [key, value, comment]]


def temporary_prefix() -> str:
    """Return how names begin of what this process writes aside before it is moved into place.

    Returns
    -------
    str
        It says which machine and process.
    """
    return f".lyot-{socket.gethostname()}-{os.getpid()}-"


def is_stale(name: str, /) -> bool:
    """Tell whether something written aside was left by a process that is no more.

    Parameters
    ----------
    name : str
        A file name.

    Returns
    -------
    bool
        False for other names, and for those of other machines, which cannot be asked.
    """
    head, _, _ = name.rpartition("-")
    head, _, process = head.rpartition("-")
    if head != f".lyot-{socket.gethostname()}" or not process.isdigit():
        return False
    try:
        os.kill(int(process), 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        pass
    return False


def remove_stale(folder: str | Path, /) -> None:
    """Remove from a folder what processes left that were killed while they wrote.

    Parameters
    ----------
    folder : path
        The folder; it need not exist.
    """
    folder = Path(folder)
    for path in folder.iterdir() if folder.is_dir() else ():
        if is_stale(path.name):
            shutil.rmtree(path, ignore_errors=True)


@contextmanager
def atomic_write(path: str | Path, /) -> Iterator[Path]:
    """Give a temporary path; what is written there takes its final name in one move.

    Parameters
    ----------
    path : path
        Where the file is to be.

    Yields
    ------
    Path
        A path of the same file name in a temporary folder beside it. It is moved into place
        when the block ends well, and removed when it does not.

    Raises
    ------
    LyotError
        If the folder cannot be made or written to, or the disk is full.
    """
    path = Path(path)
    holder = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        holder = tempfile.mkdtemp(prefix=temporary_prefix(), dir=path.parent)
        yield Path(holder) / path.name
        os.replace(Path(holder) / path.name, path)
    except OSError as err:
        raise LyotError(_why_unwritten(err, path)) from err
    finally:
        if holder is not None:
            shutil.rmtree(holder, ignore_errors=True)


def _why_unwritten(err: OSError, path: Path) -> str:
    if err.errno == errno.ENOSPC:
        return f"{path} was not written: the disk is full; free some room and run again."
    if err.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST):
        return (
            f"{path} was not written: {path.parent} is not a folder you may write to; name another."
        )
    return f"{path} was not written ({err.strerror or err})."


def save_atomically(model: Any, path: str | Path, /) -> str:
    """Save a model whole or not at all.

    Parameters
    ----------
    model : JwstDataModel
        The product.
    path : path
        Where it is to be.

    Returns
    -------
    str
        The path.

    Raises
    ------
    LyotError
        If it cannot be written.
    """
    with atomic_write(path) as temporary:
        model.save(str(temporary))
    return str(path)


def check_free_space(folder: str | Path, n_bytes: int, what: str, /) -> None:
    """Refuse to begin a product that the disk has no room for.

    Parameters
    ----------
    folder : path
        Where it is to be written.
    n_bytes : int
        Its size.
    what : str
        Its name, for the message.

    Raises
    ------
    LyotError
        If less than its size is free.
    """
    folder = Path(folder)
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent
    free = shutil.disk_usage(folder).free
    if free < n_bytes:
        raise LyotError(
            f"{what} takes {n_bytes / 1e9:.2f} GB and {folder} has {free / 1e9:.2f} GB free; free "
            "some room, or leave the product out (save_psfalign = false, --no-psfalign)."
        )


def checksum(path: str | Path, /) -> str:
    """Return the SHA-256 checksum of a file.

    Parameters
    ----------
    path : path
        The file.

    Returns
    -------
    str
        Hexadecimal digits.
    """
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


WHOLE_BELOW = 64 * 2**20
SAMPLES, SAMPLE = 64, 2**20


def sampled_checksum(path: str | Path, /) -> str:
    """Return what tells whether a product is as it was written, quickly for large ones.

    Parameters
    ----------
    path : path
        The file.

    Returns
    -------
    str
        Its size, and the SHA-256 checksum of all of it; beyond 64 MiB, of 64 pieces of a MiB from
        its beginning to its end.
    """
    size = os.path.getsize(path)
    if size <= WHOLE_BELOW:
        return f"{size}:{checksum(path)}"
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        for k in range(SAMPLES):
            file.seek(k * (size - SAMPLE) // (SAMPLES - 1))
            digest.update(file.read(SAMPLE))
    return f"{size}:{digest.hexdigest()}"


def stack_model(like: Any, cube: Cube, /) -> Any:
    """Make the psfstack of a stack of references.

    Parameters
    ----------
    like : JwstDataModel
        Model of the first reference exposure, for its metadata.
    cube : Cube
        The stack.

    Returns
    -------
    CubeModel
        SCI, ERR and DQ of every integration.
    """
    return derived_model("CubeModel", like, {"data": cube.sci, "err": cube.err, "dq": cube.dq})


class BlockWriter:
    """A product of SCI, ERR and DQ, written one block at a time.

    Saving through stdatamodels holds the whole product twice; here one block is held.

    Parameters
    ----------
    path : path
        Where the product is to be.
    model : callable
        Makes the model that the headers and the tree are taken from, with arrays of any shape;
        called when everything has been written, and so measured.
    shape : tuple of int
        Shape of the arrays, three or four axes; what precedes the last three is written block
        by block.

    Notes
    -----
    Blocks are converted and written on a thread of their own, one behind the caller. Room for the
    headers is reserved at the start and filled at the end.
    """

    RESERVED: ClassVar[dict[str, int]] = {"PRIMARY": 40, "SCI": 12, "ERR": 2, "DQ": 2}
    """FITS blocks that are reserved for each header."""

    def __init__(
        self, path: str | Path, model: Callable[[], Any], shape: tuple[int, ...], /
    ) -> None:
        """Note what is to be written; nothing is opened yet."""
        self.path = Path(path)
        self._model = model
        self._shape = shape
        self._block = int(np.prod(shape[-3:]))

    @staticmethod
    def size(shape: tuple[int, ...], /) -> int:
        """Return the size of a product of SCI, ERR and DQ.

        Parameters
        ----------
        shape : tuple of int
            Shape of its arrays.

        Returns
        -------
        int
            Bytes, without headers.
        """
        return 12 * int(np.prod(shape))

    def __enter__(self) -> BlockWriter:
        """Open a temporary file."""
        self._stack = ExitStack()
        temporary = self._stack.enter_context(atomic_write(self.path))
        try:
            self._file = self._stack.enter_context(open(temporary, "wb"))
        except OSError as err:
            self._stack.close()
            raise LyotError(_why_unwritten(err, self.path)) from err
        self._writer = self._stack.enter_context(ThreadPoolExecutor(1))
        self._pending: Future[None] | None = None
        self._offset: dict[str, int] = {}
        position = self.RESERVED["PRIMARY"] * FITS_BLOCK
        padded = -(-4 * int(np.prod(self._shape)) // FITS_BLOCK) * FITS_BLOCK
        for name in ("SCI", "ERR", "DQ"):
            self._offset[name] = position + self.RESERVED[name] * FITS_BLOCK
            position = self._offset[name] + padded
        self._end = position
        return self

    def write(self, block: int, sci: Any, err: Any, dq: Any, /) -> None:
        """Write one block; it returns while the block is still being written.

        Parameters
        ----------
        block : int
            Its number.
        sci, err, dq : sequence of ndarray, shape (n_y, n_x)
            Its planes; not to be changed afterwards.
        """
        self._finish_pending()
        self._pending = self._writer.submit(self._write, block, sci, err, dq)

    def _finish_pending(self) -> None:
        pending, self._pending = self._pending, None
        if pending is None:
            return
        try:
            pending.result()
        except OSError as err:
            raise LyotError(_why_unwritten(err, self.path)) from err

    def _write(self, block: int, sci: Any, err: Any, dq: Any) -> None:
        """Convert and write a plane at a time: the converted copy stays small."""
        for name, planes in (("SCI", sci), ("ERR", err), ("DQ", dq)):
            self._file.seek(self._offset[name] + 4 * self._block * block)
            for number in range(len(planes)):
                plane = planes[number]
                if name == "DQ":
                    plane = (plane ^ np.uint32(0x80000000)).view(np.int32)
                self._file.write(plane.astype(">i4" if name == "DQ" else ">f4").data)

    def _finish(self) -> None:
        """Write the headers where room was left for them, and the tree at the end."""
        from astropy.io import fits

        self._finish_pending()
        with tempfile.TemporaryDirectory() as folder:
            small = Path(folder) / self.path.name
            model = self._model()
            model.save(str(small))
            model.close()
            with fits.open(small) as hdus:
                for name, n_blocks in self.RESERVED.items():
                    header = hdus[name].header.copy()
                    if name != "PRIMARY":
                        for i, n in enumerate(reversed(self._shape)):
                            header[f"NAXIS{i + 1}"] = n
                        if name == "DQ":
                            header["BZERO"], header["BSCALE"] = 2147483648, 1
                    size = n_blocks * FITS_BLOCK
                    self._file.seek(0 if name == "PRIMARY" else self._offset[name] - size)
                    self._file.write(_padded_header(header, size))
                tree = hdus["ASDF"]
                start, end = tree._header_offset, tree._data_offset + tree._data_size
            self._file.seek(self._end)
            self._file.write(small.read_bytes()[start:end])

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Write the headers and move the file into place, or remove it."""
        if error is None:
            try:
                self._finish()
            except BaseException as err:
                self._stack.__exit__(type(err), err, err.__traceback__)
                raise
        self._stack.__exit__(kind, error, trace)


def _padded_header(header: Any, size: int) -> bytes:
    """Return a header of exactly `size` bytes, with blank cards before its end."""
    text = header.tostring(sep="", endcard=False, padding=False)
    blank = size - len(text) - 80
    if blank < 0:
        raise LyotError(f"A header of {len(text)} bytes does not fit the {size} reserved for it.")
    return (text + " " * (blank // 80 * 80) + "END".ljust(80)).ljust(size).encode("ascii")
