"""Mean and standard deviation over finished runs."""

import statistics

from mtl.report import Results
from scripts.summary import main


def write(folder, seed, value, **changes):
    folder.mkdir(parents=True)
    fields = {
        "dataset": "toy",
        "balancer": "ew",
        "seed": seed,
        "protocol": "abc",
        "metrics": {"a": {"error": value, "loss": 9.0}, "b": {"error": 2 * value, "loss": 9.0}},
        "higher_is_better": {"a": {"error": False}, "b": {"error": False}},
        "delta_p": -value,
    }
    Results(**{**fields, **changes}).write(folder)


def test_mean_and_spread(tmp_path, capsys):
    values = [0.5, 0.7, 0.6]
    for seed, value in enumerate(values):
        write(tmp_path / str(seed), seed, value)
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "metrics.json").write_text("{")
    assert main([str(tmp_path)]) == 0
    printed = capsys.readouterr()
    assert f"{statistics.mean(values):.4g}" in printed.out
    assert f"{statistics.stdev(values):.4g}" in printed.out
    assert "loss" not in printed.out
    assert "Left out" in printed.err


def test_nothing_there(tmp_path, capsys):
    assert main([str(tmp_path)]) == 2
    assert "No finished run" in capsys.readouterr().err
