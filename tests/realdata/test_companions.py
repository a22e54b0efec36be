"""Limits, injected companions and mask transmissions on real data."""

import numpy as np
import pytest

from lyot.analysis.companion import fit_companions
from lyot.analysis.contrast import contrast_curve
from lyot.analysis.detection import detect
from lyot.analysis.observation import open_run
from lyot.analysis.photometry import FluxMaps
from lyot.pipeline import Coron3Pipeline

DISC_PA = 128.7


@pytest.fixture(scope="module")
def aumic(data_dir):
    """Where AU Mic's files are."""
    return data_dir / "aumic_f444w"


@pytest.fixture(scope="module")
def observation(aumic, tmp_path_factory):
    """AU Mic, both rolls, as the analysis sees it."""
    from lyot.files.association import build_associations

    files = sorted(aumic.glob("*_calints.fits"))
    [content] = build_associations([str(f) for f in files])
    folder = tmp_path_factory.mktemp("aumic")
    pipeline = Coron3Pipeline()
    pipeline.output_dir, pipeline.input_dir = str(folder), str(aumic)
    pipeline.run(content)
    with open_run(folder, star_magnitude=4.0) as made:
        yield made


def test_injected_companions_are_found_and_measured(observation):
    separations = np.array([1.0, 1.7, 2.8, 4.5])
    curve = contrast_curve(observation, separations_arcsec=separations)
    sigma = curve.noise[0] / (curve.throughput[0] * curve.transmission * observation.star_flux)
    errors = {separation: [] for separation in separations}
    for level in (5.0, 10.0, 20.0):
        for separation, one in zip(separations, sigma, strict=True):
            for pa in 10.0 + 30.0 * np.arange(12):
                if abs((pa - DISC_PA + 90.0) % 180.0 - 90.0) < 20.0:
                    continue  # on the disc
                put = observation.with_source(separation, pa, level * one)
                fit = fit_companions(
                    put, [(separation, pa)], n_likelihoods=0, n_injections=0, background="plane"
                )
                found = fit.companions[0]
                assert found.snr > 0.5 * level  # at 5, noise takes 2.5 off in one of 160
                assert (
                    abs(found.separation_arcsec.value - separation)
                    < 4.0 * found.separation_arcsec.err
                )
                assert abs((found.pa_deg.value - pa + 180) % 360 - 180) < 4.0 * found.pa_deg.err
                errors[separation].append((found.contrast.value - level * one) / one)
    for each in errors.values():
        # In units of the noise that the curve states, which the disc makes larger.
        assert len(each) == 30
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


def test_companions_at_twice_the_limit_are_candidates(observation):
    curve = contrast_curve(observation, separations_arcsec=np.array([1.2, 3.5]))
    for j, (separation, pa) in enumerate([(1.2, 40.0), (3.5, 220.0)]):
        put = observation.with_source(separation, pa, 2.0 * curve.calibrated[0, j])
        best = min(
            detect(put).candidates,
            key=lambda c: np.hypot(
                c.separation_arcsec - separation, np.radians(c.pa_deg - pa) * separation
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
