"""Operators and compositions of them, small; odd and even sizes, one channel and three."""

import jax
import jax.numpy as jnp
import numpy as np

from smcdiff import operators

RNG = np.random.default_rng(0)
BOX = np.zeros((6, 4, 3), bool)
BOX[1:5, ::2, [0, 2]] = True
SPOTS = RNG.random((6, 4, 3)) < 0.4
PIXELS = RNG.random((6, 5)) < 0.5
NOISE = RNG.random(SPOTS.sum()) * RNG.choice([-1.0, 0.0, 1.0], SPOTS.sum())
PERMUTED = operators.Mask(RNG.permutation(72), (6, 4, 3))

# Coefficients: all; pairs, single ones and some with -k = k (0, 0 and 3, 0 and 0, 2); no pairs.
PAIRS = np.zeros((6, 4), bool)
PAIRS[0, [0, 1, 3]] = PAIRS[3, :2] = PAIRS[1, 1] = PAIRS[5, 3] = PAIRS[2, 2] = PAIRS[0, 2] = True
SINGLE = np.zeros((5, 6), bool)
SINGLE[1, :3] = SINGLE[2, 4] = True
NARROW = np.array([[0.0, 2.0, 0.0], [-1.0, 3.0, 0.5], [0.0, 0.0, 1.0]])
MEANS = np.full((1, 3), 1.0 / 3.0)  # its transfer function has zeros on six columns

BLUR = operators.GaussianBlur((6, 4, 3), 1.2)
BLOCKS = operators.BlockDownsample((6, 4, 3), 2)
GREY = operators.ColourMix.grey((6, 4, 3))
MIX = operators.ColourMix(RNG.normal(size=(2, 3)), (6, 4, 3))
CIRCULAR = operators.Convolution((6, 4, 3), NARROW, circular=True)
ODD = operators.Convolution((5, 7), RNG.normal(size=(5, 3)), circular=True)
FOURIER = operators.MaskedFourier.of(PAIRS, (6, 4, 3))
ALONE = operators.MaskedFourier.of(SINGLE, (5, 6))
SEPARABLE = operators.Separable((6, 4, 3), RNG.normal(size=(7, 6)), RNG.normal(size=(2, 4)))
RANK_ONE = operators.Separable((4, 4), np.ones((4, 4)), np.diag([2.0, 0.0, 2.0, 1.0]))


def _factor(operator):
    """Standard deviations, some of them negative, some zero."""
    size = operator.out_shape
    return np.random.default_rng(1).random(size) * np.random.default_rng(2).choice([-1, 0, 1], size)


