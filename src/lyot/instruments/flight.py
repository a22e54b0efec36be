"""The coronagraphic modes of JWST by the names of mask and filter."""

from __future__ import annotations

from lyot.instruments.miri import MIRI
from lyot.instruments.nircam import NIRCAM
from lyot.instruments.offaxis import Optics


def flight_optics(
    mask: str, filter: str, /, *, n_wavelengths: int | None = None, seed: int | None = None
) -> Optics:
    """Put a coronagraphic mode of NIRCam or MIRI together, as `Instrument.optics` does.

    Parameters
    ----------
    mask, filter : str
        Names of the coronagraph, for example MASK335R, and of the filter.
    n_wavelengths : int, optional
        Number of wavelengths; by default what the width of the filter needs.
    seed : int, optional
        Which draw of the wavefront errors; their mean by default.

    Returns
    -------
    Optics
        Nothing is computed yet.

    Examples
    --------
    >>> from lyot.instruments.flight import flight_optics
    >>> print(f"{flight_optics('4QPM_1140', 'F1140C').stop_throughput:.2f}")
    0.62
    """
    instrument = NIRCAM if mask.startswith("MASK") else MIRI
    name = instrument.coronagraph(mask).name
    return instrument.optics(name, filter, n_wavelengths=n_wavelengths, seed=seed)
