"""Images of sources near a mask: computed at places of a grid, and between them by flux.

The images are kept in memory and, through `lyot.compute.cache`, in the user's cache folder.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import product
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lyot.compute.cache import remembered
from lyot.compute.threads import map_ordered
from lyot.instruments.offaxis import Optics
from lyot.instruments.telescope import ARCSEC_PER_RADIAN
from lyot.types import Array

PHASE_STEP, PHASE_SCALE_LAMBDA_D = 0.08, 0.5
"""Behind a phase mask the places lie at ``scale sinh(step k)`` from its boundaries: dense there."""

PHASE_REACH_LAMBDA_D = 12.0
"""Distance from a boundary of a phase mask beyond which it turns the phase and no more."""

N_WAVELENGTHS = 4
"""Number of wavelengths of what the mask does to an image."""

MAX_IMAGES = 1500


class _Node(NamedTuple):
    image: NDArray[np.float32]
    transmission: float


@dataclass(frozen=True, eq=False)
class NearMask:
    """Images of sources that are near enough to the mask to be deformed by it.

    Between the places of the grid they are those around, weighted by the flux that passes: within
    1 % of the peak of what is computed at the place itself where 2 % of the light pass
    (tests/instruments/test_near_mask.py).
    """

    optics: Optics
    half_pix: int  # half the width of the images without their middle pixel
    oversample: int  # samples per pixel and axis
    _nodes: dict[tuple[int, int], _Node] = field(default_factory=dict, repr=False)

    def __getstate__(self) -> dict[str, object]:
        """Leave out the images, which another process computes or reads alike."""
        parts = {"optics": self.optics, "half_pix": self.half_pix, "oversample": self.oversample}
        return parts | {"_nodes": {}}

    @cached_property
    def _exact(self) -> Optics:
        """Optics that never take the image beside the mask, of few wavelengths."""
        return replace(self.optics.with_fewer_wavelengths(N_WAVELENGTHS), max_change=0.0)

    @cached_property
    def _of_more_wavelengths(self) -> Array:
        """What more wavelengths add to the image beside the mask, and as good as that near it."""
        many, few = (
            optics.psf(
                (0.0, 0.0),
                n_pixels=2 * self.half_pix + 1,
                oversample=self.oversample,
                with_mask=False,
            ).image
            for optics in (self.optics, self._exact)
        )
        return many - few

    @cached_property
    def _step_arcsec(self) -> float:
        """Distance between places, or the scale of their distances behind a phase mask."""
        optics = self.optics
        wavelength = float(optics.band.weights @ optics.band.wavelengths_m)
        mask = optics.mask
        step = PHASE_SCALE_LAMBDA_D if mask.deforms_with_offset else mask.image_step_lambda_d
        return step * wavelength / optics.pupil.diameter_m * ARCSEC_PER_RADIAN

    def image(self, place_xy_arcsec: tuple[float, float], /) -> Array | None:
        """Return the image of a source at a place along the mask's axes; None beside the mask.

        Of unit flux behind the mask.
        """
        steps = np.array(place_xy_arcsec) / self._step_arcsec
        if self.optics.mask.deforms_with_offset:
            steps = np.arcsinh(steps) / PHASE_STEP
            last = np.ceil(np.arcsinh(PHASE_REACH_LAMBDA_D / PHASE_SCALE_LAMBDA_D) / PHASE_STEP)
            if np.abs(steps).min() >= last:
                return None
            # Far along a boundary the image depends on the distance from it alone.
            steps = np.clip(steps, -last, last)
        elif self.optics.is_beside(place_xy_arcsec):
            return None
        i, j = (int(v) for v in np.floor(steps))
        u, v = steps - (i, j)
        corners = product(((i, 1.0 - u), (i + 1, u)), ((j, 1.0 - v), (j + 1, v)))
        shares = {(column, row): a * b for (column, a), (row, b) in corners if a * b > 1e-9}
        total: Array = np.zeros(())
        passed = 0.0
        for node, share in zip(self._at(list(shares)), shares.values(), strict=True):
            flux = share * node.transmission
            total, passed = total + flux * node.image, passed + flux
        return np.asarray(total / passed)

    def _at(self, places: list[tuple[int, int]]) -> list[_Node]:
        found = {place: self._nodes[place] for place in places if place in self._nodes}
        missing = [place for place in places if place not in found]
        found |= zip(missing, map_ordered(self._made, missing), strict=True)
        if len(self._nodes) > MAX_IMAGES:
            self._nodes.clear()
        self._nodes.update(found)
        return [found[place] for place in places]

    def _made(self, place: tuple[int, int]) -> _Node:
        """Compute the image at a place of the grid, where it is not in the cache."""
        steps = np.array(place)
        if self.optics.mask.deforms_with_offset:
            steps = np.sinh(PHASE_STEP * steps)
        x, y = self._step_arcsec * steps
        n_pixels = 2 * self.half_pix + 1

        def _compute() -> dict[str, Array]:
            made = self._exact.psf(
                self.optics.mask.along_detector(float(x), float(y)),
                n_pixels=n_pixels,
                oversample=self.oversample,
            )
            image = (made.image + self._of_more_wavelengths).astype(np.float32)
            return {"image": image, "transmission": np.array(made.transmission)}

        checksum = self.optics.checksum
        group = f"near-{checksum}-{n_pixels}x{self.oversample}" if checksum else ""
        held = remembered(group, f"{place[0]}_{place[1]}", _compute)
        return _Node(held["image"], float(held["transmission"]))
