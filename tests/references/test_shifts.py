"""How the fit of shifts sees an exposure."""

from lyot.files.headers import ExposureInfo
from lyot.references.shifts import low_pass_cutoff


def info(filter_):
    area = (0.063 / 206264.8) ** 2
    return ExposureInfo("x", (1, 8, 8), instrument="NIRCAM", filter=filter_, pixel_area_sr=area)


def test_well_sampled_images_are_not_low_passed():
    assert low_pass_cutoff(info("F444W")) is None
    assert 0.3 < low_pass_cutoff(info("F335M")) < 0.7
    assert low_pass_cutoff(info("")) is None
