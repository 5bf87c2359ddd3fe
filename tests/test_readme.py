"""The README: short, its Python runs at a small size, and it has two set-up commands."""

import re
from pathlib import Path

import pytest

README = (Path(__file__).parents[1] / "README.md").read_text()


def test_it_is_short():
    assert len(README.encode()) <= 6000


@pytest.mark.slow
def test_python_snippets_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code = "\n".join(re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL))
    assert code.count("SMC(") == 1
    code = re.sub(r"num_particles=\d+", "num_particles=8", code)
    code = re.sub(r"num_steps=\d+", "num_steps=4", code)
    names = {}
    exec(compile(code, "README.md", "exec"), names)
    assert names["draws"]["x"].shape == (16, 28, 28, 1)
    assert (tmp_path / "posterior.nc").exists()


def test_two_set_up_commands():
    commands = re.findall(r"^    (python3 -m venv .*)$", README, flags=re.MULTILINE)
    assert len(commands) == 2
    assert commands[0].endswith("smcdiff solve inpaint") and commands[1].endswith("pytest")


def test_pictures_and_commands_exist():
    root = Path(__file__).parents[1]
    for path in re.findall(r"!\[[^]]*\]\(([^)]+)\)", README):
        assert (root / path).is_file(), path
    for path in re.findall(r"python (experiments/\S+\.py)", README):
        assert (root / path).is_file(), path
