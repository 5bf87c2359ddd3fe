"""JAX on the CPU, with a compilation cache between runs.

Most of the tests' time is the compilation of programs that run for milliseconds, so XLA is told to
spend little on them; an ``XLA_FLAGS`` of the person's own is left alone.
"""

import os
import pathlib

import jaxlib.version

FLAGS = ["--xla_backend_optimization_level=0", "--xla_llvm_disable_expensive_passes=true"]
if jaxlib.version.__version_info__ < (0, 11):  # a flag that XLA does not know ends the process
    FLAGS.append("--xla_cpu_use_fusion_emitters=false")
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("XLA_FLAGS", " ".join(FLAGS))

import jax  # noqa: E402 - reads the environment

CACHE = pathlib.Path(__file__).parents[1] / ".cache" / "jax"
jax.config.update("jax_compilation_cache_dir", str(CACHE))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)

LONGEST = {"test_experiments.py", "test_amortized.py", "test_flow.py", "test_prior.py"}


def pytest_collection_modifyitems(items):
    """The longest files first: a worker takes whole files, and one of these at the end is long."""
    items.sort(key=lambda item: item.path.name not in LONGEST)
