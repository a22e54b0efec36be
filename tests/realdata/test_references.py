"""AU Mic with its references chosen, from a library, from rolls that turn enough."""

from dataclasses import replace

import numpy as np
import pytest

from lyot.algorithms.geometry import radius_map
from lyot.analysis.detection import detect
from lyot.analysis.noise import KnownDisc
from lyot.analysis.observation import open_run
from lyot.files.run import open_products
from lyot.files.view import read_view
from lyot.parameters.reduction import OutlierRecipe
from lyot.pipeline import Coron3Pipeline
from lyot.references import library as libraries
from lyot.references.vet import find_contaminated


def reduce(folder, data_dir, science, psf, *, min_rotation=0.0, spikes="auto", **parameters):
    """Run the pipeline on some of the files, and return its subtracted frames by exposure."""
    files = [(f, "science") for f in science] + [(f, "psf") for f in psf]
    members = [{"expname": f.name, "exptype": kind} for f, kind in files]
    pipeline = Coron3Pipeline()
    pipeline.output_dir, pipeline.input_dir = str(folder), str(data_dir / "aumic_f444w")
    pipeline.klip.min_rotation_fwhm = min_rotation
    pipeline.outlier_detection.spikes = spikes
    for name, value in parameters.items():
        setattr(pipeline, name, value)
    pipeline.run({"asn_id": "a1", "products": [{"name": "aumic", "members": members}]})
    return [read_view(path) for path in sorted(folder.glob("*_psfsub.fits"))]


@pytest.fixture(scope="module")
def files(data_dir):
    found = sorted((data_dir / "aumic_f444w").glob("*_calints.fits"))
    return found[:2], found[2:]


def test_a_library_of_the_references_gives_what_they_give(data_dir, files, tmp_path):
    """Without spikes: what was there is predicted when a frame is added, before the alignment."""
    library = libraries.build(tmp_path / "lib", files[1])
    assert libraries.add(library, files[1], outliers=OutlierRecipe(spikes="never")) == 6
    library_path = str(library.path)
    made = reduce(tmp_path / "out", data_dir, files[0], [], spikes="never", library=library_path)
    direct = reduce(tmp_path / "direct", data_dir, *files, spikes="never")
    for ours, theirs in zip(made, direct, strict=True):
        both = np.isfinite(ours.data) & np.isfinite(theirs.data)
        assert both.mean() > 0.98
        difference = np.std(ours.data[both] - theirs.data[both])
        assert difference < 1e-3 * np.std(theirs.data[both])


def test_rolls_serve_where_they_turn_enough(data_dir, files, tmp_path):
    made = reduce(tmp_path, data_dir, files[0], [], strategy="adi", min_rotation=1.0)
    for view in made:
        image, star = view.data[0], view.star
        radius = radius_map(image.shape, star.yx)
        # Ten degrees are one FWHM of F444W at 13.2 pixels.
        edge = view.info.fwhm_pix / (2.0 * np.sin(np.radians(0.5 * 10.009)))
        assert edge == pytest.approx(13.2, abs=0.1)
        assert np.isnan(image[radius < edge - 0.1]).all()
        near = (radius > edge + 0.1) & (radius < 60)
        assert np.isfinite(image[near]).mean() > 0.99


def test_no_reference_is_doubted_and_a_companion_in_one_is(aumic_run):
    with open_products(aumic_run) as (_, [exposure, _]):
        frames, ref_info = exposure.aligned.frames(0), exposure.aligned.ref_info
        star, info = exposure.star, exposure.target.info
        assert find_contaminated(frames, ref_info, star, info) == []
        y, x = np.mgrid[: frames.sci.shape[1], : frames.sci.shape[2]]
        at = (star.y + 30.0, star.x + 20.0)
        source = 30.0 * np.exp(-0.5 * ((y - at[0]) ** 2 + (x - at[1]) ** 2) / 1.0**2)
        sci = frames.sci.copy()
        sci[3] += source.astype(np.float32)
        [doubt] = find_contaminated(replace(frames, pixels=sci), ref_info, star, info)
    assert (doubt.reference, doubt.target) == (3, "G-7-34")
    assert f"{np.hypot(30, 20) * info.pixel_scale_arcsec:.2f} arcsec" in doubt.reason


def test_a_candidate_that_rests_on_one_star_is_told(aumic_run):
    with open_run(aumic_run, star_magnitude=4.0) as observation:
        found = detect(observation, known_sources=(KnownDisc(128.7, 15.0),))
    near = [c for c in found.candidates if abs(c.separation_arcsec - 9.07) < 0.1]
    far = [c for c in near if abs(c.pa_deg - 17.0) < 2.0]
    assert [c.key_reference for c in far] == ["HIP17695"]
    assert far[0].snr > 8.0
    assert far[0].jackknife_snr < 3.0
    assert "rests on reference star HIP17695" in far[0].notes
    # The brightest one of the field stays without any of the stars.
    assert found.candidates[0].jackknife_snr > 4.0
    assert "rests on" not in found.candidates[0].notes
