"""Coronagraphs, filters and scales of NIRCam and MIRI.

Sources: JWST User Documentation, "NIRCam Coronagraphic Occulting Masks and Lyot Stops" and
"MIRI Coronagraphs" (mask types, half-width-half-maximum radii, inner working angles); pivot
wavelengths and bandwidths of the filters from the JWST User Documentation "NIRCam Filters" and
Boccaletti et al. 2022, doi:10.1051/0004-6361/202244578 (MIRI); zero points of the Vega system from
the SVO Filter Profile Service (Rodrigo and Solano 2020).
"""

from __future__ import annotations

from dataclasses import dataclass

from lyot.errors import LyotError

TELESCOPE_DIAMETER_M = 6.5
ARCSEC_PER_RADIAN = 206264.806247

ROUND, BAR, FOUR_QUADRANT, LYOT_SPOT = "round", "bar", "4qpm", "lyot"


@dataclass(frozen=True)
class Coronagraph:
    """One coronagraph.

    Attributes
    ----------
    name : str
        Name of the mask.
    kind : {"round", "bar", "4qpm", "lyot"}
        Type of mask.
    radius_arcsec : float
        Half-width at half-maximum of the transmission [arcsec]; for a 4QPM the inner working
        angle; for the bars, at their middle.
    """

    name: str
    kind: str
    radius_arcsec: float


@dataclass(frozen=True)
class Filter:
    """One filter.

    Attributes
    ----------
    name : str
        Name of the filter.
    pivot_um : float
        Pivot wavelength [micrometre].
    width_um : float
        Bandwidth [micrometre].
    vega_jy : float or None
        Flux density of a star of magnitude zero in the Vega system [Jy]; None where the table
        has none.
    """

    name: str
    pivot_um: float
    width_um: float
    vega_jy: float | None = None

    @property
    def lambda_over_d_arcsec(self) -> float:
        """Wavelength over telescope diameter [arcsec]."""
        return self.pivot_um * 1e-6 / TELESCOPE_DIAMETER_M * ARCSEC_PER_RADIAN


CORONAGRAPHS = {
    c.name: c
    for c in (
        Coronagraph("MASK210R", ROUND, 0.40),
        Coronagraph("MASK335R", ROUND, 0.64),
        Coronagraph("MASK430R", ROUND, 0.82),
        Coronagraph("MASKSWB", BAR, 0.30),
        Coronagraph("MASKLWB", BAR, 0.60),
        Coronagraph("4QPM_1065", FOUR_QUADRANT, 0.33),
        Coronagraph("4QPM_1140", FOUR_QUADRANT, 0.36),
        Coronagraph("4QPM_1550", FOUR_QUADRANT, 0.49),
        Coronagraph("LYOT_2300", LYOT_SPOT, 2.16),
    )
}

FILTERS = {
    f.name: f
    for f in (
        Filter("F182M", 1.845, 0.238, 844.943),
        Filter("F187N", 1.874, 0.024, 794.848),
        Filter("F200W", 1.990, 0.461, 757.654),
        Filter("F210M", 2.093, 0.205, 688.033),
        Filter("F212N", 2.120, 0.027, 674.832),
        Filter("F250M", 2.503, 0.181, 504.651),
        Filter("F277W", 2.786, 0.672, 430.140),
        Filter("F300M", 2.996, 0.318, 369.648),
        Filter("F322W2", 3.247, 1.339, 343.302),
        Filter("F335M", 3.365, 0.347, 298.910),
        Filter("F356W", 3.563, 0.787, 271.393),
        Filter("F360M", 3.621, 0.372, 260.306),
        Filter("F410M", 4.092, 0.436, 208.750),
        Filter("F430M", 4.280, 0.228, 190.697),
        Filter("F444W", 4.421, 1.024, 184.102),
        Filter("F460M", 4.624, 0.228, 164.110),
        Filter("F480M", 4.834, 0.303, 153.224),
        Filter("F1065C", 10.563, 0.75),
        Filter("F1140C", 11.310, 0.80),
        Filter("F1550C", 15.516, 0.90),
        Filter("F2300C", 22.640, 5.50),
    )
}

PIXEL_SCALE_ARCSEC = {"NIRCAM_SHORT": 0.0307, "NIRCAM_LONG": 0.0630, "MIRI": 0.1110}


def coronagraph(name: str | None, /) -> Coronagraph | None:
    """Look up a coronagraph by the CORONMSK keyword.

    Parameters
    ----------
    name : str or None
        For example MASKA335R (module A) or MASK335R, 4QPM_1140, LYOT_2300.

    Returns
    -------
    Coronagraph or None
        None where the name is not known.
    """
    text = (name or "").upper()
    for module in ("MASKA", "MASKB"):
        text = text.replace(module, "MASK", 1) if text.startswith(module) else text
    return CORONAGRAPHS.get(text)


def filter_named(name: str | None, /) -> Filter:
    """Look up a filter.

    Parameters
    ----------
    name : str or None
        Name, for example F444W.

    Returns
    -------
    Filter
        Its pivot wavelength and width.

    Raises
    ------
    LyotError
        If the filter is not in the table.
    """
    try:
        return FILTERS[(name or "").upper()]
    except KeyError:
        raise LyotError(
            f"Filter {name!r} is not in the table; known are {', '.join(FILTERS)}."
        ) from None
