"""A reference library on disk: frames in zarr arrays, their metadata in SQLite.

A library is a folder. ``frames/<batch>/`` holds one exposure each: the zarr arrays ``sci``,
``err``, ``dq`` (aligned to the library's first frame and scaled to its brightness), ``zone`` (the
pixels of the zone in which frames are compared, centered), and ``gram`` (the products of its
frames with each other and with all before them). ``index.sqlite`` says which batches there are,
with one row for each frame.

A batch is written under a temporary name and moved into place, and counts from the moment its
rows are committed: a process that is killed before leaves nothing that is read. Additions are
made one after another under the index's own lock, which the system releases when its process ends.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sqlite3
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, nullcontext
from dataclasses import astuple, dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lyot._version import __version__
from lyot.compute import memory
from lyot.errors import LyotError, readable
from lyot.files.atomic import atomic_write, is_stale, temporary_prefix
from lyot.files.exposure import Cube
from lyot.files.headers import MODE, ExposureInfo
from lyot.types import Array

FORMAT = 1
INDEX, FRAMES = "index.sqlite", "frames"
LOCK_WAIT_S = 3600.0
N_ZONES_READ = 64
"""Frames whose zones are read at once: few large products are quicker than many small ones."""
MAX_QUERY_S = 20.0
"""How long the index is asked at most."""
_LIMITS = {
    sqlite3.SQLITE_LIMIT_LENGTH: 1_000_000,
    sqlite3.SQLITE_LIMIT_SQL_LENGTH: 20_000,
    sqlite3.SQLITE_LIMIT_EXPR_DEPTH: 100,
    sqlite3.SQLITE_LIMIT_LIKE_PATTERN_LENGTH: 1_000,
    sqlite3.SQLITE_LIMIT_ATTACHED: 0,
}
_PACKED = ["sharding_indexed", "bytes", "zstd", "bytes", "crc32c"]
_CODECS = (["bytes"], [name for name in _PACKED if name != "zstd"], _PACKED)
"""How arrays are stored; other codecs of zarr are not run on files from elsewhere."""
_REMEDY = "build the library again"


@dataclass(frozen=True)
class FrameInfo:
    """The columns of the index for one frame."""

    file: str  # the exposure that it comes from
    sha256: str  # the checksum of that file
    integration: int  # from 1
    target: str
    program: str
    spectral_type: str  # empty where the user gave none
    spectral_number: float | None  # O5 is 5, B0 is 10, M4.5 is 64.5
    mjd: float | None  # start of the exposure [day]
    pa_y_deg: float | None
    x_offset: float  # dither [arcsec]
    y_offset: float
    wavefront_nm: float | None  # rms of the telescope's, where the user gave a table
    scale: float  # factor by which the frame was multiplied
    shift_y: float  # shift that was applied [pixel]
    shift_x: float
    n_repaired: int  # pixels that were bad
    n_saturated: int


COLUMNS = tuple(f.name for f in fields(FrameInfo))
_OF_COLUMN: dict[str, Any] = {
    f.name: {"str": str, "int": int, "float": int | float}.get(str(f.type), int | float | None)
    for f in fields(FrameInfo)
}


@dataclass(frozen=True, eq=False)
class Batch:
    """Frames of one exposure, ready to be added: aligned, repaired and scaled."""

    cube: Cube  # DO_NOT_USE where a pixel was bad
    zone: NDArray[np.float64]  # (n, n_zone), the library's: centered, times the root of the weight
    frame_info: list[FrameInfo]


class Library:
    """A reference library of one instrument mode; refuses a folder that is none."""

    def __init__(self, path: str | Path, /) -> None:
        self.path = Path(path)
        if not (self.path / INDEX).is_file():
            raise LyotError(
                f"{path} is no reference library; make one with lyot.references.library.build.",
                function="lyot.references.library.build",
            )
        with readable(f"The index of {path}", _REMEDY):
            with self._read() as index:
                rows = index.execute("SELECT * FROM settings").fetchall()
            self._settings = {str(key): json.loads(value) for key, value in rows}
            found = self._settings.get("format")
        if found != FORMAT:
            raise LyotError(
                f"{path} is a library of format {str(found)[:20]}, and this version of lyot reads "
                f"format {FORMAT}; use another version, or build it again."
            )
        self._check_settings()
        self._batches()

    def _check_settings(self) -> None:
        given = self._settings
        shape, mode = given.get("shape"), given.get("mode")
        if not (
            isinstance(mode, list)
            and [type(word) for word in mode] == [str] * len(MODE)
            and isinstance(shape, list)
            and [type(n) for n in shape] == [int] * 2
            and min(shape) > 0
            and isinstance(given.get("pixel_area_sr"), int | float)
        ):
            raise LyotError(f"The settings of {self.path} are damaged; {_REMEDY}.")

    @classmethod
    def create(
        cls, path: str | Path, info: ExposureInfo, weight: NDArray[np.floating], /
    ) -> Library:
        """Make an empty library of a mode; frames are compared where `weight` is positive."""
        path = Path(path)
        if path.exists() and (not path.is_dir() or any(path.iterdir())):
            raise LyotError(
                f"{path} exists already; add to a library with lyot.references.library.add, or "
                "name another folder.",
                function="lyot.references.library.add",
            )
        with atomic_write(path.resolve()) as temporary:
            cls._write_empty(temporary, info, weight)
        return cls(path)

    @staticmethod
    def _write_empty(path: Path, info: ExposureInfo, weight: NDArray[np.floating]) -> None:
        (path / FRAMES).mkdir(parents=True)
        _create(_group(path / "zone"), "weight", data=np.asarray(weight, float), compressors=None)
        settings = {
            "format": FORMAT,
            "version": __version__,
            "mode": list(info.mode),
            "shape": list(info.shape[-2:]),
            "pixel_area_sr": info.pixel_area_sr,
        }
        with closing(sqlite3.connect(path / INDEX)) as index, index:
            index.execute("CREATE TABLE settings (key TEXT PRIMARY KEY, value TEXT NOT NULL)")
            index.executemany(
                "INSERT INTO settings VALUES (?, ?)",
                [(k, json.dumps(v)) for k, v in settings.items()],
            )
            index.execute(
                "CREATE TABLE batches (batch INTEGER PRIMARY KEY, folder TEXT UNIQUE NOT NULL, "
                "first INTEGER NOT NULL, n INTEGER NOT NULL, added_by TEXT NOT NULL)"
            )
            index.execute(
                "CREATE TABLE frames (number INTEGER PRIMARY KEY, batch INTEGER NOT NULL, "
                f"{', '.join(COLUMNS)}, UNIQUE (sha256, integration))"
            )

    def __repr__(self) -> str:
        return f"<Library {self.path}: {len(self)} frames, {self.mode_text}>"

    @property
    def mode(self) -> tuple[str, ...]:
        """Instrument, detector, filter, pupil, coronagraph, subarray and aperture."""
        return tuple(self._settings["mode"])

    @property
    def mode_text(self) -> str:
        """The mode in words."""
        return self._info("").mode_text

    @property
    def shape(self) -> tuple[int, int]:
        """``(n_y, n_x)`` of the frames."""
        n_y, n_x = self._settings["shape"]
        return (int(n_y), int(n_x))

    @cached_property
    def weight(self) -> NDArray[np.float64]:
        """Weight of the pixels by which frames are compared, ``(n_y, n_x)``."""
        return _read(self.path / "zone", "weight", self.shape, np.float64)

    def __len__(self) -> int:
        return sum(n for _, _, n in self._batches())

    def holds(self, sha256: str, index: sqlite3.Connection | None = None, /) -> bool:
        """Tell whether any frame of the exposure with this checksum is in the library."""
        with self._read() if index is None else nullcontext(index) as opened:
            rows = opened.execute("SELECT 1 FROM frames WHERE sha256 = ? LIMIT 1", (sha256,))
            return rows.fetchone() is not None

    def query(self, where: str = "", /) -> list[dict[str, Any]]:
        """Return the rows of the index by number, where a condition in SQL over COLUMNS holds."""
        text = f"SELECT number, {', '.join(COLUMNS)} FROM frames"
        with self._read() as index:
            index.row_factory = sqlite3.Row
            rows = [dict(row) for row in index.execute(f"{text} ORDER BY number")]
            for number, row in enumerate(rows):
                wrong = [k for k, kind in _OF_COLUMN.items() if not isinstance(row[k], kind)]
                if row["number"] != number or wrong:
                    column = (wrong or ["number"])[0]
                    raise LyotError(
                        f"Frame {number} of {self.path} has no valid {column} in the index; "
                        f"{_REMEDY}."
                    )
        if where.strip():
            chosen = self._numbers(where)
            rows = [row for row in rows if row["number"] in chosen]
        return rows

    def _numbers(self, where: str) -> set[int]:
        """Return the numbers of the frames that meet a condition, which is one expression."""
        with self._read() as index:
            try:
                # What closes brackets itself, or leaves a comment open, does not fit both.
                index.execute(f"EXPLAIN SELECT number FROM frames WHERE (({where}\n))")
                rows = index.execute(f"SELECT number FROM frames WHERE ({where}\n)").fetchall()
            except (sqlite3.Error, sqlite3.Warning, ValueError) as err:
                reason = "it takes too long" if "interrupted" in str(err) else str(err)
                raise LyotError(
                    f"where is {where[:200]!r}, which is no condition ({reason[:100]}); the "
                    f"columns are number, {', '.join(COLUMNS)}.",
                    parameter="where",
                ) from None
        return {int(row[0]) for row in rows}

    def add(self, batch: Batch, /) -> int:
        """Add the frames of an exposure, all or none; return how many: none that are there."""
        info = batch.cube.info
        if info.mode != self.mode or batch.cube.frame_shape != self.shape:
            raise LyotError(
                f"{info.name} is {info.mode_text}, {batch.cube.frame_shape} pixels, and the "
                f"library {self.path} holds {self.mode_text}, {self.shape}; "
                "make a library for each mode."
            )
        name = uuid.uuid4().hex
        temporary = self.path / FRAMES / f"{temporary_prefix()}{name}"
        marker = f"{temporary_prefix()}adding"  # until its rows are committed
        try:
            _write_batch(temporary, batch)
            (temporary / marker).touch()
            with self._write() as index:
                if self.holds(batch.frame_info[0].sha256, index):
                    return 0
                [first] = index.execute("SELECT count(*) FROM frames").fetchone()
                rows = self._products(index, batch.zone)
                _create(_group(temporary), "gram", data=rows, compressors=None)
                os.replace(temporary, self.path / FRAMES / name)
                cursor = index.execute(
                    "INSERT INTO batches (folder, first, n, added_by) VALUES (?, ?, ?, ?)",
                    (name, first, len(batch.frame_info), f"lyot {__version__}"),
                )
                placeholders = ", ".join("?" * (2 + len(COLUMNS)))
                index.executemany(
                    f"INSERT INTO frames VALUES ({placeholders})",
                    [
                        (first + k, cursor.lastrowid, *astuple(row))
                        for k, row in enumerate(batch.frame_info)
                    ],
                )
            (self.path / FRAMES / name / marker).unlink(missing_ok=True)
            return len(batch.frame_info)
        except OSError as err:
            raise LyotError(f"{self.path} cannot be written ({err.strerror or err}).") from None
        finally:
            shutil.rmtree(temporary, ignore_errors=True)

    def gram(self) -> NDArray[np.float64]:
        """Return the Gram matrix of all frames over the zone, from the rows in each batch."""
        batches = self._batches()
        n = sum(size for _, _, size in batches)
        out = np.empty((n, n))
        for folder, first, size in batches:
            rows = _read(folder, "gram", (size, first + size), np.float64)
            out[first : first + size, : first + size] = rows
            out[: first + size, first : first + size] = rows.T
        return out

    def zones(self) -> Iterator[NDArray[np.float64]]:
        """Yield the centered zone pixels ``(n, n_zone)`` of all frames in order, in groups."""
        yield from self._in_groups(self._batches())

    def pixels(self, indices: NDArray[np.intp], /) -> NDArray[np.float64]:
        """Read pixels by their indices in the flattened frame, of all frames one after another."""
        batches = self._batches()
        out = np.empty((sum(n for _, _, n in batches), len(indices)))
        for folder, first, n in batches:
            sci = _read(folder, "sci", (n, *self.shape), np.float32)
            out[first : first + n] = sci.reshape(n, -1)[:, indices]
        return out

    def frames(self, numbers: Sequence[int], /) -> Cube:
        """Read frames in the given order, with the target, roll, time and dither of each."""
        rows = {row["number"]: row for row in self.query()}
        for number in numbers:
            if number not in rows:
                raise LyotError(f"{self.path} has no frame {number}.")
        shape, wanted = (len(numbers), *self.shape), np.asarray(numbers, dtype=np.intp)
        arrays: dict[str, Any] = {
            "sci": memory.empty(shape, np.float32),
            "err": memory.empty(shape, np.float32),
            "dq": memory.empty(shape, np.uint32),
        }
        for folder, start, size in self._batches():
            places = np.flatnonzero((wanted >= start) & (wanted < start + size))
            if len(places):
                in_batch = wanted[places] - start
                first, last = int(in_batch.min()), int(in_batch.max())
                for name, array in arrays.items():
                    pick = slice(first, last + 1)
                    read = _read(folder, name, (size, *self.shape), array.dtype, pick)
                    array[places] = read[in_batch - first]
                    memory.relieve()
        chosen = [rows[number] for number in numbers]
        return Cube(
            **arrays,
            info=self._info(chosen[0]["file"] if chosen else ""),
            dither_arcsec=np.array([[r["x_offset"], r["y_offset"]] for r in chosen]),
            targets=tuple(r["target"] for r in chosen),
            pa_y_deg=np.array([r["pa_y_deg"] for r in chosen], dtype=float),  # None becomes NaN
            mjd=np.array([r["mjd"] for r in chosen], dtype=float),
        )

    def _info(self, name: str) -> ExposureInfo:
        facts: dict[str, Any] = dict(zip(MODE, self.mode, strict=True))
        facts["pixel_area_sr"] = self._settings["pixel_area_sr"]
        return ExposureInfo(name=name, shape=(1, *self.shape), **facts)

    def _batches(self, index: sqlite3.Connection | None = None) -> list[tuple[Path, int, int]]:
        """Folder, first number and size of each batch, in order."""
        with self._read() if index is None else nullcontext(index) as opened:
            rows = opened.execute("SELECT folder, first, n FROM batches ORDER BY first").fetchall()
            [n_frames] = opened.execute("SELECT count(*) FROM frames").fetchone()
        total = 0
        for folder, first, n in rows:
            named = isinstance(folder, str) and re.fullmatch("[0-9a-f]{32}", folder)
            if not named or first != total or type(n) is not int or n < 1:
                break
            total += n
        if total != n_frames or len({row[0] for row in rows}) < len(rows):
            raise LyotError(f"The batches in the index of {self.path} are damaged; {_REMEDY}.")
        return [(self.path / FRAMES / folder, first, n) for folder, first, n in rows]

    def _products(self, index: sqlite3.Connection, zone: NDArray[np.float64]) -> Any:
        """Rows of the Gram matrix for new frames: with all before them, and each other."""
        parts = [zone @ other.T for other in self._in_groups(self._batches(index))]
        return np.concatenate([*parts, zone @ zone.T], axis=1)

    def _in_groups(self, batches: list[tuple[Path, int, int]]) -> Iterator[NDArray[np.float64]]:
        """Zones of batches, `N_ZONES_READ` frames at once."""
        n_zone = int((self.weight > 0).sum())
        zones: list[NDArray[np.float64]] = []
        for folder, _, n in batches:
            zones.append(_read(folder, "zone", (n, n_zone), np.float64))
            if sum(map(len, zones)) >= N_ZONES_READ:
                yield np.concatenate(zones)
                zones = []
        if zones:
            yield np.concatenate(zones)

    def remove_leftovers(self) -> None:
        """Remove what additions that were killed left behind, and nothing else, if it may.

        A folder that this index does not list may belong to a newer one that was put aside.
        """
        home = self.path / FRAMES
        if not home.is_symlink() and os.access(self.path / INDEX, os.W_OK):
            with self._write() as index:  # no addition is at work now
                self._remove_orphans(home, {f.name for f, _, _ in self._batches(index)})

    @staticmethod
    def _remove_orphans(home: Path, committed: set[str]) -> None:
        for folder in home.iterdir():
            if folder.is_symlink() or not folder.is_dir():
                continue
            if folder.name in committed:
                for marker in filter(lambda path: is_stale(path.name), folder.iterdir()):
                    marker.unlink(missing_ok=True)
                continue
            marked = any(is_stale(path.name) for path in folder.iterdir())
            if marked or is_stale(folder.name):
                # Under a name that says so, for whoever is killed before all of it is gone.
                leftover = home / f"{temporary_prefix()}{folder.name.rpartition('-')[2]}"
                folder.rename(leftover)
                shutil.rmtree(leftover, ignore_errors=True)

    @contextmanager
    def _read(self) -> Iterator[sqlite3.Connection]:
        # Whoever was killed in a commit left a journal, which the next reader must roll back.
        mode = "rw" if os.access(self.path / INDEX, os.W_OK) else "ro"
        uri = f"{(self.path / INDEX).resolve().as_uri()}?mode={mode}"
        with (
            readable(f"The index of {self.path}", _REMEDY),
            closing(sqlite3.connect(uri, uri=True, timeout=LOCK_WAIT_S)) as index,
        ):
            _restrict(index)
            yield index

    @contextmanager
    def _write(self) -> Iterator[sqlite3.Connection]:
        """Hold the lock of the index: commit at the end, roll back where an error is raised."""
        path = self.path / INDEX
        with closing(sqlite3.connect(path, timeout=LOCK_WAIT_S, isolation_level=None)) as index:
            try:
                index.execute("BEGIN IMMEDIATE")
                with index:
                    yield index
            except sqlite3.DatabaseError as err:
                raise LyotError(f"{self.path} cannot be added to ({err}).") from None


def _restrict(index: sqlite3.Connection) -> None:
    """Let an index be read alone, within limits: it, and conditions on it, come from elsewhere."""
    for limit, value in _LIMITS.items():
        index.setlimit(limit, value)
    index.execute("PRAGMA trusted_schema = OFF")
    index.execute("PRAGMA query_only = ON")
    end = time.monotonic() + MAX_QUERY_S
    index.set_progress_handler(lambda: int(time.monotonic() > end), 10_000)

    def _allow(action: int, *_: str | None) -> int:
        reads = (sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION)
        return sqlite3.SQLITE_OK if action in reads else sqlite3.SQLITE_DENY

    index.set_authorizer(_allow)


def _group(path: Path, mode: str = "a") -> Any:
    """Open a zarr group; of format 3 alone, for older ones name filters that run pickled code."""
    import zarr

    return zarr.open_group(str(path), mode=mode, zarr_format=3)  # type: ignore[arg-type]


def _create(group: Any, name: str, /, **options: Any) -> Any:
    """Make an array of which each part gets a file, so that one that is gone is seen."""
    return group.create_array(name, config={"write_empty_chunks": True}, **options)


def _read(
    folder: Path, name: str, shape: tuple[int, ...], kind: Any, pick: slice = slice(None), /
) -> Array:
    """Read an array of a batch; refuse another shape or type, other codecs, and missing parts."""
    with readable(folder, _REMEDY):
        array = _group(folder, "r")[name]
        codecs = re.findall(r"'name': '([^']*)'", str(array.metadata.to_dict()["codecs"]))
        parts = zip(2 * shape, (*array.chunks, *(array.shards or array.chunks)), strict=True)
        if (
            array.shape != shape
            or array.dtype != kind
            or codecs not in _CODECS
            or any(part > n for n, part in parts)
            or array.nchunks_initialized < array.nchunks
            or (codecs == _PACKED and not _unpacks_to_frames(folder / name, array))
        ):
            raise LyotError(
                f"The array {name} of {folder} is not as the index says, {np.dtype(kind)} of the "
                f"shape {shape}, or not all there; {_REMEDY}."
            )
        return np.asarray(array[pick])


def _unpacks_to_frames(folder: Path, array: Any) -> bool:
    """Whether each compressed part states the size of one frame, which is what it may take."""
    n, *frame = array.shape
    n_bytes = int(np.prod(frame)) * array.dtype.itemsize
    with (folder / array.metadata.encode_chunk_key((0,) * array.ndim)).open("rb") as stored:
        # Where the parts begin and how long they are, and a checksum, are at the end.
        stored.seek(-16 * n - 4, os.SEEK_END)
        for offset in np.frombuffer(stored.read(16 * n), "<u8")[::2].tolist():
            stored.seek(offset)
            if _unpacked_size(stored.read(18)) != n_bytes:
                return False
    return array.chunks == (1, *frame) and array.shards == array.shape


def _unpacked_size(head: bytes) -> int:
    """Return what a zstd frame says it unpacks to (RFC 8878, 3.1.1); -1 where it says nothing."""
    flags = head[4]
    is_single = flags >> 5 & 1
    start, length = 6 - is_single + (0, 1, 2, 4)[flags & 3], (is_single, 2, 4, 8)[flags >> 6]
    if not head.startswith(b"\x28\xb5\x2f\xfd") or not length:
        return -1
    return int.from_bytes(head[start : start + length], "little") + 256 * (length == 2)


def _write_batch(folder: Path, batch: Batch) -> None:
    """Write the arrays of a batch: one file each, from which single frames can be read."""
    group, cube = _group(folder, "w"), batch.cube
    for name, array in (("sci", cube.sci), ("err", cube.err), ("dq", cube.dq)):
        options: dict[str, Any] = {} if name == "dq" else {"compressors": None}
        stored = _create(
            group,
            name,
            shape=array.shape,
            dtype=array.dtype,
            chunks=(1, *array.shape[1:]),
            shards=array.shape,
            **options,
        )
        stored[:] = array
    _create(group, "zone", data=batch.zone, chunks=batch.zone.shape, compressors=None)
