"""Products too large to hold in memory, written one block at a time."""

from __future__ import annotations

import errno
import mmap
import os
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from astropy.io.fits import Header

from lyot.errors import LyotError
from lyot.files.atomic import atomic_write, save_model
from lyot.files.headers import open_fits

FITS_BLOCK = 2880
RESERVED = {"PRIMARY": 40, "SCI": 12, "ERR": 2, "DQ": 3}
"""FITS blocks that are reserved for each header."""

SIGN = np.uint32(0x80000000)
"""Flags are stored as signed integers, with BZERO = 2^31."""
PAGE_BYTES, PIECE_BYTES = 4096, 2**21
"""What goes past the system's cache begins and ends at pages of the file; and how much at once."""
TRIED_BYTES, MIN_BYTES_PER_S = 2**26, 4e8
"""After so many bytes a disk that takes fewer a second is slow: the cache takes the rest."""

_OF_AN_IMAGE = ("XTENSION", "BITPIX", "NAXIS", "PCOUNT", "GCOUNT")
WriteBlock = Callable[[int, Any, Any, Any], None]


@contextmanager
def write_blocks(
    path: str | Path,
    model: Callable[[], Any],
    shape: tuple[int, ...],
    /,
    *,
    compress_dq: bool = False,
    cached: bool = True,
) -> Iterator[WriteBlock]:
    """Give a function that writes a block of a product: its number, SCI, ERR and DQ.

    The product has three axes, or four, of which the first counts the blocks. Those of a block are
    arrays or `Planes`, converted and written on a thread of their own after the function has
    returned: so one block is held, where stdatamodels holds the product twice.
    Headers get reserved space, filled from what `model` makes, with arrays of any shape: it is
    called after the last block, when all that it records has been measured. With `compress_dq`
    each plane of DQ is a compressed tile. Images go to the disk without a copy in the system's
    cache, where the system can do that: less work. If they may be `cached`, that is for disks that
    are fast.
    """
    path = Path(path)
    offset, end = {}, RESERVED["PRIMARY"] * FITS_BLOCK
    for name in ("SCI", "ERR", "DQ"):
        offset[name] = end + RESERVED[name] * FITS_BLOCK
        end = offset[name] + _padded(4 * int(np.prod(shape)))
    block_bytes = 4 * int(np.prod(shape[-3:]))
    tiles = _Tiles(offset["DQ"], shape) if compress_dq else None
    with (
        atomic_write(path) as temporary,
        open(temporary, "wb") as file,
        _past_the_cache(temporary) as past,
        ThreadPoolExecutor(1) as thread,
    ):
        disk = _Disk(file.fileno(), past, cached)
        planes = {name: _Pieces(disk, shape[-2:]) for name in offset}
        pending: list[Future[None]] = []

        def _convert(block: int, sci: Any, err: Any, dq: Any) -> None:
            for name, arrays in (("SCI", sci), ("ERR", err)):
                planes[name].put(arrays, offset[name] + block * block_bytes)
            if tiles is not None:
                tiles.write(file, block, dq)
            else:
                planes["DQ"].put(dq, offset["DQ"] + block * block_bytes, signed=True)

        def _write(block: int, sci: Any, err: Any, dq: Any) -> None:
            while pending:
                pending.pop().result()
            pending.append(thread.submit(_convert, block, sci, err, dq))

        yield _write
        while pending:
            pending.pop().result()
        for each in planes.values():
            each.finish()
        _write_headers(file, path.name, model, shape, offset | {"TREE": end}, tiles)


@contextmanager
def _past_the_cache(path: Path) -> Iterator[int]:
    """Open a file once more, past the system's cache where that can be."""
    flags = os.O_WRONLY | getattr(os, "O_CLOEXEC", 0)
    try:
        file = os.open(path, flags | getattr(os, "O_DIRECT", 0))
    except OSError:
        file = os.open(path, flags)
    try:
        yield file
    finally:
        os.close(file)


class _Disk:
    """A file that is open twice, with the system's cache and past it."""

    def __init__(self, plain: int, past: int, cached: bool) -> None:
        self._plain, self._past, self._cached = plain, past, cached
        self._n_bytes, self._seconds = 0, 0.0  # of what went past the cache

    def write(self, part: memoryview, place: int) -> None:
        """Write to a place of the file."""
        while part:
            n_bytes = os.pwrite(self._plain, part, place)
            part, place = part[n_bytes:], place + n_bytes

    def write_pages(self, part: memoryview, place: int) -> None:
        """Write whole pages, past the cache unless it is to take what the disk is too slow for."""
        started = time.perf_counter()
        slow = TRIED_BYTES < self._n_bytes < MIN_BYTES_PER_S * self._seconds
        while part and not (slow and self._cached):
            try:
                n_bytes = os.pwrite(self._past, part, place)
            except OSError as err:
                if err.errno != errno.EINVAL:
                    raise
                break  # this disk does not take it so
            part, place = part[n_bytes:], place + n_bytes
            self._n_bytes += n_bytes
        self._seconds += time.perf_counter() - started
        self.write(part, place)


