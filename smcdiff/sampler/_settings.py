"""The settings of `SMC`, checked before anything runs."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float, Key

from smcdiff.diffusion.kernels import Kernel
from smcdiff.diffusion.schedules import Grid, Level, UniformLogSNR
from smcdiff.errors import InputError
from smcdiff.moves import Move
from smcdiff.priors import Prior
from smcdiff.problem._arguments import check_concrete
from smcdiff.proposals import Proposal
from smcdiff.smc import ParticleFilter, default_mesh, resampling

_MOST = 2**31 - 1
"""Largest count: indices have 32 bits."""
ThresholdOfLevel = Callable[[Float[Array, " steps"]], Float[Array, " steps"]]


@dataclasses.dataclass(frozen=True)
class Settings:
    """What `SMC` was given; see there.

    Raises:
        InputError: a setting out of range or of another kind.
    """

    proposal: Proposal | None
    num_particles: int
    num_steps: int
    num_chains: int
    resampling: Any
    ess_threshold: float | ThresholdOfLevel
    weighted: bool
    batch_size: int | None
    kernel: Kernel | None
    grid: Grid | None
    linear: bool | None
    store_ancestors: bool
    mesh: Mesh | None
    move: Move | None

    def __post_init__(self):
        for name, least in (("num_particles", 1), ("num_chains", 1), ("num_steps", 2)):
            self._set(name, whole_number(name, getattr(self, name), least))
        if self.batch_size is not None:
            self._set("batch_size", whole_number("batch_size", self.batch_size, 1))
        for name in ("weighted", "store_ancestors"):
            self._set(name, flag(name, getattr(self, name)))
        if self.linear is not None:
            self._set("linear", flag("linear", self.linear))
        self._check_threshold()
        for name, kind, example in (
            ("proposal", Proposal, "proposals.Twisted()"),
            ("kernel", Kernel, "kernels.DDIM()"),
            ("grid", Grid, "schedules.Karras()"),
            ("move", Move, "moves.HMC()"),
        ):
            value = getattr(self, name)
            if value is not None and not isinstance(value, kind):
                raise InputError(
                    f"SMC: {name} is {value!r}; pass an object of smcdiff, for example {example}"
                )
        self._set("resampling", resampling.get(self.resampling))

    def _set(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)

    def _check_threshold(self) -> None:
        threshold = self.ess_threshold
        if callable(threshold):
            return
        is_number = isinstance(threshold, (int, float, np.number)) and not _is_flag(threshold)
        if not (is_number and 0.0 <= threshold <= 1.0):
            raise InputError(
                f"SMC: ess_threshold is {threshold!r}; it must lie in [0, 1], or be a function of"
                " the log-SNR"
            )
        self._set("ess_threshold", float(threshold))

    def described(self) -> dict[str, str]:
        """The settings on which results depend, in words."""
        fields = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {
            name: getattr(value, "__qualname__", brief(value)) for name, value in fields.items()
            if name not in ("batch_size", "mesh")
        }  # fmt: skip

    def grid_for(self, prior: Prior, proposal: Proposal) -> Grid:
        """The grid that the user named, or the one that suits the prior and the proposal."""
        if self.grid is not None:
            return self.grid
        return proposal.default_grid(prior) if self.weighted else UniformLogSNR()

    def filter(self, levels: Level, num_items: int = 1) -> ParticleFilter:
        """The particle filter of `SteeredDiffusion`, whose first step makes blank particles.

        Args:
            levels: of the grid.
            num_items: problems that run side by side, each with its own chains.
        """
        chains = self.num_chains * num_items
        mesh = default_mesh(self.num_particles, chains) if self.mesh is None else self.mesh
        return ParticleFilter(
            self.num_particles, chains, self.resampling, self._thresholds(levels), self.weighted,
            self.batch_size, self.store_ancestors, mesh,
        )  # fmt: skip

    def _thresholds(self, levels: Level) -> float | Float[Array, " steps"]:
        """A fraction for each step of the filter, by the level that the step leaves."""
        if not callable(self.ess_threshold):
            if self.ess_threshold < 1.0:
                return self.ess_threshold
            # "Always" begins where there are particles to resample.
            return jnp.ones(levels.time.shape[0] + 1).at[:2].set(0.0)
        log_snr = levels.log_snr[:-1]
        fractions = jnp.broadcast_to(self.ess_threshold(log_snr), log_snr.shape)
        if not bool(jnp.all((fractions >= 0.0) & (fractions <= 1.0))):
            raise InputError("SMC: ess_threshold gives values outside [0, 1]")
        return jnp.concatenate([jnp.zeros(2), fractions]).astype(log_snr.dtype)


def brief(part: Any) -> str:
    """How an object is written; of one that holds a network's weights, its type alone."""
    text = repr(part)
    return text if len(text) <= 300 else f"{type(part).__name__}(...)"


def _is_flag(value: Any) -> bool:
    return isinstance(value, (bool, np.bool_))


def flag(name: str, value: Any, caller: str = "SMC") -> bool:
    """A switch that the user gave; else ``InputError`` names the caller."""
    if not _is_flag(value):
        raise InputError(f"{caller}: {name} is {value!r}; it must be True or False")
    return bool(value)


def whole_number(name: str, value: Any, least: int, caller: str = "SMC") -> int:
    """A count that the user gave, of at least ``least``; else ``InputError`` names the caller."""
    if not isinstance(value, (int, np.integer)) or _is_flag(value) or value > _MOST:
        raise InputError(
            f"{caller}: {name} is {value!r}; it must be a whole number, at most {_MOST}"
        )
    if value < least:
        why = "; a time grid needs at least 2 steps" if name == "num_steps" else ""
        raise InputError(f"{caller}: {name} is {value}; it must be at least {least}{why}")
    return int(value)


def typed_key(key: Any, caller: str = "SMC") -> Key[Array, ""]:
    """One random key, typed, from a typed one or the data of ``jax.random.PRNGKey``.

    Args:
        key: what the user gave.
        caller: whom the message names.

    Raises:
        InputError: anything else, or a key that is being traced.
    """
    check_concrete(key)
    is_key = hasattr(key, "dtype") and jnp.issubdtype(key.dtype, jax.dtypes.prng_key)
    is_data = hasattr(key, "dtype") and key.dtype == jnp.uint32
    if not (is_key and key.shape == ()) and not (is_data and key.ndim == 1):
        raise InputError(
            f"{caller}: the random key is {key!r}; pass jax.random.key(0), for example"
        )
    return key if is_key else jax.random.wrap_key_data(key)
