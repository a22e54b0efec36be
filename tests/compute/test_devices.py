"""Devices are chosen by name, and say what is missing."""

import sys

import numpy as np
import pytest

from lyot.compute.devices import Device, device
from lyot.errors import LyotError


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
