"""What a file is, in a few words."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from lyot.files.headers import info_from_headers, open_fits

_PRODUCTS = {
    "calints": "exposure",
    "crfints": "flagged exposure",
    "psfstack": "stacked references",
    "psfalign": "aligned references",
    "psfsub": "subtracted exposure",
    "i2d": "combined image",
    "snr": "signal-to-noise image",
    "contrast": "contrast curve",
}
_STEPS = {
    "S_OUTLIR": "outlier_detection",
    "S_PSFSTK": "stack_refs",
    "S_PSFALI": "align_refs",
    "S_KLIP": "klip",
    "S_RESAMP": "resample",
    "S_HLSP": "hlsp",
}


def describe(path: str | Path, /) -> dict[str, Any]:
    """Describe a FITS file.

    Parameters
    ----------
    path : path
        An exposure or product.

    Returns
    -------
    dict
        Strings under ``file``, ``what``, ``shape``, ``target``, ``mode``, ``roll``, ``star`` and
        ``steps``.

    Raises
    ------
    LyotError
        If the file cannot be read.
    """
    path = Path(path)
    with open_fits(path) as hdus:
        primary = hdus[0].header
        sci = hdus["SCI"].header if "SCI" in hdus else {}
        n_axes = int(sci.get("NAXIS", 0))
        shape = tuple(sci[f"NAXIS{i}"] for i in range(n_axes, 0, -1))
        info = info_from_headers(primary, sci, name=path.name, shape=shape)
    kind = _PRODUCTS.get(path.stem.rpartition("_")[2], str(primary.get("DATAMODL") or "file"))
    if kind == "exposure":
        kind = "reference exposure" if info.is_psf else "science exposure"
    steps = [name for key, name in _STEPS.items() if primary.get(key) == "COMPLETE"]
    star = info.star_xy
    roll = info.roll_ref_deg
    return {
        "file": path.name,
        "what": kind,
        "shape": " x ".join(str(n) for n in shape),
        "target": info.target,
        "mode": " ".join(p for p in info.mode if p),
        "roll": f"{roll:.2f}" if np.isfinite(roll) else "",
        "star": f"{star[0]:.2f}, {star[1]:.2f}" if star else "",
        "steps": ", ".join(steps),
    }
