"""The report of a run: one HTML file made from the products in its folder.

`facts` reads the folder into plain values, `sections` decides what is shown of them, and the
templates make HTML of that.
"""

from lyot.viz.report.page import write_report
from lyot.viz.report.survey import write_survey_report

__all__ = ["write_report", "write_survey_report"]
