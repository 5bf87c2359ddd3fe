"""Types of what a person writes as 0.5, and a trace holds as an array."""

from __future__ import annotations

from jaxtyping import Array, Float

Scalar = Float[Array, ""] | float
Values = Float[Array, "*steps"] | float
"""One per noise level."""
