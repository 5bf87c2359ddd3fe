"""The diffusion: noise schedules, reverse kernels and their laws."""
