"""Limits, injected companions and mask transmissions on real data."""

from dataclasses import replace

import numpy as np
import pytest
from astropy.io import fits
from scipy import ndimage, stats

from lyot.analysis.companion import fit_companions
from lyot.analysis.completeness import completeness_map
from lyot.analysis.contrast import contrast_curve
from lyot.analysis.detection import detect, find_sources
from lyot.analysis.noise import KnownDisc, KnownSource, noise_rings
from lyot.analysis.observation import open_run
from lyot.analysis.photometry import FluxMaps
from lyot.analysis.psf import OffAxisPSF
from lyot.analysis.statistic import Statistic
from lyot.parameters.analysis import FIVE_SIGMA_FPF
from lyot.pipeline import Coron3Pipeline

DISC_PA = 128.7


@pytest.fixture(scope="module")
def aumic(data_dir):
    """Where AU Mic's files are."""
    return data_dir / "aumic_f444w"


@pytest.fixture(scope="module")
def observation(aumic_run):
    """AU Mic, both rolls, as the analysis sees it."""
    with open_run(aumic_run, star_magnitude=4.0) as made:
        yield made


def test_injected_companions_are_found_and_measured(observation):
    separations = np.array([1.0, 1.7, 2.8, 4.5])
    matched = Statistic(flux_by="matched")
    curve = contrast_curve(observation, separations_arcsec=separations, statistic=matched)
    sigma = curve.noise[0] / (curve.throughput[0] * curve.transmission * observation.star_flux)
    errors = {separation: [] for separation in separations}
    for separation, one in zip(separations, sigma, strict=True):
        for k, pa in enumerate(10.0 + 30.0 * np.arange(12)):
            if abs((pa - DISC_PA + 90.0) % 180.0 - 90.0) < 20.0:
                continue  # on the disc
            # The subtraction is linear: another level at one place is no other draw.
            level = (5.0, 10.0, 20.0)[k % 3]
            put = observation.with_source(separation, pa, level * one)
            fit = fit_companions(
                put, [(separation, pa)], n_likelihoods=0, n_injections=0, background="plane"
            )
            found = fit.companions[0]
            assert found.snr > 4.0
            away = abs(found.separation_arcsec.value - separation)
            assert away < 4.0 * found.separation_arcsec.err
            assert abs((found.pa_deg.value - pa + 180) % 360 - 180) < 4.0 * found.pa_deg.err
            errors[separation].append((found.contrast.value - level * one) / one)
    for each in errors.values():
        # In units of the noise that the curve states, which the disc makes larger.
        assert len(each) == 10
        assert np.std(each) < 1.2
        assert abs(np.mean(each)) < 0.5


def test_a_roll_among_the_references_is_reckoned_with(aumic, observation, tmp_path):
    files = sorted(f.name for f in aumic.glob("*_calints.fits"))
    kinds = ["science"] + ["psf"] * (len(files) - 1)
    content = {
        "asn_type": "coron3",
        "asn_id": "c9001",
        "program": "01184",
        "products": [
            {
                "name": "roll_subtraction",
                "members": [
                    {"expname": f, "exptype": k} for f, k in zip(files, kinds, strict=True)
                ],
            }
        ],
    }
    pipeline = Coron3Pipeline()
    pipeline.output_dir, pipeline.input_dir = str(tmp_path), str(aumic)
    pipeline.run(content)
    with open_run(tmp_path, star_magnitude=4.0) as made:
        [exposure] = made.exposures
        assert not exposure.response.is_linear
        np.testing.assert_array_equal(exposure.holds_source, [True] + [False] * 6)
        np.testing.assert_allclose(
            exposure.aligned.ref_info.pa_y_deg[0],
            observation.exposures[1].target.info.pa_y_deg,
            atol=1e-6,
        )
        contrast, separation, pa = 1e-4, 1.5, 40.0
        put = made.with_source(separation, pa, contrast)
        fit = fit_companions(put, [(separation, pa)], n_likelihoods=0, n_injections=0)
        found = fit.companions[0]
        assert abs(found.contrast.value - contrast) < 0.05 * contrast
        # The other roll takes a part of it away ten degrees beside, and leaves its own place.
        r = separation / made.pixel_scale_arcsec
        flux = contrast * made.star_flux
        left = FluxMaps(made, "matched").throughput(r, pa, flux=flux)[0, 0]
        kept = FluxMaps(observation, "matched").throughput(r, pa)[0, 0]
        assert left < kept


