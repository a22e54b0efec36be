"""A product written in blocks is the product that saving writes."""

import os

import numpy as np
import pytest

from lyot.errors import LyotError
from lyot.files import products, provenance, stream
from lyot.files.exposure import as_model
from lyot.files.stream import PIECE_BYTES, write_blocks


@pytest.fixture(params=["fast", "slow", "slow, but the cache must not take it"])
def cached(request, monkeypatch):
    """Whether the cache may take a product, for a disk that is fast or not."""
    if request.param != "fast":
        monkeypatch.setattr(stream, "TRIED_BYTES", 0)
        monkeypatch.setattr(stream, "MIN_BYTES_PER_S", np.inf)
    return "must not" not in request.param


@pytest.mark.parametrize("compress_dq", [False, True])
@pytest.mark.parametrize("n_sets", [None, 3])
def test_a_product_written_in_blocks_equals_a_saved_one(
    exposure, tmp_path, rng, n_sets, compress_dq, cached
):
    from stdatamodels.jwst import datamodels

    shape = (2, 5, 6) if n_sets is None else (n_sets, 2, 5, 6)
    kind = "CubeModel" if n_sets is None else "QuadModel"
    sci, err = rng.normal(size=(2, *shape)).astype(np.float32)
    sci.flat[3] = np.nan
    dq = rng.integers(0, 2**32, shape, dtype=np.uint32)
    target = as_model(exposure, "CubeModel")

    def model():
        small = np.zeros((1,) * len(shape), np.float32)
        made = products.derived_model(
            kind, target, {"data": small, "err": small.copy(), "dq": small.astype(np.uint32)}
        )
        provenance.stamp(made, "align_psfs", {"a": 1}, ["x"], array=np.arange(4.0))
        return made

    path = tmp_path / "t_psfalign.fits"
    with write_blocks(path, model, shape, compress_dq=compress_dq, cached=cached) as write:
        for i in range(n_sets or 1):
            pick = () if n_sets is None else i
            write(i, sci[pick], err[pick], dq[pick])
    with datamodels.open(path) as opened:
        assert type(opened).__name__ == kind
        np.testing.assert_array_equal(opened.data, sci)
        np.testing.assert_array_equal(opened.err, err)
        np.testing.assert_array_equal(opened.dq, dq)
        assert opened.meta.cal_step.align_psfs == "COMPLETE"
        assert opened.meta.filename == "t_psfalign.fits"
        assert opened.meta.wcs is not None
        branch = provenance.provenance_of(opened)
        np.testing.assert_array_equal(branch["steps"]["align_psfs"]["array"], np.arange(4.0))
    target.close()


def test_blocks_come_in_any_order_and_larger_than_what_is_written_at_once(
    exposure, tmp_path, rng, cached
):
    from astropy.io import fits

    shape = (3, 2, 401, 403)  # no plane ends at a page of the file
    sci, err = rng.normal(size=(2, *shape)).astype(np.float32)
    dq = rng.integers(0, 2**32, shape, dtype=np.uint32)
    assert sci[0].nbytes < PIECE_BYTES < sci.nbytes
    target = as_model(exposure, "CubeModel")

    def model():
        small = np.zeros((1,) * 4, np.float32)
        arrays = {"data": small, "err": small.copy(), "dq": small.astype(np.uint32)}
        return products.derived_model("QuadModel", target, arrays)

    path = tmp_path / "t_psfalign.fits"
    with write_blocks(path, model, shape, cached=cached) as write:
        for i in (1, 2, 0):
            write(i, sci[i], err[i], dq[i])
    target.close()
    with fits.open(path) as hdus:
        for name, array in (("SCI", sci), ("ERR", err), ("DQ", dq)):
            np.testing.assert_array_equal(hdus[name].data, array)
        assert path.stat().st_size % 2880 == 0


def test_a_file_that_cannot_grow_ends_in_a_sentence_and_leaves_nothing(tmp_path, cached):
    resource = pytest.importorskip("resource")
    shape = (2, 2, 601, 603)
    plane = np.zeros(shape[1:], np.float32)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)

    def write():
        with write_blocks(tmp_path / "t.fits", lambda: None, shape, cached=cached) as block:
            for i in range(2):
                block(i, plane, plane, plane.astype(np.uint32))

    resource.setrlimit(resource.RLIMIT_FSIZE, (2**22, limits[1]))
    try:
        with pytest.raises(LyotError, match=r"t\.fits was not written"):
            write()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert os.listdir(tmp_path) == []


def test_an_interrupted_stream_leaves_no_file(exposure, tmp_path):
    target = as_model(exposure, "CubeModel")

    def model():
        arrays = {name: np.zeros((1, 1, 1), np.float32) for name in ("data", "err")}
        arrays["dq"] = np.zeros((1, 1, 1), np.uint32)
        return products.derived_model("CubeModel", target, arrays)

    def write():
        with write_blocks(tmp_path / "t.fits", model, (2, 5, 6)):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write()
    assert os.listdir(tmp_path) == []
    target.close()
