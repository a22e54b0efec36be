"""Cubic splines through a table of values."""

from __future__ import annotations

import numpy as np

from lyot.types import Array


def cubic_pieces(nodes: Array, values: Array, /) -> Array:
    """Return the cubic spline through values at four nodes or more, in ascending order.

    It is one cubic on either side of the second and of the last but one node ("not a knot"). Its
    second derivatives at the nodes follow from the continuity of the first. The pieces between
    nodes have ``(4, n - 1)`` coefficients, of the cube of the distance from the node before first.
    """
    n, step = len(nodes), np.diff(nodes)
    slope, inner = np.diff(values) / step, np.arange(1, n - 1)
    system, right = np.zeros((n, n)), np.zeros(n)
    system[inner, inner - 1] = step[:-1]
    system[inner, inner] = 2.0 * (step[:-1] + step[1:])
    system[inner, inner + 1] = step[1:]
    right[inner] = 6.0 * np.diff(slope)
    system[0, :3] = step[1], -step[0] - step[1], step[0]
    system[-1, -3:] = step[-1], -step[-2] - step[-1], step[-2]
    second = np.linalg.solve(system, right)
    third = np.diff(second) / step
    first = slope - step * (second[:-1] / 2.0 + third * step / 6.0)
    return np.stack([third / 6.0, second[:-1] / 2.0, first, values[:-1]])


def along_pieces(x: Array, nodes: Array, pieces: Array, /) -> Array:
    """Return the values at places x of a spline made by `cubic_pieces` on these nodes."""
    i = np.searchsorted(nodes[1:-1], x)
    beyond = x - nodes[i]
    third, second, first, value = pieces[:, i]
    return np.asarray(((third * beyond + second) * beyond + first) * beyond + value)
