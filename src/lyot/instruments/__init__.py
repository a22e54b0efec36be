"""The instruments that are known, by the value of the keyword INSTRUME.

Another instrument is added by ``INSTRUMENTS[name] = value``, or for a while by `registered`.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from lyot.errors import LyotError
from lyot.instruments.instrument import Instrument
from lyot.instruments.jwst import DQ_FLAGS, PUPIL
from lyot.instruments.miri import MIRI
from lyot.instruments.nircam import NIRCAM

INSTRUMENTS: dict[str, Instrument] = {i.name: i for i in (NIRCAM, MIRI)}

UNNAMED = Instrument(
    name="", pupil=PUPIL, channels=(), filters=(), coronagraphs=(), dq_flags=DQ_FLAGS
)
"""Stands for the instrument of a file that names none, or one that is not in `INSTRUMENTS`: it
has the flags of JWST, and neither filters nor coronagraphs."""


def instrument_named(name: str, /) -> Instrument:
    """Look up an instrument.

    Parameters
    ----------
    name : str
        Value of the keyword INSTRUME.

    Returns
    -------
    Instrument
        Its value.

    Raises
    ------
    LyotError
        If it is not in `INSTRUMENTS`.

    Examples
    --------
    >>> instrument_named("MIRI").stpsf_class
    'MIRI'
    """
    if name not in INSTRUMENTS:
        raise LyotError(f"Instrument {name!r} is not among {', '.join(INSTRUMENTS)}.")
    return INSTRUMENTS[name]


@contextmanager
def registered(instrument: Instrument, /) -> Iterator[Instrument]:
    """Add an instrument to `INSTRUMENTS` within a context.

    Parameters
    ----------
    instrument : Instrument
        It takes the place of one of the same name.

    Yields
    ------
    Instrument
        The instrument.

    Examples
    --------
    >>> from dataclasses import replace
    >>> with registered(replace(MIRI, name="MIRI-2")):
    ...     "MIRI-2" in INSTRUMENTS
    True
    >>> "MIRI-2" in INSTRUMENTS
    False
    """
    before = INSTRUMENTS.get(instrument.name)
    INSTRUMENTS[instrument.name] = instrument
    try:
        yield instrument
    finally:
        if before is None:
            del INSTRUMENTS[instrument.name]
        else:
            INSTRUMENTS[instrument.name] = before


__all__ = [
    "INSTRUMENTS",
    "MIRI",
    "NIRCAM",
    "UNNAMED",
    "Instrument",
    "instrument_named",
    "registered",
]
