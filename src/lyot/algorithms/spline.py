"""Cubic splines through a table of values."""

from __future__ import annotations

import numpy as np

from lyot.types import Array


def cubic_spline(x: Array, nodes: Array, values: Array, /) -> Array:
    """Return the cubic spline through values at four nodes or more, ascending, at places x.

    It is one cubic on either side of the second and of the last but one node ("not a knot"). Its
    second derivatives at the nodes follow from the continuity of the first.
    """
    n, step = len(nodes), np.diff(nodes)
    inner = np.arange(1, n - 1)
    system, right = np.zeros((n, n)), np.zeros(n)
    system[inner, inner - 1] = step[:-1]
    system[inner, inner] = 2.0 * (step[:-1] + step[1:])
    system[inner, inner + 1] = step[1:]
    right[inner] = 6.0 * np.diff(np.diff(values) / step)
    system[0, :3] = step[1], -step[0] - step[1], step[0]
    system[-1, -3:] = step[-1], -step[-2] - step[-1], step[-2]
    second = np.linalg.solve(system, right)
    i = np.clip(np.searchsorted(nodes, x) - 1, 0, n - 2)
    h, below, above = step[i], x - nodes[i], nodes[i + 1] - x
    left, following = second[i], second[i + 1]
    bent = (left * above**3 + following * below**3) / (6.0 * h)
    straight = (values[i] / h - left * h / 6.0) * above
    return np.asarray(bent + straight + (values[i + 1] / h - following * h / 6.0) * below)