def plain_aperture_limits(files, psf, star_flux, fwhm, scale, separations):
    """Limits in apertures of one FWHM by least squares alone, for frames aligned on (150, 174)."""
    frames = np.array([np.squeeze(fits.getdata(f, "SCI")) for f in files], float)
    frames = np.where(np.isfinite(frames), frames, ndimage.median_filter(np.nan_to_num(frames), 5))
    y, x = np.indices(frames.shape[1:])
    refs = frames[2:].reshape(len(frames) - 2, -1)
    columns = np.vstack([refs, np.ones(refs.shape[1])]).T
    far = np.hypot(x - 150, y - 174) * scale > 5.0
    residuals = []
    for frame in frames[:2]:
        fitted = columns @ np.linalg.lstsq(columns, frame.ravel(), rcond=None)[0]
        residuals.append(frame - fitted.reshape(frame.shape))
        residuals[-1] -= residuals[-1][far].mean()

    def flux(image, at_y, at_x):
        return np.sum(image * np.clip(fwhm / 2 + 0.5 - np.hypot(y - at_y, x - at_x), 0.0, 1.0))

    n, limits = len(psf) // 2, []
    whole = np.zeros(frames.shape[1:])
    whole[174 - n : 175 + n, 150 - n : 151 + n] = psf
    for separation, transmission in separations.items():
        r = separation / scale
        m = int(2 * np.pi * r / fwhm)
        angles = np.arange(m) * 2 * np.pi / m
        values = np.zeros(m)
        for image, roll in zip(residuals, (63.757, 73.766), strict=True):
            turns = angles - np.radians(roll)
            values += [flux(image, 174 + r * np.cos(a), 150 - r * np.sin(a)) / 2 for a in turns]
        tau = stats.t.isf(FIVE_SIGMA_FPF, m - 2) * np.sqrt(1 + 1 / (m - 1))
        limits.append(tau * values.std(ddof=1) / (flux(whole, 174, 150) * transmission * star_flux))
    return limits


def test_limits_are_those_of_plain_apertures(aumic, observation):
    # The transmission of the mask is that of the data's own description.
    known = {1.0: 0.961, 2.0: 0.997, 4.0: 1.0}
    plain = plain_aperture_limits(
        sorted(aumic.glob("*_calints.fits")),
        observation.psf.stamp(0.0, 0.0),
        observation.star_flux,
        observation.fwhm_pix,
        0.062595,
        known,
    )
    curve = contrast_curve(
        observation, separations_arcsec=list(known), statistic=Statistic(flux_by="aperture")
    )
    np.testing.assert_allclose(curve.calibrated[0], plain, rtol=0.15)


@pytest.mark.slow
def test_half_of_the_sources_at_the_limit_are_found(observation):
    disc = KnownDisc(DISC_PA, 15.0)
    seen = [c for c in detect(observation, known_sources=(disc,)).candidates if not c.is_known]
    known = (disc, *(KnownSource(c.separation_arcsec, c.pa_deg) for c in seen))
    separations = np.geomspace(0.55, 5.5, 16)
    curve = contrast_curve(
        observation, separations_arcsec=separations, known_sources=known, n_angles=3
    )
    optics = observation.transmission.optics
    at = {"separations_arcsec": separations, "known_sources": known}
    complete = completeness_map(observation, contrasts=curve.calibrated[0], **at)
    # The map runs the search, on six sources at each of eight separations.
    at_limit = np.diag(complete.fraction)
    assert abs(at_limit.mean() - 0.5) < 0.08, at_limit
    assert np.abs(at_limit - 0.5).max() < 0.25, at_limit
    rng, found = np.random.default_rng(5), []
    for trial in range(36):
        # The image is that of another wavefront than the model's.
        made = replace(optics, seed=trial // 2 % 4).psf(
            (0.0, 0.0), n_pixels=49, oversample=3, with_mask=False
        )
        put = replace(observation, psf=OffAxisPSF(made.image, 3, "another wavefront"))
        # Four at a time, at separations that keep them out of one another's noise.
        places, first = [], [0.6, 1.5, 2.6, 3.8] if trial % 2 else [0.9, 2.0, 3.2, 4.4]
        for low, width in zip(first, (0.3, 0.5, 0.6, 0.6), strict=True):
            separation, pa = 0.0, DISC_PA
            while any(
                k.covers(separation, pa, 0.35) for k in (*known, KnownDisc(DISC_PA, 20.0))
            ) or (places and abs((pa - places[-1][1] + 180.0) % 360.0 - 180.0) < 70.0):
                separation, pa = low + rng.uniform(0.0, width), rng.uniform(0.0, 360.0)
            places.append((separation, pa))
            limit = np.exp(np.interp(separation, separations, np.log(curve.calibrated[0])))
            put = put.with_source(separation, pa, limit)
        candidates = detect(replace(put, psf=observation.psf), known_sources=known).candidates
        for separation, pa in places:
            near = KnownSource(separation, pa, observation.fwhm_pix * 0.063)
            found.append(any(near.covers(c.separation_arcsec, c.pa_deg, 0) for c in candidates))
    assert len(found) == 144
    assert 0.42 < np.mean(found) < 0.58
    # Within 1.2 arcsec, where few positions tell the noise: 36 are known to a twelfth.
    assert 0.33 < np.mean(found[::4]) < 0.67


