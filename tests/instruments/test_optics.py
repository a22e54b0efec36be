"""Propagation: energy is conserved, and ideal coronagraphs do what their theory says."""

from dataclasses import dataclass, replace

import numpy as np
import pytest

from lyot.instruments import MIRI, NIRCAM
from lyot.instruments.coronagraphs import Coronagraph, NoMask
from lyot.instruments.optics import N_PUPIL, CoronagraphModel, draw_wavefront
from lyot.instruments.telescope import ARCSEC_PER_RADIAN, OPEN, UndersizedSegments

F335M = NIRCAM.filter("F335M")


def full_field(pupil, coronagraph, wavelength_m=F335M.pivot_um * 1e-6):
    """A model whose image covers one whole period of the sampled pupil."""
    period = wavelength_m / (pupil.width_m / N_PUPIL) * ARCSEC_PER_RADIAN
    return CoronagraphModel(pupil, coronagraph, F335M, period / N_PUPIL, (N_PUPIL, N_PUPIL), 1, 1)


@dataclass(frozen=True)
class ClearDisk:
    """A pupil, or a stop, that is a clear disk."""

    radius_m: float
    diameter_m: float = 6.0
    width_m: float = 6.6
    segment_centers_m: tuple[tuple[float, float], ...] = ()

    def amplitude(self, *arguments):
        n = arguments[-1]
        grid = (np.arange(n) - 0.5 * (n - 1)) * (self.width_m / n)
        radius = np.hypot(grid[None, :], grid[:, None])
        return np.clip((self.radius_m - radius) / (self.width_m / n) + 0.5, 0.0, 1.0)


class OpenMask(Coronagraph):
    """A mask that is propagated through, and open everywhere."""

    def amplitude(self, x_arcsec, y_arcsec, /):
        return np.ones(np.broadcast_shapes(x_arcsec.shape, y_arcsec.shape))


def test_all_light_that_enters_arrives_where_nothing_stands_in_the_way():
    image = full_field(NIRCAM.pupil, NoMask(name="")).image(source_xy_arcsec=(0.3, -0.2))
    assert image.sum() == pytest.approx(1.0, rel=1e-10)


def test_what_passes_the_stop_is_its_throughput():
    model = full_field(NIRCAM.pupil, NIRCAM.coronagraph("MASK335R"))
    image = model.unocculted.image()
    assert image.sum() == pytest.approx(model.lyot_throughput, rel=1e-10)
    assert model.lyot_throughput == pytest.approx(0.741, abs=0.001)
    smaller = replace(
        model, coronagraph=replace(model.coronagraph, stop=UndersizedSegments(undersize=0.7))
    )
    assert smaller.lyot_throughput < model.lyot_throughput


def test_a_mask_that_is_open_everywhere_changes_nothing():
    model = full_field(NIRCAM.pupil, OpenMask(name="", half_width_arcsec=0.0, stop=OPEN))
    np.testing.assert_array_equal(model.image(), model.unocculted.image())


def test_a_source_far_from_the_mask_is_not_changed_by_it():
    model = NIRCAM.model("MASK335R", "F335M", (96, 96), n_wavelengths=1)
    beside, without = (
        m.image(source_xy_arcsec=(2.0, 0.0)).sum() for m in (model, model.unocculted)
    )
    expected = model.coronagraph.transmission(2.0, 0.0, lambda_over_d_arcsec=0.1)
    assert beside / without == pytest.approx(float(expected), abs=0.01)


def test_an_offset_of_the_source_moves_its_image():
    model = MIRI.model("4QPM_1140", "F1140C", (31, 33), n_wavelengths=1)
    moved = model.unocculted.image(source_xy_arcsec=(2 * 0.111, -3 * 0.111))
    shifted = model.unocculted.image(center_xy=(16.0 + 2, 15.0 - 3))
    np.testing.assert_allclose(moved, shifted, rtol=1e-9, atol=1e-15)


def test_a_small_wavefront_error_lowers_the_peak_as_marechal_says(rng):
    model = NIRCAM.model("MASK335R", "F335M", (25, 25), n_wavelengths=1)
    perfect = model.unocculted.image()
    rms = 100e-9
    ratios = [
        model.unocculted.image(wavefront_m=draw_wavefront(model.pupil, rms, rng)).max()
        / perfect.max()
        for _ in range(6)
    ]
    expected = np.exp(-((2 * np.pi * rms / model.wavelengths_m[0]) ** 2))
    assert np.mean(ratios) == pytest.approx(expected, abs=0.02)


def test_a_wavefront_has_the_rms_that_it_is_drawn_with(rng):
    inside = NIRCAM.pupil.amplitude(N_PUPIL) > 0.5
    draws = [draw_wavefront(NIRCAM.pupil, 60e-9, rng)[inside].std() for _ in range(30)]
    assert np.sqrt(np.mean(np.square(draws))) == pytest.approx(60e-9, rel=0.05)
    disk = ClearDisk(radius_m=3.0)
    inside = disk.amplitude(N_PUPIL) > 0.5
    assert draw_wavefront(disk, 60e-9, rng)[inside].std() == pytest.approx(60e-9, rel=1e-6)


def test_a_phase_mask_nulls_a_star_behind_a_clear_pupil():
    """Rouan et al. 2000: all light of a star on the axis falls outside the pupil's image."""
    quadrants = replace(MIRI.coronagraph("4QPM_1140"), tilt_deg=0.0, stop=ClearDisk(radius_m=2.6))
    band = MIRI.filter("F1140C")
    model = CoronagraphModel(ClearDisk(radius_m=3.0), quadrants, band, 0.11, (64, 64), 1, 1)
    nulled, seen = model.image().sum(), model.unocculted.image().sum()
    assert nulled < 2e-3 * seen
    aside = model.image(source_xy_arcsec=(2.0, 2.0)).sum()
    assert aside == pytest.approx(seen, rel=0.05)


def test_a_lyot_spot_and_its_stop_leave_less_than_the_spot_alone():
    spot = MIRI.coronagraph("LYOT_2300")
    band = MIRI.filter("F2300C")
    pupil = ClearDisk(radius_m=3.0)
    left = []
    for stop in (ClearDisk(radius_m=3.0), ClearDisk(radius_m=2.4)):
        model = CoronagraphModel(pupil, replace(spot, stop=stop), band, 0.11, (96, 96), 1, 1)
        left.append(model.image().sum() / model.unocculted.image().sum())
    # The first three rings of the Airy pattern hold 95 % of the light, and lie under the spot.
    assert left[0] < 0.06
    assert left[1] < 0.35 * left[0]
