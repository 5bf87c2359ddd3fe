"""The functions of ArviZ whose names differ between 0.23 (Python 3.11) and 1.x."""

import arviz

IS_1 = int(arviz.__version__.split(".")[0]) >= 1


def elpd(loo):
    return float(loo.elpd if IS_1 else loo.elpd_loo)


def plot_ppc(data, draws):
    """Replications over the data."""
    if IS_1:
        return arviz.plot_ppc_dist(data, num_samples=draws)
    return arviz.plot_ppc(data, num_pp_samples=draws)


def plot_prior_ppc(data, draws):
    if IS_1:
        return arviz.plot_ppc_dist(data, group="prior_predictive", num_samples=draws)
    return arviz.plot_ppc(data, group="prior", num_pp_samples=draws)


def plot_prior_posterior(data, name):
    """Prior and posterior of a site in one picture."""
    if IS_1:
        return arviz.plot_prior_posterior(data, var_names=[name])
    return arviz.plot_dist_comparison(data, var_names=[name])
