"""What is said of a candidate: point or extended, edges, rolls."""

from dataclasses import replace

import numpy as np
import pytest

from lyot.analysis.candidate import EXTENT_ERROR, WIDE_FWHM
from lyot.analysis.detection import detect
from lyot.analysis.psf import OffAxisPSF
from scenes import flight_optics


def of(found, separation, pa):
    """The candidate at a place."""
    return min(
        found.candidates,
        key=lambda c: np.hypot(
            c.separation_arcsec - separation, np.radians(c.pa_deg - pa) * separation
        ),
    )


def test_points_and_extended_sources_are_told_apart(draw):
    # Nine sources a FWHM apart in a square look like one of three times the width.
    spread = [
        (float(np.hypot(e, n)), float(np.degrees(np.arctan2(e, n))), 90.0)
        for e in 1.5 + 0.12 * np.arange(-1, 2)
        for n in 1.2 + 0.12 * np.arange(-1, 2)
    ]
    found = detect(draw(7, [(1.4, 250.0, 300.0), *spread]))
    point = of(found, 1.4, 250.0)
    assert point.kind == "point"
    assert abs(point.extent - 1.0) < 3.0 * point.extent_err
    wide = of(found, np.hypot(1.5, 1.2), np.degrees(np.arctan2(1.5, 1.2)))
    assert wide.kind == "extended"
    assert wide.extent > 2.0


def test_the_extent_of_a_blurred_image_is_that_of_its_apertures(draw, gaussian_psf):
    """Of round Gaussians the flux in an aperture, whose edge is a pixel wide, is an integral."""
    observation = draw(11)
    sigma = gaussian_psf.fwhm_pix / np.sqrt(8.0 * np.log(2.0))
    y, x = np.mgrid[-12:13, -12:13]
    width = 1.5 * sigma
    image = np.exp(-0.5 * (x**2 + y**2) / width**2) / (2.0 * np.pi * width**2)
    blurred = replace(observation, psf=OffAxisPSF(image, 1, "blurred"))
    put = replace(blurred.with_source(1.5, 40.0, 1e-5), psf=gaussian_psf)
    candidate = of(detect(put), 1.5, 40.0)
    assert candidate.snr > 25.0

    def within(diameter, width):
        r = np.arange(0.005, 12.0, 0.01)
        weight = np.clip(0.5 * diameter * gaussian_psf.fwhm_pix + 0.5 - r, 0.0, 1.0)
        return (weight * r * np.exp(-0.5 * (r / width) ** 2)).sum() / width**2

    wide, core = (within(d, width) / within(d, sigma) for d in (WIDE_FWHM, 1.0))
    assert candidate.extent == pytest.approx(wide / core, rel=0.05)
    assert candidate.kind == "extended"


def test_what_is_on_one_roll_only_is_marked(draw):
    observation = draw(8)
    put = observation.with_source(1.5, 100.0, 3e-6)  # half of its S/N of 21 is found
    first = [put.exposures[0], observation.exposures[1]]
    assert of(detect(put), 1.5, 100.0).notes == ""
    assert of(detect(replace(put, exposures=first)), 1.5, 100.0).notes == "one roll only"
    alone = replace(put, exposures=put.exposures[:1])
    assert "one roll only" in of(detect(alone), 1.5, 100.0).notes


def test_candidates_near_an_edge_are_marked(draw):
    # The frames end 2.83 arcsec from the star.
    for separation, is_near in ((2.6, True), (2.0, False)):
        found = of(detect(draw(8, [(separation, 30.0, 300.0)])), separation, 30.0)
        assert ("near an edge" in found.notes) == is_near


@pytest.mark.parametrize(("mask", "filter"), [("MASK210R", "F210M"), ("MASK335R", "F444W")])
def test_wavefronts_change_the_extent_of_a_point_by_less_than_its_error(mask, filter):
    optics = flight_optics(mask, filter)
    ratios, fwhm = [], 0.0
    for seed in (None, 1, 5):
        made = replace(optics, seed=seed).psf(
            (0.0, 0.0), n_pixels=41, oversample=3, with_mask=False
        )
        psf = OffAxisPSF(made.image, 3, "")
        y, x = np.indices(psf.data.shape) - (len(psf.data) - 1) / 2
        fwhm = fwhm or 3 * psf.fwhm_pix
        core, wide = (
            (psf.data * np.clip(d * fwhm / 2 + 0.5 - np.hypot(y, x), 0.0, 1.0)).sum()
            for d in (1.0, WIDE_FWHM)
        )
        ratios.append(wide / core)
    assert np.abs(np.array(ratios[1:]) / ratios[0] - 1.0).max() < EXTENT_ERROR
