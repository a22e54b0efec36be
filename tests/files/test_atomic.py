"""Files appear complete or not at all, and the message says why one was not written."""

import errno
import os
import shutil
from types import SimpleNamespace

import pytest

from lyot.errors import LyotError
from lyot.files import atomic


def test_a_file_appears_only_when_complete(tmp_path):
    path = tmp_path / "new" / "product.txt"
    with atomic.atomic_write(path) as temporary:
        temporary.write_text("whole")
        assert not path.exists()
    assert path.read_text() == "whole"
    assert os.listdir(path.parent) == ["product.txt"]


@pytest.mark.parametrize("failure", [KeyboardInterrupt, RuntimeError])
def test_an_interrupted_write_leaves_no_file_and_keeps_the_old_one(tmp_path, failure):
    path = tmp_path / "product.txt"
    path.write_text("old")

    def write():
        with atomic.atomic_write(path) as temporary:
            temporary.write_text("half")
            raise failure

    with pytest.raises(failure):
        write()
    assert path.read_text() == "old"
    assert os.listdir(tmp_path) == ["product.txt"]


@pytest.mark.parametrize(
    "error",
    [
        OSError(errno.ENOSPC, "No space left on device"),
        OSError("Not enough space on disk: requested 74935, available 0."),  # of astropy
    ],
)
def test_a_full_disk_is_reported(tmp_path, error):
    def write():
        with atomic.atomic_write(tmp_path / "p.fits"):
            raise error

    with pytest.raises(LyotError, match="the disk is full"):
        write()
    assert os.listdir(tmp_path) == []


def test_a_product_larger_than_the_free_space_is_refused(tmp_path):
    with pytest.raises(LyotError, match="free some space"):
        atomic.check_free_space(tmp_path, 10**18, "x_psfalign.fits")


def test_a_small_size_is_told_in_megabytes(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=70_000))
    with pytest.raises(LyotError, match=r"takes 1\.50 MB and .* has 0\.07 MB free"):
        atomic.check_free_space(tmp_path, 1_500_000, "x_psfalign.fits")


def test_an_unwritable_folder_is_reported(tmp_path):
    (tmp_path / "file").write_text("")

    def write():
        with atomic.atomic_write(tmp_path / "file" / "p.fits"):
            pass

    with pytest.raises(LyotError, match="is not a folder you may write to"):
        write()
