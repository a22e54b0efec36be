"""JWST coronagraphy: from calibrated exposures to PSF-subtracted images and limits."""

from lyot._version import __version__

__all__ = ["__version__"]
