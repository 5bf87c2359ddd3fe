"""What a function reads besides its arguments, as a part of the key of compiled programs.

``jax.jit`` keeps one program for a function and the shapes of its arguments. A global, a closure or
an attribute that the function reads is a constant of that program: after the user has changed it,
the old value would still be there, silently. So the functions that users write, the likelihood and
a denoiser that is a plain function, are traced at every run, and what the trace holds is their key:
every equation, of nested functions too, with the constants in it. A change compiles again.

Host callbacks, and whatever else an equation holds that is no number, are compared as Python
compares them; of functions, what they run (their code) and the very objects that they close over.
What cannot be traced equals nothing, not even itself the next time.
"""

from __future__ import annotations

import dataclasses
import dis
import hashlib
import types
from collections.abc import Callable, Hashable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr, Literal

from smcdiff.problem._arguments import check_concrete


@dataclasses.dataclass(frozen=True)
class ProgramKey:
    """Equal for two traces that make the same program.

    Attributes:
        digest: hash of the equations and their constants.
        objects: what can only be compared, and not written down; kept alive by the key, so that no
            later object takes an identity of theirs.
    """

    digest: str
    objects: tuple[Hashable, ...]

    @property
    def is_traced(self) -> bool:
        """Whether the function could be traced."""
        return bool(self.digest)

    @property
    def fingerprint(self) -> str:
        """The same in another process: of the objects, their code or values, or else their class.

        What an object of somebody's class holds is not seen, such as the weights of another
        framework's network. What was not traced equals nothing.
        """
        if not self.is_traced:
            return f"untraced-{id(self)}"
        digest = hashlib.sha256(self.digest.encode())
        for part in self.objects:
            digest.update(_content(part))
        return digest.hexdigest()[:16]


def program_key(function: Callable, *args: Any) -> ProgramKey:
    """The key of a function.

    Args:
        function: what is traced; its arguments are variables of the trace and do not count.
        *args: arguments, or their shapes.
    """
    try:
        closed = jax.make_jaxpr(function)(*args)
    except Exception:  # a user's function may raise anything; the checks report it
        return ProgramKey("", (object(),))
    reader = _Reader()
    reader.read(closed)
    return ProgramKey(reader.digest.hexdigest(), tuple(reader.objects))


class _Reader:
    """Walks a trace and puts everything into a hash, or into the list of objects."""

    def __init__(self) -> None:
        self.digest = hashlib.sha256()
        self.objects: list[Hashable] = []
        self._names: dict[Any, int] = {}

    def read(self, value: Any) -> None:
        """Adds a part of a trace."""
        if isinstance(value, (ClosedJaxpr, Jaxpr)):  # one class, from JAX 0.11
            self._equations(value.jaxpr if isinstance(value, ClosedJaxpr) else value)
            self.read(list(getattr(value, "consts", ())))
        elif isinstance(value, (jax.Array, np.ndarray, np.generic)):
            self._array(value)
        elif isinstance(value, (tuple, list)):
            self._write(f"{type(value).__name__}{len(value)}")
            for part in value:
                self.read(part)
        elif isinstance(value, dict):
            self.read(sorted(value.items(), key=lambda item: str(item[0])))
        elif value is None or isinstance(value, (bool, int, float, complex, str, bytes, np.dtype)):
            self._write(f"{type(value).__name__} {value!r}")
        else:
            self._object(value)

    def _write(self, text: str) -> None:
        self.digest.update(text.encode() + b"\0")

    def _array(self, value: Any) -> None:
        check_concrete(value)
        array = np.asarray(_readable(value))
        self._write(f"array {array.dtype} {array.shape}")
        self.digest.update(array.tobytes())

    def _equations(self, jaxpr: Jaxpr) -> None:
        self._variables([*jaxpr.constvars, *jaxpr.invars])
        for equation in jaxpr.eqns:
            self._write(equation.primitive.name)
            self._variables(equation.invars)
            for name, value in sorted(equation.params.items()):
                if name not in _RULES:
                    self._write(name)
                    self.read(value)
            self._variables(equation.outvars)
        self._variables(jaxpr.outvars)

    def _variables(self, variables: Any) -> None:
        for variable in variables:
            if isinstance(variable, Literal):
                self.read(variable.val)
                continue
            self._write(str(self._names.setdefault(variable, len(self._names))))
            self._write(str(variable.aval))

    def _object(self, value: Any) -> None:
        """Adds something that has no text of its own: a function, a mesh, a callback."""
        self._write(f"object of {type(value).__name__}")
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            for field in dataclasses.fields(value):
                self.read(getattr(value, field.name))
            return
        for part in _identities(value):
            try:
                hash(part)
            except TypeError:
                part = _Itself(part)
            self.objects.append(part)


_RULES = {"jvp_jaxpr_fun", "jvp_jaxpr_thunk", "fwd_jaxpr_thunk", "bwd", "out_trees"}
"""Derivative rules of functions that have their own: made anew at every trace. The key is that of a
trace that takes the gradient too, where there is one, and so has their equations."""


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class _Itself:
    """An object that cannot be hashed, compared by identity."""

    value: Any

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Itself) and self.value is other.value

    def __hash__(self) -> int:
        return id(self.value)


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class _Globals(_Itself):
    """The globals of a function, and the names of those that it reads and does not write."""

    names: tuple[str, ...]

    @classmethod
    def of(cls, function: types.FunctionType) -> _Globals:
        used: dict[str, set[str]] = {"LOAD_GLOBAL": set(), "STORE_GLOBAL": set()}
        for instruction in dis.get_instructions(function.__code__):
            used.get(instruction.opname, set()).add(instruction.argval)
        names = used["LOAD_GLOBAL"] - used["STORE_GLOBAL"]
        return cls(function.__globals__, tuple(sorted(names & function.__globals__.keys())))


def _readable(array: Any) -> Any:
    """The array; of typed random keys, their data."""
    is_key = jnp.issubdtype(array.dtype, jax.dtypes.prng_key)
    return jax.random.key_data(array) if is_key else array


def _content(part: Any) -> bytes:
    """What is known of an object beyond this process."""
    if isinstance(part, _Globals):
        return b"".join(_content(part.value[name]) for name in part.names)
    if isinstance(part, _Itself):
        return _content(part.value)
    if isinstance(part, types.FunctionType):
        return _content(part.__code__)
    if isinstance(part, types.CodeType):
        constants = [_content(c) for c in part.co_consts if not isinstance(c, str)]
        return b"".join([part.co_code, repr(part.co_names).encode(), *constants])
    if isinstance(part, (jax.Array, np.ndarray, np.generic)):
        return np.asarray(_readable(part)).tobytes()
    if isinstance(part, (bool, int, float, complex, str, bytes, type(None))):
        return repr(part).encode()
    return type(part).__qualname__.encode()


def _identities(value: Any) -> Iterator[Any]:
    """What decides whether two objects do the same.

    A function that is written inside a model is another object at every trace: it does the same
    if it has the same code and reads the same globals, defaults and closed-over objects.
    """
    if not isinstance(value, types.FunctionType):
        yield value
        return
    yield value.__code__
    yield _Globals.of(value)
    defaults = (*(value.__defaults__ or ()), *(value.__kwdefaults__ or {}).values())
    for part in (*(cell.cell_contents for cell in value.__closure__ or ()), *defaults):
        yield from _identities(part)