def test_signal_to_noise_has_unit_variance(observation):
    known = (KnownDisc(DISC_PA, 15.0), KnownSource(3.36, 162.0, 0.6))
    scale, values = observation.pixel_scale_arcsec, []
    rings = noise_rings(
        FluxMaps(observation), np.arange(0.6, 5.0, 0.17) / scale, known_sources=known
    )
    mean, scatter, number = rings.others(0)
    t = (rings.flux[0] - mean) / (scatter * np.sqrt(1.0 + 1.0 / number))
    for j in range(len(rings.places.radius_pix)):
        values.append(rings.of(j, t)[:, 0][rings.of(j, rings.used)[:, 0]])
    values = np.concatenate(values)
    assert values.size > 1500
    assert abs(values.std() - 1.0) < 0.1
    assert abs(np.mean(np.abs(values) > 2.0) - 0.05) < 0.02


def test_the_lobes_of_a_bright_source_are_no_candidates(observation):
    optics = replace(observation.transmission.optics, seed=3)
    made = optics.psf((0.0, 0.0), n_pixels=49, oversample=3, with_mask=False)
    put = replace(observation, psf=OffAxisPSF(made.image, 3, "another wavefront"))
    put = replace(put.with_source(3.2, 40.0, 2e-4), psf=observation.psf)
    candidates = detect(put, known_sources=(KnownDisc(DISC_PA, 15.0),)).candidates
    near = KnownSource(3.2, 40.0, 2.0)
    [found] = [c for c in candidates if near.covers(c.separation_arcsec, c.pa_deg, 0.0)]
    assert found.snr > 100.0
    assert found.contrast == pytest.approx(2e-4, rel=0.05)


def test_found_sources_leave_the_noise_by_the_shape_of_their_psf(observation):
    disc, separations = (KnownDisc(DISC_PA, 15.0),), np.array([2.6, 3.0, 3.2, 3.4, 3.8])
    optics = replace(observation.transmission.optics, seed=3)
    made = optics.psf((0.0, 0.0), n_pixels=49, oversample=3, with_mask=False)
    there = replace(observation, psf=OffAxisPSF(made.image, 3, "another wavefront"))

    def curve(of, known, found):
        return contrast_curve(
            of,
            separations_arcsec=separations,
            known_sources=known,
            found_sources=found,
            n_angles=2,
        )

    without = curve(observation, disc, find_sources(observation, known_sources=disc))
    for contrast, rise, tolerance in ((2e-5, 2.0, 0.1), (2e-4, 15.0, 0.12)):  # S/N 90 and 209
        put = replace(there.with_source(3.2, 40.0, contrast), psf=observation.psf)
        found = find_sources(put, known_sources=disc)
        masked = curve(put, disc, found)
        circles = tuple(KnownSource(s.separation_arcsec, s.pa_deg) for s in found)
        in_circles = curve(put, (*disc, *circles), ())
        np.testing.assert_allclose(masked.calibrated, without.calibrated, rtol=tolerance)
        assert (masked.unmasked[0, 1:4] > rise * without.calibrated[0, 1:4]).all()
        # The lobes of the source lie outside of a circle of 1.5 FWHM.
        assert (in_circles.calibrated[0, 1:4] > 2.0 * without.calibrated[0, 1:4]).all()


