"""JWST coronagraphy: from calibrated exposures to PSF-subtracted images and limits."""

from importlib import import_module
from typing import Any

from lyot._version import __version__

_HOMES = {
    "AlignRefsStep": "lyot.steps",
    "Coron3Pipeline": "lyot.pipeline",
    "HlspStep": "lyot.steps",
    "KlipStep": "lyot.steps",
    "LyotError": "lyot.errors",
    "OutlierDetectionStep": "lyot.steps",
    "ResampleStep": "lyot.steps",
    "StackRefsStep": "lyot.steps",
    "build_associations": "lyot.files.sorting",
    "contrast_curve": "lyot.analysis.contrast",
    "detect": "lyot.analysis.detection",
    "fit_companions": "lyot.analysis.companion",
    "open_run": "lyot.analysis.observation",
    "simulate": "lyot",
}

__all__ = ["__version__", *_HOMES]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used: ``import lyot`` stays quick."""
    if name == "simulate":
        return import_module("lyot.simulate")
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'lyot' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
