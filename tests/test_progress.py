"""Progress where there is no terminal, and reprs without pages of pixels."""

import numpy as np

from lyot.analysis.contrast import ContrastCurve, contrast_curve
from lyot.analysis.detection import detect
from lyot.analysis.observation import open_run
from lyot.files.exposure import read_cube
from lyot.progress import show_progress


def test_each_stage_is_named_once_where_there_is_no_terminal(capsys):
    with show_progress() as show:
        for done in range(3):
            show("align", done, 3)
        show("combine", 0, 1)
    assert capsys.readouterr().err == "align (3)\ncombine\n"
    with show_progress(quiet=True) as show:
        show("align", 0, 3)
    assert capsys.readouterr().err == ""


def test_results_show_themselves_in_a_notebook(demo, simulated):
    with open_run(demo.folder, star_magnitude=5.0) as observation:
        assert repr(observation).startswith("<Observation jw09999_demo")
        assert len(repr(observation)) < 200
        curve = contrast_curve(observation, separations_arcsec=np.array([0.8, 1.5]))
        found = detect(observation)
    for result in (curve, found):
        assert "<table" in result._repr_html_()
    again = ContrastCurve.from_table(curve.to_table())
    np.testing.assert_array_equal(again.calibrated, curve.calibrated)
    assert again.statistic == curve.statistic
    path = sorted(simulated.parent.glob("*_calints.fits"))[0]
    assert "5 frames of 160 x 160, NIRCAM F444W" in repr(read_cube(path))
