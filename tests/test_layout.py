"""The house: imports go one way, without circles, and names say what is private."""

import ast
import pathlib

import pytest

import smcdiff

ROOT = pathlib.Path(smcdiff.__file__).parent
ORDER = [
    "_version", "errors", "base", "shapes", "text", "operators", "diffusion", "priors", "exact",
    "cascades", "problem", "moves", "twists", "proposals", "smc", "results", "sampler", "networks",
    "diagnostics", "calibration", "store", "training", "cli",
    "__main__",
]  # fmt: skip
"""Each imports from those before it only."""
EXCEPTIONS = {("priors", "store")}  # DiffusionPrior.save, which says why


def _name(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(("smcdiff", *(parts[:-1] if parts[-1] == "__init__" else parts)))


MODULES = {_name(path): path for path in ROOT.rglob("*.py")}


def imported(module):
    """Modules of the package that a module imports, anywhere in its text, those of types too."""
    for node in ast.walk(ast.parse(MODULES[module].read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            names = (f"{node.module}.{alias.name}" for alias in node.names)
            yield from (name if name in MODULES else node.module for name in names)
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def _package(module):
    return module.split(".")[1]


@pytest.mark.parametrize("module", [m for m in MODULES if m != "smcdiff"])
def test_imports_go_one_way(module):
    own = _package(module)
    for name in imported(module):
        if not name.startswith("smcdiff."):
            assert name != "smcdiff", f"{module} imports the whole package"
            continue
        other = _package(name)
        allowed = ORDER.index(other) <= ORDER.index(own) or (own, other) in EXCEPTIONS
        assert allowed, f"{module} imports {name}"


def test_there_is_no_circle():
    """Packages' ``__init__``, which only export, are looked through."""

    def reaches(module, seen):
        for name in imported(module):
            if name in MODULES and MODULES[name].name != "__init__.py":
                assert name not in seen, f"a circle: {' -> '.join([*seen, name])}"
                if name not in done and (_package(module), _package(name)) not in EXCEPTIONS:
                    reaches(name, [*seen, name])
        done.add(module)

    done = set()
    for module, path in MODULES.items():
        if path.name != "__init__.py" and module not in done:
            reaches(module, [module])


def test_private_modules_have_an_underscore():
    """Private is what no ``__init__`` exports and the reference does not name; cli is a program."""
    reference = (ROOT.parent / "docs" / "reference.md").read_text()
    exported = {name for module, path in MODULES.items() if path.name == "__init__.py"
                for name in imported(module)}  # fmt: skip
    for module, path in MODULES.items():
        if path.name == "__init__.py" or path.parent in (ROOT, ROOT / "cli"):
            continue
        is_public = module in exported or f"::: {module}\n" in reference
        assert is_public == (not path.name.startswith("_")), module
