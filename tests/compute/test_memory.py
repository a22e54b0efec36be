"""Arrays on disk keep a process below a limit, and change no value."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import scenes
from lyot.compute import memory
from lyot.errors import LyotError
from lyot.parameters import AlignRecipe, MemoryParameters
from lyot.references.aligner import Aligner
from lyot.references.prepare import prepare_refs

SOURCE = Path(memory.__file__).parents[2]


@pytest.mark.parametrize(("text", "n_bytes"), [("4GB", 4e9), ("1.5 gb", 1.5e9), ("700MB", 7e8)])
def test_a_size_is_read(text, n_bytes):
    assert MemoryParameters(memory=text).n_bytes == n_bytes


@pytest.mark.parametrize("text", ["", "4", "GB", "100MB", "-4GB", "4TB", "4GB; rm"])
def test_what_is_no_size_is_refused(text):
    with pytest.raises(LyotError, match=r"memory is .*; give at least 700MB, such as 4GB"):
        MemoryParameters(memory=text)


def test_arrays_that_do_not_fit_lie_on_disk_without_a_name(tmp_path):
    with memory.limited(1_000_000, tmp_path):
        large, small = memory.empty((100, 1000), np.float64), memory.empty((10,), np.float64)
        large[:], small[:] = 1.5, 2.5
        memory.relieve()
        assert large.sum() == 150_000.0
    assert isinstance(small.base, type(None))
    assert large.base is not None
    assert not list(tmp_path.iterdir())
    assert memory.empty((100, 1000), np.float64).base is None


def test_columns_within_a_limit_are_those_without(rng, tmp_path):
    values = rng.normal(size=(200, 50))
    with memory.limited(100_000, tmp_path):
        array = memory.empty(values.shape, np.float64)
        array[:] = values
        for at in (slice(3, 20), np.array([7, 1, 40])):
            np.testing.assert_array_equal(memory.columns(array, at), values[:, at])
            memory.set_columns(array, at, -values[:, at])
            np.testing.assert_array_equal(array[:, at], -values[:, at])
            memory.set_columns(array, at, values[:, at])
        assert not np.shares_memory(memory.columns(array.reshape(200, 50), slice(3, 9)), array)
        assert np.shares_memory(memory.columns(values, slice(3, 9)), values)  # no copy of it
    np.testing.assert_array_equal(array, values)


@pytest.mark.parametrize("limit", [0, 2**16])
def test_memory_of_a_store_is_used_again_when_no_view_is_left(tmp_path, limit):
    store = memory.Store()
    with memory.limited(limit, tmp_path):
        first = store.empty((40, 60), np.float32)
        place = first.ctypes.data
        view = first.reshape(-1)[5:].view(np.int32)
        assert store.empty((40, 60), np.float32).ctypes.data != place
        del first
        view[:] = 7
        second = store.empty((40, 60), np.float32)
        assert second.ctypes.data != place
        second[:] = 1.0
        assert (view == 7).all()
        del view
        assert store.empty((40, 61), np.float32).ctypes.data != place
        assert store.empty((40, 60), np.float32).ctypes.data == place
        store.clear()


def mapped_kb():
    with open("/proc/self/status", encoding="ascii") as file:
        return int(next(line for line in file if line.startswith("RssFile:")).split()[1])


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="no /proc here")
def test_pages_of_files_that_are_read_go_back(tmp_path, monkeypatch):
    path = tmp_path / "numbers"
    np.arange(4_000_000.0).tofile(path)
    numbers = np.memmap(path, mode="r", dtype=float).reshape(2, -1)[1:]
    before = mapped_kb()
    total = numbers.sum()
    assert mapped_kb() > before + 10_000
    memory.is_read(numbers)
    monkeypatch.setattr(memory, "MAPPED_BYTES", 1)
    memory.relieve()
    assert mapped_kb() < before + 2_000
    assert numbers.sum() == total


def test_aligned_references_have_the_same_bits_within_a_limit(rng, tmp_path):
    refs, targets = (rng.normal(size=(n, 40, 42)).astype(np.float32) for n in (12, 2))
    refs[rng.random(refs.shape) < 0.01] = np.nan
    targets += refs[:2] * 0.1 + 5.0 * scenes.gaussian((40, 42), (20.0, 21.0), 8.0)
    refs += 5.0 * scenes.gaussian((40, 42), (20.3, 21.2), 8.0)
    target, stack = scenes.cube(targets), scenes.cube(refs)

    def align():
        aligner = Aligner(target, prepare_refs(stack, AlignRecipe()), AlignRecipe())
        return [aligner.frames(i) for i in range(2)]

    free = align()
    with memory.limited(100_000, tmp_path):
        for one, other in zip(free, align(), strict=True):
            np.testing.assert_array_equal(one.sci, other.sci)
            np.testing.assert_array_equal(one.variance, other.variance)


def test_a_process_stays_below_its_limit(tmp_path):
    code = f"""
from lyot.compute import memory, threads
import numpy as np
with memory.limited(300_000_000, {str(tmp_path)!r}):
    arrays = [memory.empty((400, 250_000), np.float32) for _ in range(2)]
    def fill(k):
        for array in arrays:
            array[k] = k
    threads.map_ordered(fill, range(400))
    def check(k):
        assert all((array[k] == k).all() for array in arrays)
    threads.map_ordered(check, range(400))
    print(memory.peak_bytes())
"""
    env = os.environ | {"PYTHONPATH": str(SOURCE)}
    run = [sys.executable, "-c", code]
    done = subprocess.run(run, env=env, capture_output=True, text=True, check=True)
    # The two arrays alone take 800 MB.
    assert 0 < int(done.stdout) < 300_000_000
