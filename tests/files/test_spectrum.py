"""Spectra of sources from files."""

import numpy as np
import pytest
from astropy import units as u
from astropy.table import QTable

from lyot.errors import LyotError
from lyot.files.spectrum import read_spectrum
from lyot.instruments import NIRCAM


def test_two_columns_are_micrometers_and_janskys(tmp_path):
    path = tmp_path / "star.txt"
    path.write_text("# um Jy more\n5 2.5 1\n1 0.5 1\n2 0 1\n3 nan 1\n5 2.5 1\n")
    found = read_spectrum(path)
    assert (found.um, found.jy) == ((1.0, 5.0), (0.5, 2.5))


def test_a_table_may_have_any_units(tmp_path):
    um = np.linspace(3.0, 6.0, 50)
    jy = 0.3 * um**-1.7
    per_length = (jy * u.Jy).to(
        u.erg / u.s / u.cm**2 / u.AA, equivalencies=u.spectral_density(um * u.um)
    )
    tables = {
        "a.ecsv": QTable([um * u.um, jy * u.Jy], names=["w", "f"]),
        "b.ecsv": QTable([(um * u.um).to(u.AA), per_length], names=["w", "f"]),
        "c.fits": QTable([(um * u.um).to(u.GHz, u.spectral()), 1e3 * jy * u.mJy], names=["w", "f"]),
    }
    for name, table in tables.items():
        table.write(tmp_path / name)
        found = read_spectrum(tmp_path / name)
        np.testing.assert_allclose(found.um, um)
        np.testing.assert_allclose(found.jy, jy)
    density = NIRCAM.filter("F444W").flux_density(found)
    assert density == pytest.approx(0.3 * 4.381**-1.7, rel=0.02)


def test_photometry_as_vizier_gives_it_is_read_by_its_names(tmp_path):
    """Of several values at one frequency, the median; columns before them are places and names."""
    ghz, jy = [60000.0, 89000.0, 60000.0, 138000.0, 60000.0], [4.0, 9.0, 3.0, 20.0, 90.0]
    table = QTable(
        [np.full(5, 311.29), np.arange(5), ghz * u.GHz, jy * u.Jy, np.array(jy) * 0.1 * u.Jy],
        names=["_RAJ2000", "_ID", "sed_freq", "sed_flux", "sed_eflux"],
    )
    table.write(tmp_path / "star.vot", format="votable")
    found = read_spectrum(tmp_path / "star.vot")
    np.testing.assert_allclose(found.um, 299792.458 / np.array([138000.0, 89000.0, 60000.0]))
    np.testing.assert_allclose(found.jy, [20.0, 9.0, 4.0])


@pytest.mark.parametrize(
    ("name", "content", "text"),
    [
        ("none.txt", None, "does not exist"),
        ("words.txt", "a b\n", "give two columns of numbers"),
        ("one.txt", "1\n2\n", "give two columns of numbers"),
        ("empty.txt", "1 0\n2 -1\n", "has 0 points of positive flux"),
        ("broken.ecsv", "nonsense", "cannot be read"),
    ],
)
def test_bad_files_are_refused_in_a_sentence(name, content, text, tmp_path):
    if content is not None:
        (tmp_path / name).write_text(content)
    with pytest.raises(LyotError, match=text):
        read_spectrum(tmp_path / name)


def test_a_table_of_other_quantities_is_refused(tmp_path):
    QTable([[1, 2] * u.um, [3, 4] * u.m], names=["w", "f"]).write(tmp_path / "x.ecsv")
    with pytest.raises(LyotError, match="give a wavelength and a flux density"):
        read_spectrum(tmp_path / "x.ecsv")
    QTable([[1, 2], [3, 4]], names=["w", "f"]).write(tmp_path / "y.ecsv")
    with pytest.raises(LyotError, match="are none and none"):
        read_spectrum(tmp_path / "y.ecsv")


def test_the_spectrum_of_a_real_star_has_its_color(data_dir):
    """HIP 65426, an A2 star: its magnitudes at 1.6 and 2.2 micrometer are 6.85 and 6.77 (2MASS)."""
    path = data_dir / "throughput" / "HIP65426A_sdf_phoenix_m+modbb_disk_r.txt"
    spectrum = read_spectrum(path)
    for name in ("F210M", "F250M", "F300M", "F356W", "F444W"):
        band = NIRCAM.filter(name)
        magnitude = -2.5 * np.log10(band.flux_density(spectrum) / band.vega_jy)
        assert magnitude == pytest.approx(6.77, abs=0.06), name
