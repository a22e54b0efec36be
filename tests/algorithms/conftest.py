"""References, a target that mixes three of them, and their inner products."""

import pytest


@pytest.fixture
def sample(rng):
    refs = rng.normal(size=(9, 200))
    target = refs[[1, 4, 6]].T @ [2.0, -1.0, 0.5] + 0.1 * rng.normal(size=200)
    return refs, target, refs @ refs.T, refs @ target
