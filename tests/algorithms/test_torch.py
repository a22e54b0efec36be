"""The same kernels on PyTorch tensors; skipped where it is not installed."""

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="PyTorch is not installed")

from lyot.algorithms import (  # noqa: E402
    fourier,
    injection,
    klip,
    propagation,
    registration,
)


def on(array):
    """Return a tensor."""
    return torch.asarray(np.ascontiguousarray(array))


def test_registration(star_image):
    target, ref = star_image(), star_image(shift_yx=(-0.3, 0.4))
    ones = np.ones(target.shape)
    start = np.zeros((1, 2))

    def fit(convert):
        spectra = fourier.spectrum(convert(ref))[None, ...]
        whole = registration.integer_shift(convert(target), convert(ones), spectra)
        prepared = registration.pair_targets(
            convert(target)[None, ...], convert(ones), convert(ones < 0)[None], convert(ones)[None]
        )
        near = registration.fit_pairs(
            prepared, spectra[:1], convert(ones)[None], convert(start[:1])
        )
        found = registration.refine(
            convert(target),
            convert(ones),
            convert(ones),
            spectra,
            convert(ones)[None, ...],
            convert(start),
        )
        return [whole, *near, *found]

    for tensor, array in zip(fit(on), fit(np.asarray), strict=True):
        np.testing.assert_allclose(np.asarray(tensor), array, atol=1e-8)


def test_klip_and_errors(rng):
    t, r, w = rng.normal(size=(3, 400)), rng.normal(size=(8, 400)), rng.uniform(0.5, 1, 400)
    variance = rng.uniform(1, 2, (3, 400))

    def chain(convert):
        targets, refs, weight, v = (convert(a) for a in (t, r, w, variance))
        root = weight**0.5
        products = klip.block_products(targets * root, refs * root, root)
        gram, _ = klip.recenter(products.gram, products.ref_sum, float(w.sum()))
        modes = klip.decompose(gram)
        matrix = klip.to_modes(modes)
        coefs = klip.coefficients(products.cross, matrix, n_modes=4)
        pixels = matrix @ refs
        noise = propagation.coefficient_noise(pixels, v[0, :], weight)
        lever = propagation.leverage(pixels, 0.01)
        return [
            klip.residual(targets, refs, coefs, coefs[:, 0]),
            klip.reference_scatter(refs, modes, n_modes=3),
            klip.leave_out(gram, refs[:, :5], weight[:5], 200.0)[0],
            propagation.own_noise(matrix, noise, n_modes=4),
            propagation.propagate_through_fit(v, lever, weight, coefs[:, 0]),
            propagation.shift_variance(v, np.array([0.5, 1.2])),
        ]

    for tensor, array in zip(chain(on), chain(np.asarray), strict=True):
        np.testing.assert_allclose(np.asarray(tensor), array, atol=1e-8)


def test_forward(rng):
    refs, target, weight = rng.normal(size=(5, 30)), rng.normal(size=30), rng.uniform(0.5, 1, 30)
    refs = refs - (refs @ weight / weight.sum())[:, None]
    target = target - target @ weight / weight.sum()
    source, sources, offset = rng.normal(size=30), rng.normal(size=(5, 30)), rng.normal(size=5)
    gram, cross = (refs * weight) @ refs.T, refs @ (weight * target)

    def chain(convert):
        parts = [convert(a) for a in (gram, cross, target, refs, weight)]
        fit = injection.FrozenFit(*parts, float(weight.sum()))
        updated = injection.update(fit, convert(source), convert(sources), 0.3, n_modes=3)
        matrix = klip.to_modes(klip.decompose(parts[0]))
        frames = [convert(refs.reshape(5, 5, 6))]
        images = convert(source.reshape(1, 1, 5, 6)), convert(weight.reshape(1, 5, 6))
        light = convert(np.array([[source @ weight]]))
        products = injection.source_products(*images, light, frames, convert(offset))
        coefs = klip.coefficients(products[0, ...], matrix, n_modes=3)
        return [*updated, injection.linear_response(coefs[None, ...], frames, convert(offset))]

    for tensor, array in zip(chain(on), chain(np.asarray), strict=True):
        np.testing.assert_allclose(np.asarray(tensor), array, atol=1e-9)
