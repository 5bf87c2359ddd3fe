"""The sampler: a problem, a proposal and the particle filter put together."""
