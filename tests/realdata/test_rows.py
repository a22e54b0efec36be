"""1/f noise put into real residuals is taken out of them, point sources and discs are not."""

import numpy as np
import pytest

from lyot.algorithms.zones import full_frame
from lyot.files.aligned import AlignedArrays
from lyot.files.exposure import read_cube, stack
from lyot.files.headers import read_info
from lyot.files.star import StarPosition
from lyot.parameters import SubtractRecipe
from lyot.subtraction.result import row_noise
from lyot.subtraction.subtract import subtract
from scenes import gaussian

SCALE, SIGMA = 0.062595, 0.15
SHAPE = (320, 320)
RADIUS = np.hypot(*(np.indices(SHAPE) - np.array([174.0, 150.0])[:, None, None])) * SCALE


@pytest.fixture(scope="module")
def residuals(data_dir):
    """Subtract AU Mic with something put into its frame, and the levels of rows left or taken."""
    files = sorted((data_dir / "aumic_f444w").glob("*_calints.fits"))
    target, refs = read_cube(files[0]), stack(map(read_cube, files[2:]))
    aligned = AlignedArrays(refs.sci, refs.err, refs.dq, star=StarPosition(150.0, 174.0))
    [zone] = full_frame(SHAPE)
    zones = [zone._replace(weight=(RADIUS < 3.0) * 1.0, level=RADIUS >= 5.0)]
    clean = target.sci.copy()

    def _residual(added, *, rows):
        target.sci[:] = clean + added.astype(np.float32)
        recipe = SubtractRecipe(rows_inner_arcsec=2.0 if rows else 0.0)
        [done] = subtract(target, aligned, zones, recipe)
        return done.sci[0].astype(float), done.err[0]

    return _residual


@pytest.fixture
def stripes(rng):
    """Noise with power 1/f in the order in which pixels are read, 12 more to a row."""
    n = SHAPE[0] * (SHAPE[1] + 12)
    spectrum = np.fft.rfft(rng.normal(size=n)) / np.sqrt(np.maximum(np.arange(n // 2 + 1), 1))
    noise = np.fft.irfft(spectrum, n).reshape(SHAPE[0], -1)[:, : SHAPE[1]]
    return SIGMA * noise / noise.mean(axis=1).std()


def test_rows_lie_along_x(data_dir):
    for path in data_dir.glob("*/*_calints.fits"):
        assert read_info(path).fast_axis == 1


def test_noise_of_rows_is_measured_and_taken_out(residuals, stripes):
    plain, _ = residuals(np.zeros(SHAPE), rows=False)
    noisy, err = residuals(stripes, rows=False)
    taken, err_taken = residuals(stripes, rows=True)
    before, striped, after = (row_noise(r, RADIUS, 1).rows for r in (plain, noisy, taken))
    # Without stripes no more is left along rows than along columns.
    assert before < 1.2 * row_noise(plain, RADIUS, 1).columns
    assert striped > 2.0 * before
    assert after < 0.5 * before
    # Near the star they go too.
    of_rows = [
        np.nanmean(np.where(RADIUS < 5.0, r - plain, np.nan)[100:250], axis=1)
        for r in (noisy, taken)
    ]
    left = [np.std(np.diff(each)) for each in of_rows]
    assert left[1] < 0.75 * left[0]
    assert np.nanmedian(err_taken / err) == pytest.approx(1.0, abs=0.03)
    assert np.nanmin(err_taken - err) >= 0.0


def test_throughput_of_points_and_discs(residuals):
    y, x = np.indices(SHAPE)
    places = [
        (174.0 + r * np.sin(a) / SCALE, 150.0 + r * np.cos(a) / SCALE)
        for r, a in ((1.5, 0.3), (4.0, 2.0), (6.0, 4.0), (8.0, 5.5))
    ]
    along, across = np.abs(x - 150.0) * SCALE, np.abs(y - 174.0) * SCALE
    kept = {}
    for name, added in {
        "points": sum(20.0 * gaussian(SHAPE, at, 2.4) for at in places),
        "ring": np.exp(-0.5 * ((RADIUS - 2.5) / 0.2) ** 2),
        "wide ring": np.exp(-0.5 * ((RADIUS - 4.0) / 0.3) ** 2),
        "edge-on disc along the rows": 2.0 * np.exp(-along / 3.0 - 0.5 * (across / 0.3) ** 2),
    }.items():
        pairs = []
        for rows in (False, True):
            with_it, _ = residuals(added, rows=rows)
            without, _ = residuals(np.zeros(SHAPE), rows=rows)
            pairs.append(np.nansum((with_it - without) * added))
        kept[name] = pairs[1] / pairs[0]
    print(kept)
    assert kept["points"] == pytest.approx(1.0, abs=0.003)
    assert kept["ring"] == pytest.approx(1.0, abs=0.01)
    assert kept["wide ring"] == pytest.approx(1.0, abs=0.01)
    assert 0.9 < kept.pop("edge-on disc along the rows") < 1.0
