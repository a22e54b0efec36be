"""The modes of a target compared: images, limits, candidates, companions at one place in all."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from lyot.analysis.colors import CommonCompanion, at_common_place, common_places, fit_mode
from lyot.analysis.observation import open_run
from lyot.files.atomic import write_json
from lyot.files.headers import ExposureInfo, read_info
from lyot.files.results import SURVEY_COLORS
from lyot.outputs import write_colors
from lyot.progress import Progress, no_progress
from lyot.survey import FAILED, UNCHANGED, Finished

COMPARISON = "comparison.json"


class _Mode(NamedTuple):
    run: Finished
    info: ExposureInfo
    image: str  # path of the combined image

    @property
    def resolution_arcsec(self) -> float:
        return self.info.fwhm_pix * self.info.pixel_scale_arcsec


def compare(
    finished: Sequence[Finished], folder: str | Path, /, *, progress: Progress = no_progress
) -> list[dict[str, Any]]:
    """Compare the modes of each target that was observed in several, and write it beside them.

    Mode by mode: the image, the limits, the candidates; and each companion, at the place that all
    modes have in common, with magnitudes and colors. In ``comparison.json``, the companions in
    ``survey_colors.ecsv`` too; neither is written where every target has one mode.
    """
    path = Path(folder) / COMPARISON
    if all(each.state == UNCHANGED for each in finished) and path.is_file():
        with suppress(OSError, ValueError):
            return list(json.loads(path.read_text(encoding="utf-8")))
    targets: dict[str, list[_Mode]] = {}
    for each in finished:
        images = [name for name in each.products if name.endswith("_i2d.fits")]
        if each.state != FAILED and images:
            info = read_info(images[-1])
            targets.setdefault(info.target, []).append(_Mode(each, info, images[-1]))
    several = {
        target: modes
        for target, modes in targets.items()
        if len({mode.info.mode for mode in modes}) > 1
    }
    compared: list[dict[str, Any]] = []
    companions: dict[str, list[CommonCompanion]] = {}
    for number, (target, modes) in enumerate(several.items()):
        progress("compare modes", number, len(several))
        modes.sort(key=lambda mode: mode.resolution_arcsec)
        companions[target] = _companions(modes)
        compared.append(_described(target, modes, companions[target], Path(folder)))
    for left in (path, Path(folder) / SURVEY_COLORS):
        left.unlink(missing_ok=True)
    if compared:
        progress("compare modes", len(several), len(several))
        write_json(compared, path)
    if any(companions.values()):
        write_colors(companions, folder)
    return compared


def _companions(modes: Sequence[_Mode]) -> list[CommonCompanion]:
    """Fit the candidates of all modes that are points in each of them."""
    found = [
        [
            (c["separation_arcsec"], c["pa_deg"], c["snr"])
            for c in mode.run.candidates or ()
            if c["kind"] == "point"
        ]
        for mode in modes
    ]
    places = common_places(found, modes[-1].resolution_arcsec)
    fits = []
    for number, mode in enumerate(modes if places else ()):
        with open_run(Path(mode.image).parent) as observation:
            fits.append(fit_mode(observation, number, places))
    return [c for each in zip(*fits, strict=True) if (c := at_common_place(each)) is not None]


def _described(
    target: str, modes: Sequence[_Mode], companions: Sequence[CommonCompanion], folder: Path
) -> dict[str, Any]:
    """Say what was found of a target, as plain values."""
    rows = [
        {
            "product": mode.run.product,
            "filter": mode.info.filter,
            "mode": mode.info.mode_text,
            "image": os.path.relpath(mode.image, folder),
            "limits": mode.run.limits,
            "candidates": mode.run.candidates,
        }
        for mode in modes
    ]
    content = {
        "target": target,
        "modes": rows,
        "companions": [asdict(each) for each in companions],
    }
    return dict(_without_nan(content))


def _without_nan(value: Any) -> Any:
    """Replace numbers that JSON has not by None, at any depth."""
    if isinstance(value, dict):
        return {key: _without_nan(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(each) for each in value]
    return None if isinstance(value, float) and not np.isfinite(value) else value