STRUCTURED = {
    "mask": operators.Mask.of(SPOTS),
    "mask, nothing hidden": operators.Mask.of(np.ones((3, 2))),
    "mask, permutation": PERMUTED,
    "mask, channels": operators.Mask.channels((6, 4, 3), [1, 0, 1]),
    "mask, random": operators.Mask.random(jax.random.key(3), (6, 4, 3), 0.4),
    "reshape": operators.Reshape((6, 4), (8, 3)),
    "blur": BLUR,
    "blur, two axes": operators.GaussianBlur((7, 4), 0.7),
    "blocks": BLOCKS,
    "blocks, one channel": operators.BlockDownsample((6, 4, 1), 2),
    "bicubic": operators.BicubicDownsample((6, 4, 3), 2),
    "grey": GREY,
    "mix": MIX,
    "mix of a vector": operators.ColourMix(np.ones((2, 3)), (3,)),
    "separable": SEPARABLE,
    "separable, zero and repeated values": RANK_ONE,
    "kronecker": operators.Kronecker((None, RNG.normal(size=(3, 4)), None, None), (2, 4, 1, 2)),
    "kronecker, identity": operators.Kronecker((None, None), (2, 3)),
    "circular": CIRCULAR,
    "circular, odd": ODD,
    "circular, zeros": operators.Convolution((5, 6), MEANS, circular=True),
    "circular, one column": operators.Convolution((4, 1), NARROW[:, 1:2], circular=True),
    "fourier": FOURIER,
    "fourier, odd": operators.MaskedFourier.of(RNG.random((5, 7)) < 0.4, (5, 7)),
    "fourier, all": operators.MaskedFourier.of(np.ones((5, 4)), (5, 4)),
    "fourier, no pairs": ALONE,
    "fourier of circular": FOURIER @ CIRCULAR,
    "fourier of circular twice": FOURIER @ CIRCULAR @ CIRCULAR,
    "fourier of circular, no pairs": ALONE
    @ operators.Convolution((5, 6), NARROW[:, ::-1], circular=True),
    "fourier of zeros": operators.MaskedFourier.of(np.ones((5, 6)), (5, 6))
    @ operators.Convolution((5, 6), MEANS, circular=True),
    "all fourier of a blur": operators.MaskedFourier.of(np.ones((6, 4)), (6, 4, 3)) @ BLUR,
    "circular twice": ODD @ ODD,
    "circular three times": CIRCULAR @ (CIRCULAR @ CIRCULAR),
    "grey of blur": GREY @ BLUR,
    "blocks of mix of blur": operators.BlockDownsample((6, 4, 2), 2) @ MIX @ BLUR,
    "blur of reshape": BLUR @ operators.Reshape((72,), (6, 4, 3)),
    "blur of permutation": BLUR @ operators.Reshape((72,), (6, 4, 3)) @ PERMUTED,
    "blur of what is not hidden": operators.GaussianBlur((4, 2), 1.0)
    @ operators.Reshape((8,), (4, 2))
    @ operators.Mask(np.arange(8) * 3, (6, 4)),
    "reshape of grey": operators.Reshape((6, 4, 1), (6, 4)) @ GREY,
    "permutation of blur": PERMUTED @ BLUR,
    "permutation of fourier": operators.Mask(RNG.permutation(54), FOURIER.out_shape) @ FOURIER,
    "mask of grey": operators.Mask.of(SPOTS[..., :1]) @ GREY,
    "mask of blocks": operators.Mask.of(SPOTS[:3, :2]) @ BLOCKS,
    "mask of grey blocks": operators.Mask.of(SPOTS[:3, :2, :1])
    @ operators.BlockDownsample((6, 4, 1), 2)
    @ GREY,
    "mask of reshape of grey of permutation": operators.Mask.of(SPOTS[:, :, 0])
    @ (
        operators.Reshape((6, 4, 1), (6, 4))
        @ (GREY @ (operators.Reshape((72,), (6, 4, 3)) @ PERMUTED))
    ),
    "mask of mask": operators.Mask([4, 1, 2], (int(SPOTS.sum()),)) @ operators.Mask.of(SPOTS),
    "box of blur": operators.Mask.of(BOX) @ BLUR,
    "box of mix": operators.Mask.of(BOX[..., :2]) @ MIX,
    "channels of blur": operators.Mask.channels((6, 4, 3), [0, 1, 1]) @ BLUR,
    "rows, turned, of separable": operators.Mask(np.arange(42).reshape(7, 6)[::-2].ravel(), (7, 6))
    @ operators.Reshape((7, 2, 3), (7, 6))
    @ SEPARABLE,
    "mask of fourier": operators.Mask.of(RNG.random(FOURIER.out_shape) < 0.5) @ FOURIER,
    "mask of fourier, no pairs": operators.Mask.of(RNG.random(ALONE.out_shape) < 0.5) @ ALONE,
    "mask of fourier of circular": operators.Mask.of(RNG.random(FOURIER.out_shape) < 0.5)
    @ (FOURIER @ CIRCULAR),
    "scaled mask": NOISE * operators.Mask.of(SPOTS),
    "scaled blur": -0.5 * BLUR,
    "nothing": 0.0 * BLUR,
    "scaled twice": 2.0 * (_factor(BLOCKS) * BLOCKS),
    "scaled grey": operators.Scaled(GREY, _factor(GREY)),
    "scaled reshape of grey": operators.Scaled(
        operators.Reshape((6, 4, 1), (6, 4)) @ GREY, np.arange(24.0).reshape(6, 4) - 5.0
    ),
    "scaled fourier": operators.Scaled(FOURIER, _factor(FOURIER)),
    "scaled fourier, no pairs": operators.Scaled(ALONE, _factor(ALONE)),
    "scaled fourier of circular": _factor(FOURIER) * (FOURIER @ CIRCULAR),
    "scaled reshape of fourier": np.arange(54.0)
    * (operators.Reshape(FOURIER.out_shape, (54,)) @ FOURIER),
    "scaled permutation of fourier": np.arange(54.0)
    * (operators.Mask(RNG.permutation(54), FOURIER.out_shape) @ FOURIER),
    "mask of scaled grey": operators.Mask.of(SPOTS[..., :1]) @ (_factor(GREY) * GREY),
    "scaled mask of scaled grey": (
        np.linspace(-1.0, 1.0, 24) * operators.Mask(range(24), (6, 4, 1))
    )
    @ (_factor(GREY) * GREY),
    "blur of scaled mask": operators.GaussianBlur((4, 2), 1.0)
    @ operators.Reshape((8,), (4, 2))
    @ (3.0 * operators.Mask(np.arange(8) * 3, (6, 4))),
    "stacked masks": operators.Stacked(
        [operators.Mask([3, 1], (2, 3)), -2.0 * operators.Mask([0], (2, 3))]
    ),
    "stacked masks that overlap": operators.Stacked(
        [
            operators.Mask([3, 1], (2, 3)),
            np.array([2.0, 0.0, 0.0]) * operators.Mask([5, 3, 4], (2, 3)),
            0.5 * operators.Reshape((2, 3), (6,)),
        ]
    ),
    "stacked one": operators.Stacked([0.5 * BLUR]),
    "scaled stack": np.arange(5.0)
    * operators.Stacked([operators.Mask([3, 1], (2, 3)), operators.Mask([0, 1, 2], (2, 3))]),
    "mask of a stack": operators.Mask([0, 2, 4], (5,))
    @ operators.Stacked([operators.Mask([3, 1], (2, 3)), operators.Mask([0, 4, 2], (2, 3))]),
}

DENSE = {
    "dense": operators.Dense(jax.random.normal(jax.random.key(0), (3, 5))),
    "dense, tall, of an image": operators.Dense(jnp.ones((7, 6)), (2, 3), (7, 1)),
    "convolution": operators.Convolution((6, 4, 3), jnp.arange(15.0).reshape(5, 3)),
    "motion": operators.MotionBlur((6, 5, 1), 2.0, 30.0),
    "mask of blur": operators.Mask.of(SPOTS) @ BLUR,
    "mask of convolution": operators.Mask.of(PIXELS) @ operators.Convolution((6, 5), NARROW),
    "fourier of a blur": FOURIER @ BLUR,
    "dense of reshape": operators.Dense(jnp.ones((2, 6))) @ operators.Reshape((2, 3), (6,)),
    "scaled dense": 2.0 * operators.Dense([[1.0, 2.0], [0.0, 1.0]]),
    "noise of a blur": operators.Scaled(operators.GaussianBlur((3, 3), 1.0), np.ones((3, 3))),
    "stacked": operators.Stacked([operators.Mask([3, 1], (6, 4, 3)), GREY]),
    "scaled stack of others": np.arange(26.0)
    * operators.Stacked([operators.Mask([3, 1], (6, 4, 3)), GREY]),
}

OPERATORS = STRUCTURED | DENSE
