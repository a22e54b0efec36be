"""Products: made from exposures, marked with how they were made, written whole or not at all."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lyot._version import __version__
from lyot.errors import LyotError
from lyot.models.cubes import Cube
from lyot.models.star import StarPosition

BRANCH = "lyot"
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
    branch = branch_of(model)
    branch["software"] = "lyot"
    branch["version"] = __version__
    branch.setdefault("steps", {})
    branch["steps"][step] = {"recipe": recipe, "inputs": list(inputs)} | (details or {})
    if star is not None:
        branch["star"] = star.to_dict()
        set_keyword(model, "SCI", "STARCENX", star.x + 1.0, "x position of the star (1-based)")
        set_keyword(model, "SCI", "STARCENY", star.y + 1.0, "y position of the star (1-based)")
    model.instance[BRANCH] = branch
    set_keyword(model, "PRIMARY", "LYOTVER", __version__, "Version of lyot")


def branch_of(model: Any, /) -> dict[str, Any]:
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

    branch: dict[str, Any] = _copy(dict(model.instance.get(BRANCH, {})))
    return branch


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
    values = branch_of(model).get("star")
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


@contextmanager
def written_whole(path: str | Path, /) -> Iterator[Path]:
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
        holder = tempfile.mkdtemp(prefix=".lyot-", dir=path.parent)
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


def save_whole(model: Any, path: str | Path, /) -> str:
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
    with written_whole(path) as temporary:
        model.save(str(temporary))
    return str(path)


def check_room(folder: str | Path, n_bytes: int, what: str, /) -> None:
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
    """A psfalign product, written one science integration at a time.

    Saving through stdatamodels holds the whole product twice; here one block is held.

    Parameters
    ----------
    path : path
        Where the product is to be.
    model : callable
        Makes the model that the headers and the tree are taken from, with arrays of any shape;
        called when writing starts and again at the end, when everything has been measured.
    shape : tuple of int
        Shape of the arrays, three or four axes; the first but last three are written block by
        block.
    """

    def __init__(
        self, path: str | Path, model: Callable[[], Any], shape: tuple[int, ...], /
    ) -> None:
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
        """Write the headers into a temporary file."""
        self._context = written_whole(self.path)
        self._temporary = self._context.__enter__()
        try:
            self._start()
        except BaseException as err:
            self._context.__exit__(type(err), err, err.__traceback__)
            raise
        return self

    def _start(self) -> None:
        hdus = self._headers()
        self._file = open(self._temporary, "wb")  # noqa: SIM115 - closed in __exit__
        self._offset: dict[str, int] = {}
        position = self._file.write(hdus["PRIMARY"])
        padded = -(-4 * int(np.prod(self._shape)) // FITS_BLOCK) * FITS_BLOCK
        for name in ("SCI", "ERR", "DQ"):
            self._file.seek(position)
            position += self._file.write(hdus[name])
            self._offset[name] = position
            position += padded
        self._end = position

    def _headers(self) -> dict[str, bytes]:
        """Headers of the extensions, with the shape of the arrays, and the ASDF extension."""
        from astropy.io import fits

        with tempfile.TemporaryDirectory() as folder:
            small = Path(folder) / self.path.name
            model = self._model()
            model.save(str(small))
            model.close()
            parts = {}
            with fits.open(small) as hdus:
                for name in ("PRIMARY", "SCI", "ERR", "DQ"):
                    header = hdus[name].header.copy()
                    if name != "PRIMARY":
                        for i, n in enumerate(reversed(self._shape)):
                            header[f"NAXIS{i + 1}"] = n
                        if name == "DQ":
                            header["BZERO"], header["BSCALE"] = 2147483648, 1
                    parts[name] = header.tostring().encode("ascii")
                asdf = hdus["ASDF"]
                start = asdf._header_offset
                parts["ASDF"] = small.read_bytes()[start : asdf._data_offset + asdf._data_size]
        return parts

    def write(
        self, block: int, sci: NDArray[Any], err: NDArray[Any], dq: NDArray[np.uint32], /
    ) -> None:
        """Write one block.

        Parameters
        ----------
        block : int
            Its number.
        sci, err, dq : ndarray, shape (n_ref, n_y, n_x)
            Its arrays.
        """
        try:
            signed = (dq ^ np.uint32(0x80000000)).view(np.int32)
            for name, array, kind in (
                ("SCI", sci, ">f4"),
                ("ERR", err, ">f4"),
                ("DQ", signed, ">i4"),
            ):
                self._file.seek(self._offset[name] + 4 * self._block * block)
                self._file.write(np.ascontiguousarray(array, dtype=kind).data)
        except OSError as err_:
            raise LyotError(_why_unwritten(err_, self.path)) from err_

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Append the tree and move the file into place, or remove it."""
        if error is None:
            try:
                self._file.seek(self._end)
                self._file.write(self._headers()["ASDF"])
                self._file.close()
            except BaseException as err:
                self._file.close()
                self._context.__exit__(type(err), err, err.__traceback__)
                raise
            self._context.__exit__(None, None, None)
            return
        self._file.close()
        self._context.__exit__(kind, error, trace)
