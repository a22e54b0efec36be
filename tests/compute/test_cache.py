"""The cache folder: where it is, what is taken from it, and what is not."""

import os
import subprocess
import sys

import numpy as np
import pytest

from lyot.compute import cache
from lyot.compute.cache import cache_folder, remembered


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("LYOT_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


class Maker:
    """Makes an array and counts how often."""

    def __init__(self, value=1.0):
        self.value, self.n = value, 0

    def __call__(self):
        self.n += 1
        return {"image": np.full((4, 5), self.value)}


def test_arrays_are_made_once(folder):
    make = Maker()
    first, second = (remembered("mode", "a", make)["image"] for _ in range(2))
    assert make.n == 1
    np.testing.assert_array_equal(first, second)
    assert [p.name for p in (folder / "mode").iterdir()] == ["a.arrays"]
    remembered("mode", "b", make)
    remembered("other", "a", make)
    assert make.n == 3


def test_another_process_finds_them(folder):
    remembered("mode", "a", Maker(3.0))
    code = (
        "from lyot.compute.cache import remembered\n"
        "print(remembered('mode', 'a', lambda: 1 / 0)['image'].sum())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "60.0"


CROWD = """
import gc, os, sys, threading
from contextlib import suppress
import numpy as np
from lyot.compute.cache import cache_folder, remembered

sys.setswitchinterval(1e-6)
gc.set_threshold(5)
path, wrong = cache_folder() / "mode" / "a.arrays", []

class Cycle:
    def __init__(self):
        self.itself = self
    def __del__(self):
        for _ in range(50):
            pass

def use(thread):
    try:
        for i in range(60):
            Cycle(), Cycle()
            found = remembered("mode", "a", lambda: {"image": np.full((40, 50), 7.0)})
            if not np.array_equal(found["image"], np.full((40, 50), 7.0)):
                wrong.append(found)
            if thread == 0 and i % 10 == 0:
                # Cut in the middle of its use, unless another has just removed it.
                with suppress(FileNotFoundError), open(path, "r+b") as file:
                    file.truncate(900 * (i % 20))
            if thread == 1 and i % 10 == 5:
                path.unlink(missing_ok=True)
    except BaseException as error:
        wrong.append(error)

threads = [threading.Thread(target=use, args=(n,)) for n in range(4)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
sys.exit(f"{wrong[0]!r}" if wrong else 0)
"""


def test_processes_and_threads_use_one_file_at_once(folder):
    """It is replaced, cut short and removed under them; finalizers run while they read."""
    remembered("mode", "a", lambda: {"image": np.full((40, 50), 7.0)})
    crowd = [
        subprocess.Popen([sys.executable, "-c", CROWD], stderr=subprocess.PIPE, text=True)
        for _ in range(3)
    ]
    said = [process.communicate(timeout=120)[1] for process in crowd]
    assert [process.returncode for process in crowd] == [0, 0, 0], said
    assert not list(folder.rglob("*.part"))


@pytest.mark.parametrize("damage", ["empty", "cut", "flipped", "foreign", "renamed"])
def test_damaged_and_foreign_files_are_made_again(folder, damage):
    make = Maker()
    remembered("mode", "a", make)
    path = folder / "mode" / "a.arrays"
    content = bytearray(path.read_bytes())
    if damage == "empty":
        content.clear()
    elif damage == "cut":
        del content[len(content) // 2 :]
    elif damage == "flipped":
        content[content.find(np.float64(1.0).tobytes()) + 7] ^= 0x40
    elif damage == "foreign":
        content[:] = b"something else"
    elif damage == "renamed":
        remembered("mode", "b", Maker(2.0))
        content[:] = (folder / "mode" / "b.arrays").read_bytes()
    path.write_bytes(content)
    found = remembered("mode", "a", make)["image"]
    assert make.n == 2
    np.testing.assert_array_equal(found, np.ones((4, 5)))
    remembered("mode", "a", make)
    assert make.n == 2


def test_a_file_with_any_byte_wrong_gives_what_was_made(folder):
    remembered("mode", "a", Maker())
    path = folder / "mode" / "a.arrays"
    whole = path.read_bytes()
    for i in range(len(whole)):
        wrong = bytearray(whole)
        wrong[i] ^= (0x08, 0xFF)[i % 2]
        path.write_bytes(wrong)
        found = remembered("mode", "a", Maker())
        assert list(found) == ["image"], i
        np.testing.assert_array_equal(found["image"], np.ones((4, 5)))


def test_without_a_folder_arrays_are_made_each_time(folder, tmp_path, monkeypatch):
    monkeypatch.setenv("LYOT_CACHE_DIR", "")
    make = Maker()
    remembered("mode", "a", make)
    remembered("mode", "a", make)
    (tmp_path / "file").touch()
    monkeypatch.setenv("LYOT_CACHE_DIR", str(tmp_path / "file"))
    remembered("mode", "a", make)
    assert make.n == 3


def test_what_was_not_used_for_longest_is_removed(folder, monkeypatch):
    monkeypatch.setattr(cache, "MAX_BYTES", 2000)
    for age, group in enumerate(("old", "older", "new")):
        remembered(group, "a", lambda: {"image": np.zeros(100)})
        os.utime(folder / group, (1e9 - age, 1e9 - age) if age < 2 else None)
    remembered("newest", "a", Maker())
    assert {p.name for p in folder.iterdir()} == {"old", "new", "newest"}


def test_the_folder_is_that_of_the_system(monkeypatch, tmp_path):
    monkeypatch.delenv("LYOT_CACHE_DIR", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "lyot"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert tmp_path in cache_folder().parents
