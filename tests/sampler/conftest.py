"""What the tests of this folder share."""

import jax.monitoring
import pytest


@pytest.fixture
def compilations():
    """How many programs XLA has compiled since the test began."""
    durations = []

    def listen(event, duration, **_):
        if event == "/jax/core/compile/backend_compile_duration":
            durations.append(duration)

    jax.monitoring.register_event_duration_secs_listener(listen)
    yield durations
    jax.monitoring.unregister_event_duration_listener(listen)
