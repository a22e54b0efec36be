"""Tables of evolutionary models."""

import numpy as np
import pytest
from astropy import units as u
from astropy.table import QTable

from lyot.errors import LyotError
from lyot.files.evolution import Evolution, read_evolution
from lyot.instruments import NIRCAM

FILTER = NIRCAM.filter("F444W")


def written(path, text):
    path.write_text(text)
    return path


def test_units_and_names_of_columns_are_those_of_the_table(tmp_path):
    jy = FILTER.vega_jy * 10 ** (-0.4 * np.array([14.0, 11.0]))
    table = QTable(
        {
            "Age": [0.02, 0.02] * u.Gyr,
            "Mass": [0.001, 0.005] * u.solMass,
            "F356W": [1.0, 2.0],
            "JWST/NIRCam.F444W": jy * u.Jy,
        }
    )
    table.write(tmp_path / "models.ecsv")
    models = read_evolution(tmp_path / "models.ecsv", FILTER)
    np.testing.assert_allclose(models.age_myr, 20.0)
    np.testing.assert_allclose(models.mass_mjup, [1.0476, 5.238], rtol=1e-4)
    np.testing.assert_allclose(models.magnitude, [14.0, 11.0])


def test_between_two_ages_magnitudes_are_linear_in_the_logarithm_of_the_age():
    mass = np.array([1.0, 10.0, 0.5, 1.0, 10.0, 40.0])
    models = Evolution(np.array([10.0] * 2 + [1000.0] * 4), mass, -mass, "models")
    at, magnitude = models.at_age(100.0)
    # The masses that both ages have.
    np.testing.assert_allclose(at, [1.0, 10.0])
    np.testing.assert_allclose(magnitude, [-1.0, -10.0])
    np.testing.assert_array_equal(models.at_age(10.0)[0], [1.0, 10.0])
    with pytest.raises(LyotError, match="models holds ages from 10 to 1000 Myr; 5 Myr lies out"):
        models.at_age(5.0)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("age,mass,F356W\n20,1,14\n20,5,12\n", "no column F444W; it has age, mass, F356W"),
        ("t,m,F444W\n20,1,14\n20,5,12\n", "no column age and mass; it has t, m, F444W"),
        ("age,mass,F444W\n20,0.001,14\n20,0.05,12\n", "have no unit and reach 0.05, as solar"),
        ("age,mass,F444W\n20,1,\n20,5,12\n", "has 1 rows with age, mass and F444W"),
        ("age,mass,F444W\n20,one,14\n20,five,12\n", "column mass .* does not hold numbers"),
    ],
)
def test_what_is_no_table_of_models_is_refused(tmp_path, text, message):
    with pytest.raises(LyotError, match=message):
        read_evolution(written(tmp_path / "models.csv", text), FILTER)


def test_a_wrong_unit_and_a_missing_file_are_refused(tmp_path):
    QTable({"age": [1, 2] * u.kg, "mass": [1.0, 2.0], "F444W": [3.0, 4.0]}).write(
        tmp_path / "models.ecsv"
    )
    with pytest.raises(LyotError, match=r"unit of the column age .* is kg; give Myr"):
        read_evolution(tmp_path / "models.ecsv", FILTER)
    with pytest.raises(LyotError, match=r"none\.csv does not exist"):
        read_evolution(tmp_path / "none.csv", FILTER)
