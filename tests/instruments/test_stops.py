"""Lyot stops: openings, throughputs, and what they keep from the edges of the pupil."""

import numpy as np
import pytest
from scipy import ndimage

from lyot.instruments.pupil import FLIGHT_PUPIL
from lyot.instruments.stops import (
    BAR_MASK_STOP,
    LYOT_SPOT_STOP,
    PHASE_MASK_STOP,
    ROUND_MASK_STOP,
    EdgeStop,
    throughput,
)

N = 512
STEP = FLIGHT_PUPIL.width_m / N


def gaps_closed(pupil):
    """Return where the pupil is, with the gaps between segments filled."""
    return ndimage.binary_closing(pupil > 0.5, iterations=2)


def distance_to_edges():
    """Return the distance from the edges of the pupil by counting pixels [m]."""
    inside = np.pad(gaps_closed(FLIGHT_PUPIL.amplitude(N)), 1)
    return ndimage.distance_transform_edt(inside)[1:-1, 1:-1] * STEP


def test_the_round_stop_has_fourteen_openings_and_passes_a_fifth():
    assert throughput(ROUND_MASK_STOP, FLIGHT_PUPIL) == pytest.approx(0.189, abs=0.01)
    assert ndimage.label(ROUND_MASK_STOP.amplitude(FLIGHT_PUPIL, N) > 0.5)[1] == 14


def test_the_round_stop_keeps_its_lengths_from_every_edge():
    kept = distance_to_edges()[ROUND_MASK_STOP.amplitude(FLIGHT_PUPIL, N) > 0.99]
    assert kept.min() > 0.50 - 2 * STEP


def test_the_bar_stop_has_fourteen_openings_and_leaves_the_middle_free():
    stop = BAR_MASK_STOP.amplitude(FLIGHT_PUPIL, N)
    assert ndimage.label(stop > 0.5)[1] == 14
    assert stop.max() <= 1.0 + 1e-12
    assert np.all(FLIGHT_PUPIL.amplitude(N)[stop > 0.99] > 0.7)
    assert throughput(BAR_MASK_STOP, FLIGHT_PUPIL) == pytest.approx(0.154, abs=0.01)


@pytest.mark.parametrize(("stop", "published"), [(PHASE_MASK_STOP, 0.62), (LYOT_SPOT_STOP, 0.72)])
def test_stops_of_miri_pass_what_is_published(stop, published):
    assert throughput(stop, FLIGHT_PUPIL) == pytest.approx(published, abs=0.005)


def test_an_edge_stop_keeps_its_length_and_moves_with_its_shift():
    still, moved = EdgeStop(0.3, 0.3, 0.3), EdgeStop(0.3, 0.3, 0.3, (10 * STEP, -4 * STEP))
    amplitude = still.amplitude(FLIGHT_PUPIL, N)
    assert distance_to_edges()[amplitude > 0.99].min() > 0.3 - 2 * STEP
    np.testing.assert_allclose(
        moved.amplitude(FLIGHT_PUPIL, N), np.roll(amplitude, (-4, 10), axis=(0, 1)), atol=1e-9
    )
