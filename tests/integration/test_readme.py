"""What the README shows is run as it stands there."""

import os
import re
import shlex
import subprocess
import sys
import warnings

import pytest
import torch

from tests.support import PRESETS, ROOT

README = (ROOT / "README.md").read_text()


def block(label):
    """The code block that follows `<!-- test: label -->`."""
    match = re.search(rf"<!-- test: {re.escape(label)} -->\n```\w+\n(.*?)```", README, re.DOTALL)
    assert match, label
    return match[1]


def test_python_snippets(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Lightning's advice on loader workers
        exec(block("lightning"), names)
    trained = {k: v.clone() for k, v in names["model"].state_dict().items()}
    assert names["module"].report.weights is not None
    exec(block("loop"), names)
    changed = names["model"].state_dict()
    assert all(not torch.equal(trained[name], changed[name]) for name in trained)
    assert sum(bool(line.strip()) for line in block("lightning").splitlines()) <= 18


def test_a_balancer_of_ones_own(tmp_path):
    (tmp_path / "my_methods.py").write_text(block("my_methods.py"))
    command = shlex.split(block("command"))
    assert command[:2] == ["python", "train.py"]
    result = subprocess.run(
        [sys.executable, str(ROOT / "train.py"), *command[2:], "debug=fast"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert "A step takes 1 backward pass" in result.stdout
    assert "delta_p" in result.stdout


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_has_a_row(name):
    assert f"| `{name}` |" in README


def test_every_data_set_has_a_row():
    for path in (ROOT / "configs" / "dataset").glob("*.yaml"):
        assert f"| `{path.stem}` |" in README