def test_points_extended_sources_and_those_of_a_reference_star_are_told_apart(observation):
    candidates = detect(observation).candidates

    def near(separation, pa, candidates=candidates):
        place = KnownSource(separation, pa, 0.2)
        [found] = [c for c in candidates if place.covers(c.separation_arcsec, c.pa_deg, 0.0)]
        return found

    # On the disc; and a source that is in the frames of one star.
    assert near(2.55, 308.1).kind == "extended"
    assert near(9.06, 16.95).notes == "rests on reference star HIP17695"
    optics = observation.transmission.optics
    # A Gaussian of one FWHM (2.7 pixels) widens it.
    wide = 3 * observation.fwhm_pix / 2.355
    for kind, width in (("point", 0.0), ("extended", wide)):
        put = observation
        for seed, pa in ((1, 30.0), (5, 210.0)):
            made = replace(optics, seed=seed).psf(
                (0.0, 0.0), n_pixels=49, oversample=3, with_mask=False
            )
            image = ndimage.gaussian_filter(made.image, width)
            there = replace(put, psf=OffAxisPSF(image, 3, "put in"))
            put = replace(there.with_source(4.0, pa, 1e-5), psf=observation.psf)
        found = detect(put, known_sources=(KnownDisc(DISC_PA, 15.0),)).candidates
        assert [near(4.0, pa, found).kind for pa in (30.0, 210.0)] == [kind, kind]


def test_companions_at_twice_the_limit_are_candidates(observation):
    curve = contrast_curve(observation, separations_arcsec=np.array([1.2, 3.5]))
    places, put = ((1.2, 40.0), (3.5, 220.0)), observation
    for (separation, pa), limit in zip(places, curve.calibrated[0], strict=True):
        put = put.with_source(separation, pa, 2.0 * limit)
    candidates = detect(put).candidates
    for separation, pa in places:
        best = min(
            candidates,
            key=lambda c, r=separation, pa=pa: np.hypot(
                c.separation_arcsec - r, np.radians(c.pa_deg - pa) * r
            ),
        )
        assert abs(best.separation_arcsec - separation) < 0.05
        assert abs(best.pa_deg - pa) < 3.0


def test_rolls_alone_run_as_adi(aumic, observation, tmp_path, caplog):
    files = sorted(f.name for f in aumic.glob("*_calints.fits"))
    members = [{"expname": f, "exptype": "science"} for f in files[:2]]
    members += [{"expname": f, "exptype": "psf"} for f in files[2:]]
    disc = {}
    for strategy, some in (("auto", members[:2]), ("adi+rdi", members)):
        content = {
            "asn_type": "coron3",
            "asn_id": "c9001",
            "program": "01184",
            "products": [{"name": "rolls", "members": some}],
        }
        folder = tmp_path / strategy
        pipeline = Coron3Pipeline()
        pipeline.output_dir, pipeline.input_dir = str(folder), str(aumic)
        pipeline.strategy = strategy
        pipeline.run(content)
        assert ("each roll is subtracted" in caplog.text) == (strategy == "auto")
        caplog.clear()
        assert len(list(folder.glob("*_psfstack.fits"))) == 2
        with open_run(folder, star_magnitude=4.0) as made:
            n_ref = 1 if strategy == "auto" else 7
            for exposure in made.exposures:
                np.testing.assert_array_equal(exposure.holds_source, [True] + [False] * (n_ref - 1))
            disc[strategy] = along_disc(made)
    disc["rdi"] = along_disc(observation)
    # The edge-on disc turns with the sky: the rolls subtract part of it from one another.
    assert disc["auto"] < 0.8 * disc["rdi"]
    assert disc["auto"] < disc["adi+rdi"] < 1.02 * disc["rdi"]


def along_disc(observation):
    """Mean flux of a point source on the disc, from 1 to 3 arcsec on both sides."""
    r = np.linspace(1.0, 3.0, 20) / observation.pixel_scale_arcsec
    maps = FluxMaps(observation, "aperture")  # whitened, a filter takes no light that is smooth
    return np.mean([maps.sample(r, np.full(r.size, DISC_PA + turn))[0] for turn in (0.0, 180.0)])