class _Pieces:
    """Planes of one array on their way to a file: converted, gathered, written in large pieces.

    Some planes are converted at once, as what runs beside it waits for the interpreter each time.
    """

    def __init__(self, disk: _Disk, shape: tuple[int, ...]) -> None:
        self._disk = disk
        plane_bytes = 4 * int(np.prod(shape))
        self._at_once = max(PIECE_BYTES // plane_bytes, 1)
        self._held = mmap.mmap(-1, PIECE_BYTES + self._at_once * plane_bytes)
        self._page = 0  # where in the file that begins
        self._start = self._stop = 0  # of what is there

    def put(self, planes: Any, place: int, *, signed: bool = False) -> None:
        """Write planes from a place of the file on."""
        if place != self._page + self._stop:
            self.finish()
            self._start = self._stop = place % PAGE_BYTES
            self._page = place - self._start
        for k in range(0, len(planes), self._at_once):
            part = planes[k : k + self._at_once]
            held = np.ndarray(part.shape, ">u4" if signed else ">f4", self._held, self._stop)
            held[...] = part ^ SIGN if signed else part
            self._stop += held.nbytes
            if self._stop >= PIECE_BYTES:
                self._write(self._stop - self._stop % PAGE_BYTES)

    def finish(self) -> None:
        """Write what is left."""
        self._write(self._stop)

    def _write(self, stop: int) -> None:
        """Write what is held up to there; what shares its page with something else as usual."""
        first = min(-(-self._start // PAGE_BYTES) * PAGE_BYTES, stop)
        last = max(stop - stop % PAGE_BYTES, first)
        with memoryview(self._held) as held:
            self._disk.write(held[self._start : first], self._page + self._start)
            self._disk.write_pages(held[first:last], self._page + first)
            self._disk.write(held[last:stop], self._page + last)
        self._held.move(0, stop, self._stop - stop)
        self._page, self._start, self._stop = self._page + stop, 0, self._stop - stop


def _padded(n_bytes: int) -> int:
    return -(-n_bytes // FITS_BLOCK) * FITS_BLOCK


class _Tiles:
    """DQ as a compressed image (FITS 4.0, section 10): a tile for each plane, in GZIP_1."""

    def __init__(self, offset: int, shape: tuple[int, ...]) -> None:
        self.offset, self.shape, self.n_bytes = offset, shape, 0
        self.places = np.zeros((int(np.prod(shape[:-2])), 2), ">i8")  # size and place in the heap

    def write(self, file: Any, block: int, planes: Any) -> None:
        """Write the planes of a block after those before it."""
        file.seek(self.offset + self.places.nbytes + self.n_bytes)
        for k in range(len(planes)):
            packer = zlib.compressobj(1, wbits=31)
            tile = packer.compress((planes[k] ^ SIGN).astype(">u4").data) + packer.flush()
            self.places[block * self.shape[-3] + k] = len(tile), self.n_bytes
            self.n_bytes += len(tile)
            file.write(tile)

    def finish(self, file: Any) -> int:
        """Write where the tiles are; return where the extension ends."""
        file.seek(self.offset)
        file.write(self.places.tobytes())
        n_bytes = self.places.nbytes + self.n_bytes
        file.seek(self.offset + n_bytes)
        file.write(bytes(_padded(n_bytes) - n_bytes))
        return self.offset + _padded(n_bytes)

    def header(self, image: Any) -> Any:
        """Turn the header of an image into that of its tiles."""
        n_axes, (n_y, n_x) = len(self.shape), self.shape[-2:]
        header = Header()
        header.update(
            {
                "XTENSION": "BINTABLE", "BITPIX": 8, "NAXIS": 2,
                "NAXIS1": 16, "NAXIS2": len(self.places),
                "PCOUNT": self.n_bytes, "GCOUNT": 1, "TFIELDS": 1,
                "TTYPE1": "COMPRESSED_DATA", "TFORM1": f"1QB({self.places[:, 0].max()})",
                "ZIMAGE": True, "ZTENSION": "IMAGE", "ZBITPIX": 32, "ZNAXIS": n_axes,
            }
        )  # fmt: skip
        for i, n in enumerate(reversed(self.shape)):
            header[f"ZNAXIS{i + 1}"] = n
            header[f"ZTILE{i + 1}"] = (n_x, n_y)[i] if i < 2 else 1
        header.update({"ZPCOUNT": 0, "ZGCOUNT": 1, "ZCMPTYPE": "GZIP_1"})
        kept = [c for c in image.cards if not c.keyword.startswith(_OF_AN_IMAGE)]
        header.extend(kept, strip=False)
        return header


def _write_headers(
    file: Any,
    name: str,
    model: Callable[[], Any],
    shape: tuple[int, ...],
    offset: dict[str, int],
    tiles: _Tiles | None,
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
                    if tiles is not None:
                        header = tiles.header(header)
                        offset["TREE"] = tiles.finish(file)
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
