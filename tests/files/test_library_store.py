"""The index and the arrays of a reference library, and what is refused of one from elsewhere."""

import json
import shutil
import sqlite3
import time
import tracemalloc
from contextlib import closing, suppress

import numpy as np
import pytest
import zarr
from numcodecs.zstd import Zstd

from lyot.errors import LyotError
from lyot.files.library_store import Library


def test_the_index_can_be_queried(library):
    rows = library.query("integration = 1 AND target LIKE 'demo%'")
    assert rows
    assert {r["integration"] for r in rows} == {1}
    for bad in ("color = 3", "1; DROP TABLE frames", "integration = "):
        with pytest.raises(LyotError, match="is no condition"):
            library.query(bad)
    assert len(library.query()) == len(library)


@pytest.mark.parametrize(
    "where",
    [
        "1) LIMIT 1 --",
        "1) LIMIT 1 /*",
        "1) UNION SELECT number FROM frames WHERE (1",
        "1; DELETE FROM frames",
        "(WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c) SELECT max(x) FROM c)",
        "length(randomblob(100000000)) > 0",
        "(" * 300 + "1" + ")" * 300,
        "(SELECT count(*) FROM pragma_journal_mode) > 0",
        "\0",
    ],
)
def test_a_condition_is_one_expression_within_limits(library, where):
    began = time.monotonic()
    with pytest.raises(LyotError, match="is no condition") as refused:
        library.query(where)
    assert len(str(refused.value)) < 900
    assert time.monotonic() - began < 5.0


def test_a_condition_that_takes_too_long_is_ended(library, monkeypatch):
    monkeypatch.setattr("lyot.files.library_store.MAX_QUERY_S", 0.2)
    crossed = ", ".join(f"frames f{k}" for k in range(12))
    with pytest.raises(LyotError, match="it takes too long"):
        library.query(f"(SELECT count(*) FROM {crossed}) = 0")


@pytest.fixture
def foreign(library, tmp_path):
    """A copy of a library, to be changed."""
    shutil.copytree(library.path, tmp_path / "lib")
    return tmp_path / "lib"


def ask(path):
    """Do all that reads a library."""
    library = Library(path)
    numbers = [row["number"] for row in library.query()]
    return library.frames(numbers), library.gram(), list(library.zones()), library.pixels([0, 1])


@pytest.mark.parametrize(
    "change",
    [
        "UPDATE settings SET value = '[1, 2, 3]' WHERE key = 'shape'",
        "UPDATE settings SET value = '{' WHERE key = 'mode'",
        "DELETE FROM settings WHERE key = 'mode'",
        "DELETE FROM settings WHERE key = 'format'",
        "UPDATE batches SET folder = '../../elsewhere' WHERE batch = 1",
        "UPDATE batches SET n = n + 1 WHERE batch = 1",
        "UPDATE batches SET first = 1000000 WHERE batch = 1",
        "UPDATE frames SET number = -1 WHERE number = 0",
        "UPDATE frames SET target = NULL WHERE number = 0",
        "UPDATE frames SET scale = 'large' WHERE number = 0",
        "ALTER TABLE frames RENAME COLUMN mjd TO time",
        "DROP TABLE batches",
    ],
)
def test_an_index_that_is_damaged_is_refused(foreign, change):
    ask(foreign)
    with closing(sqlite3.connect(foreign / "index.sqlite")) as index, index:
        index.execute(change)
    with pytest.raises(LyotError, match="build"):
        ask(foreign)


def test_bytes_of_an_index_that_are_overwritten_end_in_no_other_error(foreign):
    path = foreign / "index.sqlite"
    whole, refused = path.read_bytes(), []
    page = int.from_bytes(whole[16:18], "big")
    with closing(sqlite3.connect(path)) as index:
        [root] = index.execute(
            "SELECT rootpage FROM sqlite_master WHERE name = 'sqlite_autoindex_frames_1'"
        ).fetchone()
    for at in range((root - 1) * page, (root - 1) * page + 40):  # where its keys lie
        path.write_bytes(whole[:at] + b"\xff" + whole[at + 1 :])
        with suppress(LyotError):
            Library(path.parent).holds("0" * 64)
            continue
        refused.append(at)
    assert refused


@pytest.mark.parametrize("name", ["sci", "err", "dq", "zone", "gram"])
def test_arrays_that_are_not_as_the_index_says_are_refused(foreign, name):
    batch = sorted((foreign / "frames").iterdir())[0]
    group = zarr.open_group(str(batch), mode="a", zarr_format=3)
    array = group[name][:]
    for wrong in (array[:, 1:], array.astype(np.complex128)):
        group.create_array(name, data=wrong, overwrite=True)
        with pytest.raises(LyotError, match=f"The array {name} of .* is not as the index says"):
            ask(foreign)


@pytest.mark.parametrize("name", ["sci", "err", "dq", "zone", "gram"])
def test_an_array_with_a_part_missing_is_not_taken_for_zeros(foreign, name):
    batch = sorted((foreign / "frames").iterdir())[0]
    shutil.rmtree(batch / name / "c")
    with pytest.raises(LyotError, match="or not all there"):
        ask(foreign)


@pytest.mark.parametrize("codec", ["gzip", "zstd"])
def test_other_codecs_are_not_run(foreign, codec):
    batch = sorted((foreign / "frames").iterdir())[0]
    path = batch / "gram" / "zarr.json"
    content = json.loads(path.read_text())
    content["codecs"].append({"name": codec, "configuration": {"level": 1}})
    path.write_text(json.dumps(content))
    with pytest.raises(LyotError, match="is not as the index says"):
        ask(foreign)


def crc32c(stored):
    """The checksum of Castagnoli, bit by bit."""
    value = 0xFFFFFFFF
    for byte in stored:
        value ^= byte
        for _ in range(8):
            value = value >> 1 ^ (0x82F63B78 if value & 1 else 0)
    return (value ^ 0xFFFFFFFF).to_bytes(4, "little")


def test_flags_that_unpack_to_more_than_a_frame_are_refused_before(foreign):
    batch = sorted((foreign / "frames").iterdir())[0]
    path, n_bytes = batch / "dq/c/0/0/0", 200_000_000
    bomb = bytes(Zstd().encode(bytes(n_bytes)))
    stored, n = path.read_bytes(), zarr.open_group(str(batch), mode="r")["dq"].shape[0]
    places = np.frombuffer(stored[-16 * n - 4 : -4], "<u8").reshape(n, 2).copy()
    places[-1] = len(stored), len(bomb)
    path.write_bytes(stored + bomb + places.tobytes() + crc32c(places.tobytes()))
    tracemalloc.start()
    try:
        with pytest.raises(LyotError, match="The array dq of"):
            ask(foreign)
        assert tracemalloc.get_traced_memory()[1] < 0.2 * n_bytes
    finally:
        tracemalloc.stop()


def test_what_a_library_says_in_its_own_words_is_not_repeated(foreign):
    path = foreign / "zone/weight/zarr.json"
    content = json.loads(path.read_text())
    content["chunk_grid"]["configuration"] = None
    path.write_text(json.dumps(content))
    with pytest.raises(LyotError, match=r"zone cannot be read \(it is damaged\); build"):
        _ = Library(foreign).weight
