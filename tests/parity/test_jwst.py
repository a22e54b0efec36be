"""Agreement with the official pipeline, jwst 3.0.0, wherever both do the same thing.

``make parity`` makes an environment that holds it; without it these tests skip.
"""

import json
import warnings

import numpy as np
import pytest
from stdatamodels.jwst import datamodels

jwst = pytest.importorskip("jwst", reason="jwst is not installed: run `make parity`")

from lyot.algorithms import fourier, klip, registration  # noqa: E402
from lyot.files.association import FOLDER_KEY  # noqa: E402
from lyot.files.sorting import build_associations  # noqa: E402
from lyot.steps import KlipStep, ResampleStep, StackRefsStep  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def association(data_dir, tmp_path_factory):
    """Return AU Mic's association, written so that both packages find its members."""
    folder = tmp_path_factory.mktemp("parity")
    files = sorted((data_dir / "aumic_f444w").glob("*_calints.fits"))
    [asn] = build_associations(files)
    for path in files:
        (folder / path.name).symlink_to(path)
    asn.pop(FOLDER_KEY, None)
    (folder / "asn.json").write_text(json.dumps(asn))
    return folder / "asn.json"


@pytest.fixture(scope="module")
def psf_models(association):
    names = [
        m["expname"]
        for m in json.loads(association.read_text())["products"][0]["members"]
        if m["exptype"] == "psf"
    ]
    models = [datamodels.CubeModel(association.parent / n) for n in names]
    yield models
    for model in models:
        model.close()


@pytest.fixture(scope="module")
def target(association):
    [*names] = [m["expname"] for m in json.loads(association.read_text())["products"][0]["members"]]
    with datamodels.CubeModel(association.parent / names[0]) as model:
        yield model


def test_psfstack(association, psf_models):
    from jwst.coron.stack_refs import make_cube
    from jwst.datamodels import ModelContainer

    theirs = make_cube(ModelContainer(psf_models))
    ours = StackRefsStep.call(str(association))
    for name in ("data", "err", "dq"):
        np.testing.assert_array_equal(getattr(ours, name), getattr(theirs, name))


@pytest.fixture(scope="module")
def finite(target, psf_models):
    """Return target and references without missing pixels, which the two treat differently."""
    refs = np.concatenate([m.data for m in psf_models])
    bad = ~np.isfinite(np.concatenate([target.data, refs])).all(axis=0)
    stack = datamodels.CubeModel(np.where(bad, 0.0, refs).astype(np.float32))
    stack.err = np.full(refs.shape, 0.066, np.float32)
    stack.dq = np.zeros(refs.shape, np.uint32)
    science = target.copy()
    science.data = np.where(bad, 0.0, target.data).astype(np.float32)
    science.dq = np.zeros(science.data.shape, np.uint32)
    return science, stack


@pytest.mark.parametrize("truncate", [1, 3, 6, 50])
def test_klip_with_the_official_error(finite, truncate):
    from jwst.coron.klip_step import KlipStep as TheirStep

    science, stack = finite
    theirs = TheirStep("klip", truncate=truncate)
    theirs = theirs.process(science.copy(), stack)
    ours = KlipStep.call(science, stack, truncate=truncate, error="scatter", level_inner_arcsec=0.0)
    scale = np.abs(theirs.data).max()
    np.testing.assert_allclose(ours.data, theirs.data, rtol=1e-5, atol=1e-5 * scale)
    # With all modes the scatter of the references about themselves is rounding error.
    np.testing.assert_allclose(ours.err, theirs.err, rtol=1e-5, atol=1e-6 * np.std(stack.data))


def test_karhunen_loeve_transform(finite):
    from jwst.coron.klip import karhunen_loeve_transform

    refs = np.asarray(finite[1].data, float).reshape(6, -1)
    refs = refs - refs.mean(axis=1, keepdims=True)
    vectors, values, _ = karhunen_loeve_transform(refs, normalize=True)
    modes = klip.decompose(refs @ refs.T)
    ours = klip.to_modes(modes) @ refs
    np.testing.assert_allclose(modes.values / (refs.shape[1] - 1), values, rtol=1e-9)
    overlap = np.abs((ours * vectors).sum(axis=1))
    np.testing.assert_allclose(overlap, 1.0, atol=1e-9)


def test_the_eigenvalues_of_their_own_unit_test():
    """Three ramps that differ in a few pixels; the truth is that of their test_klt."""
    refs = np.tile(np.arange(15.0).reshape(3, 5), (3, 1, 1))
    for (k, y, x), change in {
        (0, 1, 1): 0.3,
        (0, 2, 1): 0.7,
        (0, 0, 3): -0.5,
        (0, 1, 2): -1.3,
        (1, 0, 1): 0.7,
        (1, 2, 1): 0.2,
        (1, 2, 3): 0.8,
        (1, 2, 2): -1.8,
        (2, 1, 1): 0.9,
        (2, 2, 2): -0.5,
        (2, 1, 0): 0.8,
        (2, 1, 2): 0.8,
    }.items():
        refs[k, y, x] += change
    rows = refs.reshape(3, 15)
    rows = rows - rows.mean(axis=1, keepdims=True)
    modes = klip.decompose(rows @ rows.T)
    truth = [59.09269614, 0.22691493, 0.16324608]
    np.testing.assert_allclose(modes.values / 14, truth, atol=1e-6)
    first = [0.59148838, 0.56851174, 0.57178309]
    np.testing.assert_allclose(np.abs(modes.vectors[:, 0]), first, atol=1e-6)


