"""What a host callback raises comes out as what it is."""

import jax
import numpy as np
import pytest

from smcdiff.base._callbacks import own_exceptions
from smcdiff.errors import first_line


def double(x, then):
    """2 x, on the host."""

    def host(x):
        then()
        return 2 * np.asarray(x)

    return jax.pure_callback(host, jax.ShapeDtypeStruct((), np.float32), x)


def fail():
    raise KeyError("no such pixel")


def run(then):
    return jax.block_until_ready(jax.jit(lambda x: double(x, then))(np.float32(1.0)))


def test_its_own_exception_and_no_log(capfd):
    with pytest.raises(KeyError, match="no such pixel") as caught:
        with own_exceptions():
            run(fail)
    names = [entry.name for entry in caught.traceback]
    assert "fail" in names  # the line of the user's code
    assert capfd.readouterr().err == ""
    with own_exceptions():
        assert run(lambda: None) == 2.0


def test_other_errors_pass():
    with pytest.raises(ZeroDivisionError):
        with own_exceptions():
            raise ZeroDivisionError
    with pytest.raises(jax.errors.JaxRuntimeError, match="out of memory"):
        with own_exceptions():
            raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: out of memory")


def test_first_line_names_what_the_callback_raised():
    with pytest.raises(jax.errors.JaxRuntimeError) as caught:
        run(fail)
    assert first_line(caught.value) == "KeyError: 'no such pixel'"
