"""Instruments as values: looked up by what headers say, and one that only this file knows."""

import pytest

from lyot.errors import LyotError
from lyot.instruments import INSTRUMENTS, NIRCAM


def test_flags_are_given_by_name():
    flag_value = NIRCAM.flag_value
    assert flag_value("DO_NOT_USE+HOT") == 2049
    assert flag_value("DO_NOT_USE,HOT") == 2049
    assert flag_value("") == 0
    with pytest.raises(LyotError, match="bad_bits is 'NOPE'"):
        flag_value("NOPE")


def test_the_flags_are_those_of_the_calibration_pipeline():
    from stdatamodels.jwst.datamodels.dqflags import pixel

    for instrument in INSTRUMENTS.values():
        assert dict(instrument.dq_flags) == pixel
