"""Modes over the anchors, against least squares at the anchors."""

import numpy as np

from lyot.algorithms import imputation, klip


def test_anchored_modes_fit_at_the_anchors(rng):
    refs = rng.normal(size=(6, 120))
    anchor = np.arange(120) < 70
    target = rng.normal(size=120)
    whole = klip.decompose(refs @ refs.T)
    matrix = imputation.anchored(whole, refs[:, anchor] @ refs[:, anchor].T)
    modes = klip.to_modes(whole) @ refs
    for n in (1, 3, 6):
        coefs = klip.coefficients((target[anchor] @ refs[:, anchor].T)[None], matrix, n_modes=n)
        by_hand = np.linalg.lstsq(modes[:n, anchor].T, target[anchor], rcond=None)[0]
        np.testing.assert_allclose((coefs @ refs)[0], by_hand @ modes[:n], atol=1e-10)


def test_anchored_modes_end_where_the_anchors_do_not_see_them():
    refs = np.eye(3, 8) + 0.0
    refs[2, :] = 0.0
    refs[2, 7] = 5.0  # the leading mode lies where there is no anchor
    anchor = np.arange(8) < 7
    matrix = imputation.anchored(klip.decompose(refs @ refs.T), refs[:, anchor] @ refs[:, anchor].T)
    assert len(matrix) == 0
