"""Products too large to hold in memory, written one block at a time."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar

import numpy as np

from lyot.errors import LyotError
from lyot.files.atomic import atomic_write, write_error
from lyot.files.headers import open_fits

FITS_BLOCK = 2880


class BlockWriter:
    """A product of SCI, ERR and DQ, written one block at a time.

    Saving through stdatamodels holds the product twice in memory; here one block is held. Blocks
    are converted and written on a thread of their own, one behind the caller. Space for the
    headers is reserved at the start and filled at the end from what `model` makes, with arrays of
    any shape: it is called after the last block, when all that it records has been measured. The
    arrays have three axes, or four, of which the first counts the blocks.
    """

    RESERVED: ClassVar[dict[str, int]] = {"PRIMARY": 40, "SCI": 12, "ERR": 2, "DQ": 2}
    """FITS blocks that are reserved for each header."""

    def __init__(
        self, path: str | Path, model: Callable[[], Any], shape: tuple[int, ...], /
    ) -> None:
        """Store the arguments; the file is opened on entering the context."""
        self.path = Path(path)
        self._model = model
        self._shape = shape
        self._block = int(np.prod(shape[-3:]))

    @staticmethod
    def size(shape: tuple[int, ...], /) -> int:
        """Return the size of SCI, ERR and DQ of this shape [byte], without headers."""
        return 12 * int(np.prod(shape))

    def __enter__(self) -> BlockWriter:
        """Open a temporary file."""
        self._stack = ExitStack()
        temporary = self._stack.enter_context(atomic_write(self.path))
        try:
            self._file = self._stack.enter_context(open(temporary, "wb"))
        except OSError as err:
            self._stack.close()
            raise write_error(err, self.path) from err
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
        """Write block number `block`, given as planes ``(n_y, n_x)`` to go through once.

        It returns before the block is written: the planes must not be changed afterwards.
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
            raise write_error(err, self.path) from err

    def _write(self, block: int, sci: Any, err: Any, dq: Any) -> None:
        """Convert and write a plane at a time: the converted copy stays small."""
        for name, planes in (("SCI", sci), ("ERR", err), ("DQ", dq)):
            self._file.seek(self._offset[name] + 4 * self._block * block)
            for plane in planes:
                if name == "DQ":
                    plane = (plane ^ np.uint32(0x80000000)).view(np.int32)  # BZERO = 2^31
                self._file.write(plane.astype(">i4" if name == "DQ" else ">f4").data)

    def _finish(self) -> None:
        """Write the headers into the space reserved for them, and the tree at the end."""
        self._finish_pending()
        with tempfile.TemporaryDirectory() as folder:
            small = Path(folder) / self.path.name
            model = self._model()
            model.save(str(small))
            model.close()
            with open_fits(small) as hdus:
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
                tree = hdus["ASDF"].fileinfo()
                start, end = tree["hdrLoc"], tree["datLoc"] + tree["datSpan"]
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
