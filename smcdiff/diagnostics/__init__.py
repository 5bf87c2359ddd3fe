"""Diagnostics of weighted posteriors, and the metrics of the experiments."""
