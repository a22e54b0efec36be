"""Products too large to hold in memory, written one block at a time."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from lyot.errors import LyotError
from lyot.files.atomic import atomic_write, save_model
from lyot.files.headers import open_fits

FITS_BLOCK = 2880
RESERVED = {"PRIMARY": 40, "SCI": 12, "ERR": 2, "DQ": 2}
"""FITS blocks that are reserved for each header."""

WriteBlock = Callable[[int, Any, Any, Any], None]


@contextmanager
def write_blocks(
    path: str | Path, model: Callable[[], Any], shape: tuple[int, ...], /
) -> Iterator[WriteBlock]:
    """Give a function that writes a block of a product: its number, SCI, ERR and DQ.

    The product has three axes, or four, of which the first counts the blocks; those of a block are
    planes ``(n_y, n_x)`` to go through once, converted and written on a thread of their own after
    the function has returned. So one block is held, where stdatamodels holds the product twice.
    Headers get reserved space, filled from what `model` makes, with arrays of any shape: it is
    called after the last block, when all that it records has been measured.
    """
    path = Path(path)
    offset, end = {}, RESERVED["PRIMARY"] * FITS_BLOCK
    for name in ("SCI", "ERR", "DQ"):
        offset[name] = end + RESERVED[name] * FITS_BLOCK
        end = offset[name] + -(-4 * int(np.prod(shape)) // FITS_BLOCK) * FITS_BLOCK
    with (
        atomic_write(path) as temporary,
        open(temporary, "wb") as file,
        ThreadPoolExecutor(1) as thread,
    ):
        pending: list[Future[None]] = []

        def _convert(block: int, arrays: tuple[Any, ...]) -> None:
            """Convert and write a plane at a time: the converted copy stays small."""
            for name, planes in zip(offset, arrays, strict=True):
                file.seek(offset[name] + 4 * int(np.prod(shape[-3:])) * block)
                for plane in planes:
                    if name == "DQ":
                        plane = (plane ^ np.uint32(0x80000000)).view(np.int32)  # BZERO = 2^31
                    file.write(plane.astype(">i4" if name == "DQ" else ">f4").data)

        def _write(block: int, sci: Any, err: Any, dq: Any) -> None:
            while pending:
                pending.pop().result()
            pending.append(thread.submit(_convert, block, (sci, err, dq)))

        yield _write
        while pending:
            pending.pop().result()
        _write_headers(file, path.name, model, shape, offset | {"TREE": end})


def _write_headers(
    file: Any, name: str, model: Callable[[], Any], shape: tuple[int, ...], offset: dict[str, int]
) -> None:
    """Write the headers into the space reserved for them, and the tree at the end."""
    with tempfile.TemporaryDirectory(dir=Path(file.name).parent) as folder:
        small = Path(folder) / name
        with model() as made:
            save_model(made, small)
        with open_fits(small) as hdus:
            for extension, n_blocks in RESERVED.items():
                header, size = hdus[extension].header.copy(), n_blocks * FITS_BLOCK
                if extension != "PRIMARY":
                    for i, n in enumerate(reversed(shape)):
                        header[f"NAXIS{i + 1}"] = n
                if extension == "DQ":
                    header["BZERO"], header["BSCALE"] = 2147483648, 1
                file.seek(offset.get(extension, size) - size)
                file.write(_padded_header(header, size))
            tree = hdus["ASDF"].fileinfo()
        file.seek(offset["TREE"])
        file.write(small.read_bytes()[tree["hdrLoc"] : tree["datLoc"] + tree["datSpan"]])


def _padded_header(header: Any, size: int) -> bytes:
    """Return a header of exactly `size` bytes, with blank cards before its end."""
    text = header.tostring(sep="", endcard=False, padding=False)
    blank = size - len(text) - 80
    if blank < 0:
        raise LyotError(f"A header of {len(text)} bytes does not fit the {size} reserved for it.")
    return (text + " " * (blank // 80 * 80) + "END".ljust(80)).ljust(size).encode("ascii")
