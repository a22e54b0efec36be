"""Every combination of mask and filter: companions come back within their stated errors.

The wavefront of the data is a draw that no measurement uses. In memory, and through the files and
the command line: in a few modes, and in all of them where the marker ``modes`` is asked for.
"""

import numpy as np
import pytest
from astropy.table import QTable

from lyot.analysis.companion import fit_companions
from lyot.analysis.contrast import contrast_curve
from lyot.simulate import Companion, Scene, simulate_observation
from scenes import (
    MODES,
    NARROW_MODES,
    STAR_FLUX,
    companion_flux,
    companion_place,
    lyot,
    observe_companion,
)

ALL_MODES = [*MODES, *NARROW_MODES]
MAX_PULL = 4.0
CONTRAST, NARROW_CONTRAST = 1e-4, 4e-4
"""Of the companions; more of the star passes beside the narrow end of a bar."""

QUICK = [("MASKLWB", "F335M"), ("4QPM_1140", "F1140C")]
"""Modes in every run of the tests through the command line."""
QUICK_IN_MEMORY = [*QUICK, ("MASK335R", "F444W"), ("MASK210R", "F210M")]


def every_mode(quick):
    """Return all modes as parameters, most with the marker."""
    return [
        pytest.param(m, marks=[] if m[1:] in quick else [pytest.mark.modes], id="-".join(m[1:]))
        for m in ALL_MODES
    ]


def flux_in(mode):
    """Return the flux of the companion in a mode."""
    contrast = NARROW_CONTRAST if mode in NARROW_MODES else CONTRAST
    return max(companion_flux(mode, snr=20.0), contrast * STAR_FLUX)


def flux_pull(measured, noise, of_wavefront, true):
    """Return by how many errors a flux is off, of errors that are fractions of the measured flux.

    What an unknown wavefront does is a fraction of the true one.
    """
    return (measured - true) / np.hypot(noise * measured, of_wavefront * true)


@pytest.fixture(scope="module")
def pulls():
    """Errors of what was measured, over the stated ones, of each mode."""
    return {}


@pytest.mark.parametrize("mode", every_mode(QUICK_IN_MEMORY))
def test_a_companion_comes_back_within_its_errors(mode, pulls):
    number = ALL_MODES.index(mode)
    separation, pa = companion_place(mode, number)
    flux = flux_in(mode)
    observation = observe_companion(mode, number, (separation, pa, flux))
    [found] = fit_companions(observation, [(separation, pa)], n_likelihoods=0).companions
    # Calibration, geometry, mask and optics are those that made the data.
    exact = ("scale", "roll", "skew", "psf", "transmission", "calibration")
    stated = found.budget.without(*exact)
    pulls[mode] = [
        flux_pull(found.flux.value, found.budget.noise.flux, found.budget.wavefront.flux, flux),
        (found.separation_arcsec.value - separation) / stated.separation_arcsec,
        ((found.pa_deg.value - pa + 180.0) % 360.0 - 180.0) / stated.pa_deg,
    ]
    assert found.snr > 5.0  # the noise about it may be larger than that at its separation
    assert np.abs(pulls[mode]).max() < MAX_PULL, (pulls[mode], found)
    # What is measured there well above the limit is brighter than the limit.
    curve = contrast_curve(observation, separations_arcsec=np.array([separation]))
    assert 0.0 < curve.calibrated[0, 0] < 2.0 * observation.contrast_of(flux)


@pytest.mark.modes
def test_errors_are_as_large_as_stated_over_all_modes(pulls):
    assert len(pulls) == len(ALL_MODES), "ask for all modes, in one process"
    rms = np.sqrt(np.mean(np.square(list(pulls.values())), axis=0))
    assert np.all((rms > 0.7) & (rms < 1.3)), rms


@pytest.mark.parametrize("mode", every_mode(QUICK))
def test_the_commands_reduce_and_measure_every_mode(mode, tmp_path):
    instrument, mask, band, *aperture = mode
    number = ALL_MODES.index(mode)
    separation, pa = companion_place(mode, number)
    flux = flux_in(mode)
    scene = Scene(
        instrument=instrument,
        coronagraph=mask,
        filter=band,
        aperture="".join(aperture),
        shape=(84, 84),
        rolls_deg=(20.0, 31.0),
        n_int=2,
        n_int_psf=1,
        n_dither=6,
        star_flux=STAR_FLUX,
        psf_star_flux=STAR_FLUX,
        companions=(Companion(separation_arcsec=separation, pa_deg=pa, contrast=flux / STAR_FLUX),),
        disc=None,
        hit_fraction=0.0,
    )
    simulate_observation(tmp_path / "exposures", scene, seed=number)
    files = sorted((tmp_path / "exposures").glob("*_calints.fits"))
    run = tmp_path / "products"
    star_jy = STAR_FLUX * 1e6 * np.radians(scene.pixel_scale_arcsec / 3600.0) ** 2
    star = ("--star-flux", star_jy)
    for arguments in (
        ("asn", *files, "-o", tmp_path / "made.json"),
        ("run", tmp_path / "made.json", "-o", run, "--no-report"),
        ("contrast", run, *star, "--separations", separation),
        ("detect", run, *star),
        ("companion", run, *star, "--at", separation, pa, "--likelihoods", "0"),
    ):
        done = lyot(*arguments)
        assert done.exit_code == 0, done.output
    [limits, candidates, found] = (
        QTable.read(next(run.glob(f"*_{kind}.ecsv")))
        for kind in ("limits", "candidates", "companions")
    )
    assert len(limits) >= 1
    away = np.radians((candidates["position_angle"].value - pa + 180.0) % 360.0 - 180.0)
    apart = np.hypot(candidates["separation"].value - separation, separation * away)
    assert apart.min() < 2.0 * scene.pixel_scale_arcsec
    [row] = found
    across = (row["pa"].value - pa + 180.0) % 360.0 - 180.0
    found_pulls = [
        flux_pull(row["flux"].value, 1.0 / row["snr"], row["wavefront_flux_err"], flux),
        (row["separation"].value - separation) / row["separation_err"].value,
        across / row["pa_err"].value,
    ]
    assert np.abs(found_pulls).max() < MAX_PULL, (found_pulls, row)