def test_fourier_shift(rng):
    from jwst.coron.imageregistration import fourier_imshift

    y, x = np.mgrid[:60, :62]
    image = np.exp(-((y - 30) ** 2 + (x - 31) ** 2) / 30.0)
    theirs = fourier_imshift(image, [0.4, -0.3])  # along x, then y
    ours = fourier.shift(fourier.spectrum(image), np.array([-0.3, 0.4]), shape=image.shape)
    np.testing.assert_allclose(ours, theirs, atol=1e-9)


def test_alignment_given_float64(finite):
    """Theirs is right when the input is float64; shifts have the other sign and order."""
    from jwst.coron.imageregistration import align_fourier_lsq

    science, stack = finite
    target, refs = (np.asarray(m.data, float) for m in (science, stack))
    y, x = np.ogrid[:320, :320]
    r = np.hypot(y - 174, x - 150)
    weight = ((r > 8) & (r < 48)).astype(float)
    moved = fourier.shift(fourier.spectrum(refs[2]), np.array([-0.30, 0.40]), shape=(320, 320))
    theirs = align_fourier_lsq(target[0], moved, weight)
    ours = registration.refine(
        target[0],
        weight,
        np.ones_like(weight),
        fourier.spectrum(moved)[None],
        np.ones_like(weight)[None],
        np.zeros((1, 2)),
    )
    # They move the target to the reference, we the reference to the target: the objectives
    # differ, and so do the optima where the frames do.
    np.testing.assert_allclose(ours.shift_yx[0, ::-1], -theirs[:2], atol=0.01)
    np.testing.assert_allclose(ours.scale[0], 1 / theirs[2], rtol=0.02)


def test_i2d_with_the_headers_wcs(finite, association):
    from jwst.datamodels import ModelContainer, ModelLibrary
    from jwst.pipeline.calwebb_coron3 import to_container
    from jwst.resample.resample_step import ResampleStep as TheirStep

    names = [m["expname"] for m in json.loads(association.read_text())["products"][0]["members"]]
    cubes = []
    for name in names[:2]:
        with datamodels.CubeModel(association.parent / name) as model:
            cube = model.copy()
        cube.data = np.concatenate([cube.data, 1.1 * cube.data])
        cube.err = np.concatenate([cube.err, cube.err])
        cube.dq = np.concatenate([cube.dq, cube.dq])
        read = np.linspace(0.5, 1.5, cube.data.size).reshape(cube.data.shape)
        cube.var_rnoise = read.astype(np.float32)
        cube.var_poisson = np.full(cube.data.shape, 0.3, np.float32)
        cube.var_flat = np.full(cube.data.shape, 0.1, np.float32)
        cubes.append(cube)
    ours = ResampleStep.call(cubes, align_on="header")
    container = ModelContainer()
    for cube in cubes:
        for plane in to_container(cube):
            container.append(plane)
    step = TheirStep("resample", blendheaders=False)
    step.output_file = "x"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = step.process(ModelLibrary(container, on_disk=False))
    assert ours.data.shape == theirs.data.shape
    for name in ("data", "wht"):
        np.testing.assert_allclose(getattr(ours, name), getattr(theirs, name), rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(ours.con, theirs.con)
    at = ours.meta.wcs(100.0, 120.0)
    np.testing.assert_allclose(at, theirs.meta.wcs(100.0, 120.0), atol=1e-10)


def test_hlsp_of_a_plain_image():
    from jwst.coron import hlsp

    from lyot.steps import HlspStep

    rng = np.random.default_rng(0)
    image = datamodels.ImageModel(rng.normal(size=(50, 54)).astype(np.float32))
    image.err = np.full((50, 54), 0.5, np.float32)
    image.meta.filename = "x_i2d.fits"
    snr, contrast = HlspStep.call(image, save_results=False)
    np.testing.assert_allclose(snr.data, hlsp.snr_image(image).data, rtol=1e-6)
    theirs = hlsp.contrast_curve(image, 2).contrast_table
    n = len(theirs["sigma"])
    np.testing.assert_allclose(contrast.contrast_table["radius"][:n], theirs["radius"])
    np.testing.assert_allclose(contrast.contrast_table["sigma"][:n], theirs["sigma"], rtol=1e-5)


def test_strun_takes_our_step_where_both_are_installed(association, tmp_path):
    import subprocess
    import sys
    from pathlib import Path

    done = subprocess.run(
        [
            str(Path(sys.executable).parent / "strun"),
            "lyot::stack_refs",
            str(association),
            f"--output_dir={tmp_path}",
        ],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stderr
    assert list(tmp_path.glob("*_psfstack.fits"))
