"""Flax networks. They know nothing of inference."""
