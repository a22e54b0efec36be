"""Devices are chosen by name, say what is missing, and give what NumPy gives."""

import sys

import numpy as np
import pytest

from lyot.algorithms.geometry import TangentPlane
from lyot.compute.devices import Device, device, rows
from lyot.errors import LyotError
from lyot.parameters import AlignRecipe, SubtractRecipe
from lyot.references.aligner import Aligner
from lyot.references.prepare import prepare_refs
from lyot.subtraction.subtract import subtract
from lyot.subtraction.zones import make_zones
from scenes import cube

SHAPE, STAR = (40, 42), (20.0, 21.0)


def test_unknown_and_missing_devices_are_refused(monkeypatch):
    with pytest.raises(LyotError, match="device is 'tpu'; it must be one of cpu, cuda, torch"):
        device("tpu")
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.setitem(sys.modules, "cupy", None)
    with pytest.raises(LyotError, match="neither PyTorch nor CuPy"):
        device("cuda")


def test_arrays_go_there_and_back_through_any_nesting():
    seen = []

    def put(array):
        seen.append(array.shape)
        return array

    there = Device(put, np.asarray)
    result = there.run(lambda a, b, *, c: (a + b[0], {"n": c}), np.ones(2), [np.ones(2)], c=3)
    np.testing.assert_array_equal(result[0], 2.0)
    assert result[1] == {"n": 3}
    assert seen == [(2,), (2,)]


def test_a_range_of_rows_is_not_copied():
    array = np.arange(12).reshape(6, 2)
    for pick in (range(1, 4), range(0, 6, 2), [5, 0]):
        np.testing.assert_array_equal(rows(array, pick), array[list(pick)])
        assert np.shares_memory(rows(array, pick), array) == (pick == range(1, 4))


@pytest.mark.parametrize("free", [0, 400, 10**9])
def test_a_device_works_on_as_many_items_as_fit_its_memory(free):
    there, groups = Device(np.asarray, np.asarray, lambda: free), []
    result = there.map_groups(
        lambda g: groups.append(g) or sum(g), range(7), at_once=3, item_bytes=50
    )
    assert [k for group in groups for k in group] == list(range(7))
    assert sum(result) == 21
    assert max(map(len, groups)) == min(max(free // 200, 1), 7)


def strict():
    """Return a device whose arrays, like those of a GPU, never meet others of the same library."""
    library = pytest.importorskip("array_api_strict")
    here, there = library.Device("CPU_DEVICE"), library.Device("device1")

    def put(array):
        native = np.asarray(array, dtype=array.dtype.newbyteorder("="))
        return library.asarray(native, device=there)

    return Device(put, lambda array: np.asarray(array.to_device(here)))


def tensors():
    """Return PyTorch on the CPU."""
    pytest.importorskip("torch", reason="PyTorch is not installed")
    return device("torch")


@pytest.fixture(scope="module")
def frames():
    rng = np.random.default_rng(3)
    patterns = rng.normal(size=(4, *SHAPE)) * 10
    smooth = np.fft.irfft2(np.fft.rfft2(patterns) * np.exp(-np.arange(22) / 4), s=SHAPE)

    def draw(n):
        sci = np.tensordot(rng.normal(size=(n, 4)), smooth, 1) + rng.normal(size=(n, *SHAPE)) * 0.1
        return sci, (rng.random(sci.shape) < 0.01).astype(np.uint32)

    return draw(3), draw(6)


@pytest.mark.parametrize("there", [strict, tensors])
@pytest.mark.parametrize(
    ("alignment", "subtraction", "facts"),
    [
        ({}, {"n_modes": (2, 5)}, {}),
        ({}, {"n_modes": (3,), "zones": "annuli", "n_annuli": 2, "inner_arcsec": 0.1}, {}),
        ({"align_to": "first"}, {"n_modes": (3,), "fit_outer_arcsec": 1.0}, {}),
        ({"align_to": "first"}, {"n_modes": (3,), "error": "scatter"}, {}),
        ({"max_shift": 0.6}, {"n_modes": (3,), "select": "correlation", "n_refs": 4}, {}),
        ({}, {"n_modes": (2,), "method": "imputation"}, {"filter": "F182M"}),
    ],
)
def test_a_reduction_on_another_device_is_the_same(there, frames, alignment, subtraction, facts):
    target, refs = (cube(sci, 0.1, dq, crpix_xy=STAR, **facts) for sci, dq in frames)
    recipe, how = AlignRecipe(**alignment), SubtractRecipe(**subtraction)
    found, fits, flags = [], [], []
    for place in (device(), there()):
        aligner = Aligner(
            target,
            prepare_refs(refs, recipe),
            recipe,
            star_xy=STAR,
            device=place,
            weight=np.ones(SHAPE),
        )
        zones = make_zones(how, SHAPE, TangentPlane.linear(aligner.star.yx, 0.0, 0.063))
        found.append(subtract(target, aligner, zones, how, device=place))
        fits.append(aligner.fits())
        flags.append([aligner.frames(0).dq[k] for k in range(len(refs.sci))])
    np.testing.assert_array_equal(*flags)
    np.testing.assert_array_equal(fits[1].converged, fits[0].converged)
    at = fits[0].converged
    error = np.sqrt(np.diagonal(fits[0].covariance[at], axis1=1, axis2=2))
    assert (np.abs(fits[1].shift_yx - fits[0].shift_yx)[at] < 1e-3 * error).all()
    np.testing.assert_allclose(fits[1].covariance[at], fits[0].covariance[at], rtol=1e-4)
    for here, other in zip(*found, strict=True):
        np.testing.assert_allclose(other.sci, here.sci, atol=1e-4)
        np.testing.assert_allclose(other.err, here.err, rtol=1e-4)
        np.testing.assert_allclose(other.coefficients, here.coefficients, atol=1e-4)
