"""Hot pixels in real frames of one integration: found, and nothing else with them."""

import numpy as np
import pytest
from scipy import ndimage

from lyot.algorithms.repair import MAD_TO_SIGMA
from lyot.files.exposure import read_cube, stack
from lyot.parameters import OutlierRecipe
from lyot.references.prepare import flag_across, flag_outliers, outlier_dq

NAMES = (
    "aumic_f444w/jw01184001001_03106_00001_nrcalong_calints.fits",
    "aumic_f444w/jw01184003001_03106_00001_nrcalong_calints.fits",
    "hd106906_f1140c/jw01194015001_04101_00003_mirimage_calints.fits",
    "hd106906_f1140c/jw01277019001_04101_00001_mirimage_calints.fits",
)


def flagged(cube):
    dq, _ = outlier_dq(cube, OutlierRecipe())
    return (dq[0] & ~cube.dq[0] & 1) > 0


def noise_of(cube):
    """ERR, or the scatter of a pixel about the mean of its neighbors where that is larger."""
    image = np.nan_to_num(cube.sci[0].astype(float))
    ring = np.array([[1, 1, 1], [1, 0, 1], [1, 1, 1]]) / 8
    off = np.abs(image - ndimage.convolve(image, ring)) / np.sqrt(9 / 8)
    return np.maximum(cube.err[0], MAD_TO_SIGMA * ndimage.median_filter(off, 15))


@pytest.mark.parametrize("name", NAMES)
def test_injected_hot_pixels_are_found_and_speckles_are_not(data_dir, rng, name):
    cube = read_cube(data_dir / name)
    assert len(cube.sci) == 1
    bad, before = cube.bad("DO_NOT_USE")[0], flagged(cube)
    assert before[~bad].mean() < 1e-3
    n_y, n_x = bad.shape
    at = np.array([(y, x) for y in range(12, n_y - 12, 13) for x in range(12, n_x - 12, 13)])
    at += rng.integers(-3, 4, at.shape)
    rows, columns = at[~bad[tuple(at.T)]].T
    cube.sci[0, rows, columns] += 10.0 * noise_of(cube)[rows, columns]
    after = flagged(cube)
    assert after[rows, columns].mean() > 0.95
    # Nothing is flagged that was not, but neighbors of those pixels.
    near = np.zeros(bad.shape, bool)
    near[rows, columns] = True
    assert (after & ~before & ~ndimage.binary_dilation(near))[~bad].mean() < 5e-4


@pytest.mark.parametrize("name", NAMES)
def test_point_sources_are_untouched(data_dir, name):
    """HD 106906 b, off axis and of S/N 33, cut from its frame, at S/N 100 elsewhere."""
    planet = read_cube(data_dir / NAMES[3]).sci[0, 63:80, 154:171].astype(float)
    away = np.hypot(*(np.indices((17, 17)) - 8))
    planet = np.where(away < 7.5, planet - np.median(planet[away > 6]), 0.0)
    if "aumic" in name:
        planet = ndimage.zoom(planet, 2.22 / 3.25, order=3)  # the same optics, finer pixels
    n = len(planet)
    planet /= np.sqrt((planet**2).sum())
    cube = read_cube(data_dir / name)
    before, noise = flagged(cube), noise_of(cube)
    n_y, n_x = before.shape
    places = [(y, x) for y in range(10, n_y - 30, 40) for x in range(10, n_x - 30, 40)]
    for y, x in places:
        cube.sci[0, y : y + n, x : x + n] += 100 * noise[y + n // 2, x + n // 2] * planet
    touched = flagged(cube) & ~before
    cores = [
        touched[y + n // 2 - 2 : y + n // 2 + 3, x + n // 2 - 2 : x + n // 2 + 3].any()
        for y, x in places
    ]
    assert np.mean(cores) < 0.05


def test_the_spike_of_jw01184003001_is_caught(data_dir):
    """Two pixels of 25 sigma at (x, y) = (89, 121) and beside it."""
    cube = read_cube(data_dir / NAMES[1])
    assert cube.sci[0, 121, 89] > 12 * cube.err[0, 121, 89]
    assert flagged(cube)[121, 89:91].all()


def test_planet_and_star_keep_all_their_pixels(data_dir):
    flags = flagged(read_cube(data_dir / NAMES[3]))
    assert not flags[66:77, 157:168].any()
    assert not flagged(read_cube(data_dir / NAMES[0]))[168:181, 144:157].any()


@pytest.mark.parametrize(
    ("pattern", "number", "star_yx", "scale"),
    [
        ("aumic_f444w/jw011840*[3456]001_03106*calints.fits", 0, (174.0, 150.0), 0.0626),
        ("hd106906_f1140c/jw01194015001*calints.fits", 3, (105.24, 106.75), 0.1103),
    ],
)
def test_references_tell_spikes_from_speckles_near_the_star(
    data_dir, pattern, number, star_yx, scale
):
    """A tenth of the speckles' brightness is what the spatial test alone leaves."""
    recipe = OutlierRecipe()
    cubes = [flag_outliers(read_cube(path), recipe) for path in sorted(data_dir.glob(pattern))]
    assert [len(cube.sci) for cube in cubes] == [1] * len(cubes)
    refs = stack(cubes)
    bad = refs.bad("DO_NOT_USE")
    found = flag_across(refs, [1] * len(cubes), recipe).bad("DO_NOT_USE") & ~bad
    assert found.mean() < 2e-4
    y, x = np.indices(refs.frame_shape) - np.array(star_yx)[:, None, None]
    near = np.hypot(y, x) * scale < 2.0
    assert found[:, near].mean() < 2e-3
    at = np.zeros(near.shape, bool)
    at[::7, ::7] = True
    rows, columns = np.nonzero(at & near & ~bad[number])
    # Of 10 sigma of the noise; the spatial test needs as many of what neighbors scatter by.
    sigma = noise_of(cubes[number])[rows, columns]
    refs.sci[number, rows, columns] += 10.0 * sigma
    after = flag_across(refs, [1] * len(cubes), recipe).bad("DO_NOT_USE")
    assert after[number, rows, columns].mean() > 0.98
    others = np.delete(after, number, axis=0)[:, rows, columns]
    before = np.delete(found | bad, number, axis=0)[:, rows, columns]
    assert (others & ~before).mean() < 2e-3
