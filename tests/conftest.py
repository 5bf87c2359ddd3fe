"""JAX on the CPU, with a compilation cache between runs.

Most of the tests' time is the compilation of programs that run for milliseconds, so XLA is told to
spend little on them; an ``XLA_FLAGS`` of the person's own is left alone.
"""

import os
import pathlib

import jaxlib.version

FLAGS = [
    "--xla_backend_optimization_level=0",
    "--xla_llvm_disable_expensive_passes=true",
    "--xla_cpu_parallel_codegen_split_count=1",
]
if jaxlib.version.__version_info__ < (0, 11):  # a flag that XLA does not know ends the process
    FLAGS.append("--xla_cpu_use_fusion_emitters=false")
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("XLA_FLAGS", " ".join(FLAGS))

import jax  # noqa: E402 - reads the environment
import jaxtyping  # noqa: E402
import pytest  # noqa: E402

import tests.checker  # noqa: E402, F401 - pyproject.toml names it, and jaxtyping does not import it

jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_traceback_in_locations_limit", 0)  # half a millisecond per operation
CACHE = pathlib.Path(__file__).parents[1] / ".cache" / "jax"
jax.config.update("jax_compilation_cache_dir", str(CACHE))
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)

LONGEST = {"test_experiments.py", "test_amortized.py", "test_flow.py", "test_prior.py"}


def pytest_configure(config):
    """Small runs of tests degenerate; here, since pytest.ini would import JAX before its flags."""
    config.addinivalue_line("filterwarnings", "ignore::smcdiff.errors.DegeneracyWarning")


def pytest_collection_modifyitems(items):
    """The longest files first: a worker takes whole files, and one of these at the end is long."""
    items.sort(key=lambda item: item.path.name not in LONGEST)


@pytest.fixture(autouse=True, scope="module")
def programs_of_one_file():
    """Compiled programs go with their file: kept, they grow to gigabytes and slow the rest down."""
    yield
    jax.clear_caches()


@pytest.fixture
def unchecked():
    """As a person runs the package, without the checker: for errors about wrong types."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


@pytest.fixture
def broadcasting():
    """As a person runs JAX, whose models may broadcast."""
    with jax.numpy_rank_promotion("allow"):
        yield
