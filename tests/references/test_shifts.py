"""How the fit of shifts sees an exposure."""

from lyot.references.shifts import low_pass_cutoff
from scenes import info


def test_well_sampled_images_are_not_low_passed():
    assert low_pass_cutoff(info((1, 8, 8))) is None
    assert 0.3 < low_pass_cutoff(info((1, 8, 8), filter="F335M")) < 0.7
    assert low_pass_cutoff(info((1, 8, 8), filter="")) is None
