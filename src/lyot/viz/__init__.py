"""Figures and the report: the only place that draws."""
