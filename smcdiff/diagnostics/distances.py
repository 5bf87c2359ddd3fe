"""Distances between two sets of pictures by the features of a frozen network.

Both see what the features see, and nothing else: compare numbers only where features, number of
pictures and reference are the same, and print beside them the floor, the distance of two sets of
real pictures of that size.

References:
    Heusel et al. (2017), GANs trained by a two time-scale update rule (the Frechet distance).
    Binkowski et al. (2018), Demystifying MMD GANs (the kernel distance, KID).
"""

from __future__ import annotations

import numpy as np
from jaxtyping import Array, Float

from smcdiff.errors import InputError

_Features = Float[Array, "n d"] | Float[np.ndarray, "n d"]
_Reference = Float[Array, "m d"] | Float[np.ndarray, "m d"]


def frechet_distance(features: _Features, reference: _Reference, num_components: int = 64) -> float:
    """Frechet distance of two sets, each taken for a Gaussian, in the reference's main directions.

    |mean_a - mean_b|^2 + tr(A + B - 2 (A B)^(1/2)), where mean and covariance are of the sets after
    the projection onto the ``num_components`` principal components of the reference.

    It depends on the number of points: two sets of one law are the farther apart the smaller they
    are. Report it with that number, and beside the floor, which is the distance of two sets of
    real pictures as large. It is no FID, which means other features (Inception's 2,048), all of
    them, and mostly 50,000 pictures; never call it so.

    Args:
        features: (n, d), of what is judged.
        reference: (m, d), of real pictures; its components are taken, so that the two sets do not
            change places.
        num_components: fewer than n and than m, and at most d.

    Returns:
        The distance, a square, in squared units of the features; computed in double precision.

    Raises:
        InputError: sets of another form, entries that are not finite, too few points or entries.
    """
    judged, real = _checked("frechet_distance", features, reference)
    largest = min(len(judged) - 1, len(real) - 1, real.shape[1])
    if not 1 <= num_components <= largest:
        raise InputError(
            f"frechet_distance: num_components is {num_components}, and there are {len(judged)} and"
            f" {len(real)} points of {real.shape[1]} entries; give more points, or at most"
            f" {largest} components"
        )
    centre = real.mean(axis=0)
    _, scales, directions = np.linalg.svd(real - centre, full_matrices=False)
    own = (judged - centre) @ directions[:num_components].T
    mean, covariance = own.mean(axis=0), np.atleast_2d(np.cov(own, rowvar=False))
    variances = scales[:num_components] ** 2 / (len(real) - 1)
    # (A B)^(1/2) has the eigenvalues of the symmetric (B^(1/2) A B^(1/2))^(1/2), B diagonal here.
    deviations = np.sqrt(variances)
    inner = np.linalg.eigvalsh(deviations[:, None] * covariance * deviations)
    overlap = np.sqrt(np.maximum(inner, 0.0)).sum()
    return float(mean @ mean + np.trace(covariance) + variances.sum() - 2.0 * overlap)


def kernel_distance(features: _Features, reference: _Reference) -> float:
    """Squared maximum mean discrepancy of two sets by the kernel (x.y / d + 1)^3: KID.

    The unbiased estimate: its mean over sets of any size is that of the laws, 0 where they are one,
    and so it may be negative.

    Args:
        features: (n, d), of what is judged.
        reference: (m, d), of real pictures.

    Returns:
        The estimate; computed in double precision.

    Raises:
        InputError: sets of another form, entries that are not finite, fewer than two points.
    """
    first, second = _checked("kernel_distance", features, reference)
    between = _kernel(first, second).mean()
    return float(_mean_of_pairs(first) + _mean_of_pairs(second) - 2.0 * between)


def _kernel(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return (x @ y.T / x.shape[1] + 1.0) ** 3


def _mean_of_pairs(x: np.ndarray) -> float:
    """Of the kernel, over pairs of two points that are not the same."""
    values = _kernel(x, x)
    return (values.sum() - np.trace(values)) / (len(x) * (len(x) - 1))


def _checked(name: str, *sets: Array | np.ndarray) -> tuple[np.ndarray, ...]:
    """Both sets in double precision."""
    arrays = tuple(np.asarray(points, np.float64) for points in sets)
    shapes = " and ".join(str(points.shape) for points in arrays)
    if any(points.ndim != 2 for points in arrays) or arrays[0].shape[1] != arrays[1].shape[1]:
        raise InputError(f"{name}: the sets have shapes {shapes}; give (n, d) and (m, d)")
    if min(len(points) for points in arrays) < 2 or arrays[0].shape[1] < 1:
        raise InputError(f"{name}: the sets have shapes {shapes}; give two points or more of each")
    for place, points in zip(("first", "second"), arrays, strict=True):
        if not np.isfinite(points).all():
            count = int((~np.isfinite(points).all(axis=1)).sum())
            raise InputError(
                f"{name}: {count} points of the {place} set have entries that are not finite; look"
                " for draws that failed, and leave them out"
            )
    return arrays
