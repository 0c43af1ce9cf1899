"""Convolutions and their gradients against SciPy and sums written out; folding; the U-Net and the small networks."""

from __future__ import annotations

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
from scipy.signal import correlate

from mulligan.loop import compile_small
from mulligan.nets.convolution import convolve, fold, make_decoder, make_encoder, make_norm, unfold
from mulligan.nets.unet import make_unet


def by_scipy(x, weights):
    pairs = [(i, o) for i in range(x.shape[2]) for o in range(weights.shape[3])]
    out = np.zeros((*x.shape[:2], weights.shape[3]))
    for i, o in pairs:
        out[..., o] += correlate(x[..., i], weights[:, :, i, o], "same")
    return out


@compile_small
def _both(x, weights, pull):
    """Outputs of a batch, and the gradients of their product with ``pull``: one program."""

    def loss(x, w):
        return jnp.sum(jax.vmap(convolve, (0, None))(x, w) * pull)

    return jax.vmap(convolve, (0, None))(x, weights), jax.grad(loss, (0, 1))(x, weights)


def test_convolution_and_its_gradients(seed):
    generator = np.random.default_rng(seed)
    with jax.enable_x64(True):
        x, weights = jnp.asarray(generator.normal(size=(3, 5, 6, 2))), jnp.asarray(generator.normal(size=(3, 3, 2, 4)))
        pull = jnp.asarray(generator.normal(size=(3, 5, 6, 4)))
        values, (along_x, along_weights) = jax.tree.map(np.asarray, _both(x, weights, pull))
        x, weights, pull = np.asarray(x), np.asarray(weights), np.asarray(pull)
    np.testing.assert_allclose(values, [by_scipy(one, weights) for one in x], atol=1e-10)
    # Each gradient is a convolution, too: of the pull with the window turned round, of the padded picture with the pull.
    turned = weights[::-1, ::-1].swapaxes(2, 3)
    np.testing.assert_allclose(along_x, [by_scipy(one, turned) for one in pull], atol=1e-10)
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    places = [[np.einsum("nhwc,nhwo->co", padded[:, a : a + 5, b : b + 6], pull) for b in range(3)] for a in range(3)]
    np.testing.assert_allclose(along_weights, places, atol=1e-10)
    # The saboteurs: a flipped window, and a gradient whose places are off by one.
    assert not np.allclose(values, [by_scipy(one, weights[::-1]) for one in x])
    assert not np.allclose(np.roll(along_weights, 1, axis=0), places)


def test_folding_loses_nothing():
    shapes = [(4, 4, 1), (7, 5, 3), (1, 1, 2)]
    pictures = [np.arange(float(np.prod(shape)), dtype=np.float32).reshape(shape) for shape in shapes]
    there = compile_small(lambda all: [fold(x) for x in all])(pictures)
    back = compile_small(lambda all: [unfold(x, *shape[:2]) for x, shape in zip(all, shapes)])(there)
    for x, folded, again in zip(pictures, there, back):
        height, width, channels = x.shape
        assert folded.shape == (-(-height // 2), -(-width // 2), 4 * channels)
        np.testing.assert_array_equal(np.asarray(again), x)
        np.testing.assert_array_equal(np.asarray(folded)[0, 0, :channels], x[0, 0])


def test_norm_is_of_groups(seed):
    x = np.random.default_rng(seed).normal(3, 2, (4, 5, 6)).astype(np.float32)
    out = np.asarray(compile_small(lambda x: make_norm(6, 2)(x))(jnp.asarray(x))).reshape(-1, 2, 3)
    np.testing.assert_allclose(out.mean((0, 2)), 0, atol=1e-5)
    np.testing.assert_allclose(out.var((0, 2)), 1, atol=1e-4)


def _stirred(net, generator):
    """Every weight moved a little, so that nothing is zero by construction."""

    def moved(leaf):
        return jnp.asarray((np.asarray(leaf) + 0.1 * generator.normal(size=leaf.shape)).astype(np.float32))

    return jax.tree.map(lambda leaf: moved(leaf) if eqx.is_array(leaf) else leaf, net)


def test_unet_sees_all_it_is_given(seed):
    generator = np.random.default_rng(seed)
    net = _stirred(make_unet((6, 5, 2), generator, channels=(8, 8), given=3), generator)

    def summed(u, c, given, shown):
        return jnp.sum(net(u, c, given, shown) * weights)

    weights = jnp.asarray(generator.normal(size=60).astype(np.float32))
    u, given = jnp.asarray(generator.normal(size=60).astype(np.float32)), jnp.ones(3)
    slopes = compile_small(jax.grad(summed, (0, 1, 2)))
    along_u, along_c, along_given = slopes(u, jnp.asarray(0.3), given, jnp.asarray(1.0))
    assert (np.asarray(along_u) != 0).all() and float(along_c) != 0 and (np.asarray(along_given) != 0).all()
    hidden = slopes(u, jnp.asarray(0.3), given, jnp.asarray(0.0))[2]
    assert (np.asarray(hidden) == 0).all()  # what is not shown changes nothing


def test_encoder_and_decoder_use_every_weight(seed):
    generator = np.random.default_rng(seed)
    nets = (
        make_encoder((5, 6, 1), 3, generator, channels=(4, 6)),
        make_decoder(3, (5, 6, 1), generator, channels=(6, 4)),
    )
    code = jnp.asarray(generator.normal(size=3).astype(np.float32))

    def loss(nets):
        encoder, decoder = nets
        return jnp.sum(encoder(decoder(code)) * code)

    gradients = compile_small(eqx.filter_grad(loss))(_stirred(nets, generator))
    assert all((np.asarray(leaf) != 0).any() for leaf in jax.tree.leaves(gradients))
