"""Images between the places of the grid, against those computed at the place itself."""

import pickle
from dataclasses import fields, replace

import numpy as np
import pytest

from lyot.instruments.coronagraphs import RoundMask
from lyot.instruments.near_mask import NearMask
from lyot.instruments.transmission import Transmission
from scenes import flight_optics

HALF_PIX = 12

# Inside the mask, on its edge, beyond it; along a bar; beside the spot and beside its support;
# on a boundary, beside it, far along it, and where two cross.
PLACES = {
    ("MASK335R", "F444W"): [(0.31, -0.17), (-0.6, 0.35), (0.9, 0.8), (1.4, -1.2)],
    ("MASK430R", "F322W2"): [(0.45, -0.3), (-0.9, 0.5)],
    ("MASK210R", "F200W"): [(0.2, 0.13), (-0.35, 0.3), (0.8, 0.55)],
    ("MASKLWB", "F335M"): [(4.1, 0.31), (-2.3, 0.7), (0.4, -1.3)],
    ("LYOT_2300", "F2300C"): [(2.03, 0.31), (1.5, -1.71), (2.6, 1.4), (0.33, 4.1)],
    ("4QPM_1140", "F1140C"): [(3.0, 0.07), (-0.47, 0.9), (0.3, -0.2), (0.11, 2.63), (1.9, -1.6)],
}


def near_mask(mask, band, oversample=1):
    return NearMask(flight_optics(mask, band), HALF_PIX, oversample)


@pytest.mark.parametrize("mode", PLACES, ids=lambda mode: mode[0])
def test_between_places_images_are_good_to_one_percent_of_the_peak(mode):
    grid = near_mask(*mode)
    exact = replace(grid.optics, max_change=0.0)
    for place in PLACES[mode]:
        expected = exact.psf(exact.mask.along_detector(*place), n_pixels=2 * HALF_PIX + 1)
        assert expected.transmission > 0.02
        found = grid.image(place)
        assert np.abs(found - expected.image).max() < 0.01 * expected.image.max(), place


@pytest.mark.parametrize("mode", [("MASK335R", "F444W"), ("4QPM_1140", "F1140C")])
def test_beside_the_mask_there_is_no_image_of_the_place(mode):
    grid = near_mask(*mode)
    assert grid.image((6.0, -6.0)) is None
    assert grid.image((0.3, 0.1)) is not None


@pytest.mark.parametrize("distance", [(4.8, 4.8), (4.8, 8.0), (7.0, -7.0)])
def test_where_a_phase_mask_is_taken_as_a_factor_the_image_is_good_to_one_percent(distance):
    grid = near_mask("4QPM_1140", "F1140C")
    assert grid.image(distance) is None
    place = grid.optics.mask.along_detector(*distance)
    computed = grid.optics.psf(place, n_pixels=25)
    free = grid.optics.psf(place, n_pixels=25, with_mask=False)
    assert np.abs(computed.image - free.image).max() < 0.01 * free.image.max()
    # The factor is that of the table, a little above 1: it turns light into the stop's openings.
    factor = Transmission(optics=grid.optics, origin="").behind(*map(np.array, distance))
    assert computed.transmission == pytest.approx(float(factor), abs=0.01)


def test_a_grid_of_another_process_is_read_not_computed(tmp_path, monkeypatch):
    monkeypatch.setenv("LYOT_CACHE_DIR", str(tmp_path))
    first = near_mask("MASK335R", "F444W").image((0.6, 0.3))
    [group] = tmp_path.glob("near-*")
    assert len(list(group.iterdir())) == 4
    second = near_mask("MASK335R", "F444W")
    monkeypatch.setattr(RoundMask, "amplitude", lambda *_: pytest.fail("it is computed again"))
    monkeypatch.setattr(type(second.optics), "is_beside", lambda *_: False)
    np.testing.assert_array_equal(second.image((0.6, 0.3)), first)


def test_another_wavefront_filter_or_stamp_is_another_grid(tmp_path, monkeypatch):
    monkeypatch.setenv("LYOT_CACHE_DIR", str(tmp_path))
    optics = flight_optics("MASK335R", "F444W", n_wavelengths=1)
    wider = replace(optics.stop, outer_m=0.4)
    drift = 1e-8 * np.indices((optics.n_pupil,) * 2)[0] / optics.n_pupil
    grids = [
        NearMask(optics, 5, 1),
        NearMask(optics, 4, 1),
        NearMask(optics, 5, 3),
        NearMask(flight_optics("MASK335R", "F460M", n_wavelengths=1), 5, 1),
        NearMask(replace(optics, seed=3), 5, 1),
        NearMask(replace(optics, stop=wider), 5, 1),
        NearMask(replace(optics, drift_m=drift), 5, 1),
        NearMask(replace(optics, drift_m=1.001 * drift), 5, 1),
        NearMask(replace(optics, wavefront=replace(optics.wavefront, telescope_m=5e-8)), 5, 1),
    ]
    for n, grid in enumerate(grids, start=1):
        grid.image((0.6, 0.3))
        assert len(list(tmp_path.glob("near-*"))) == n


def test_a_mask_of_elsewhere_is_not_remembered(tmp_path, monkeypatch):
    class Mine(RoundMask):
        """A mask whose code may change without a word."""

    monkeypatch.setenv("LYOT_CACHE_DIR", str(tmp_path))
    optics = flight_optics("MASK335R", "F444W", n_wavelengths=1)
    mine = Mine(**{f.name: getattr(optics.mask, f.name) for f in fields(optics.mask)})
    NearMask(replace(optics, mask=mine), 5, 1).image((0.6, 0.3))
    assert not list(tmp_path.iterdir())


def test_it_travels_without_its_images():
    grid = near_mask("MASK335R", "F444W")
    image = grid.image((0.6, 0.3))
    sent = pickle.dumps(grid)
    assert len(sent) < 10_000
    np.testing.assert_array_equal(pickle.loads(sent).image((0.6, 0.3)), image)
