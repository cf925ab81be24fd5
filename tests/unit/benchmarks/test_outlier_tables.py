"""Tables and plots of the studies with outliers, from made-up runs."""

import matplotlib as mpl
import numpy as np
import pandas as pd
import pytest

from benchmarks.boosting import detection
from benchmarks.tabular import study

mpl.use("Agg")


def network_runs():
    factor = {"ew": 1.0, "group_dro": 3.0, "r_mtgb": 0.5}
    for method, share, seed in [(m, s, i) for m in factor for s in (0.0, 0.2) for i in (0, 1)]:
        errors = [factor[method] * (1 + seed)] * 10
        run = {"case": "noise", "method": method, "share": share, "seed": seed, "errors": errors}
        run["outliers"] = round(10 * share)
        if method == "r_mtgb":
            run |= {"found": [], "exact": share == 0, "auc": 0.75 if share else None}
        yield run


def test_network_errors_are_relative_to_the_same_seed(tmp_path):
    related, found = study.tables(list(network_runs()))
    rows = {row[0]: row[1:] for row in related.rows}
    assert rows["group_dro"] == ["3.00 ± 0.00", "3.00 ± 0.00"]
    assert rows["pcgrad"] == ["-", "-"]
    assert found.rows == [["noise, r_mtgb", "2 of 2", "0.75, 0 of 2"]]
    study.draw(list(network_runs()), tmp_path / "plot.png")
    assert (tmp_path / "plot.png").stat().st_size > 0


@pytest.fixture
def measured(tmp_path, monkeypatch):
    calls = []

    def fit(method, train, test, seed):
        calls.append(method)
        return test.y + 1.0, np.arange(10) if method == "R-MTGB" else None, 1.0

    monkeypatch.setattr(detection, "_fit", fit)
    run = ["run", "--kinds", "flip,noise", "--outliers", "0,2", "--seeds", "0,1"]
    for _ in range(2):
        assert detection.main([*run, "--out", str(tmp_path / "out.csv")]) == 0
    return pd.read_csv(tmp_path / "out.csv"), len(calls)


def test_detection_is_measured_once(measured, tmp_path):
    runs, calls = measured
    assert calls == len(runs) == 2 * 3 * len(detection.METHODS)
    lines = detection.summary(runs).splitlines()
    assert "| flip, R-MTGB | 1.000 ± 0.000 | 1.000 ± 0.000 |" in lines
    assert "| noise, R-MTGB | 2 of 2 | 1.00, 2 of 2 |" in lines
    detection.draw(runs, tmp_path / "plot.png")
    assert (tmp_path / "plot.png").stat().st_size > 0


def test_quality_counts_the_seeds_won():
    pytest.importorskip("lightgbm")
    from benchmarks.boosting import quality

    errors = {"R-MTGB": (1.0, 3.0), "LightGBM + task": (2.0, 2.0)}
    runs = [
        {"data": "exam", "method": method, "seed": seed, "rmse": value}
        for method, values in errors.items()
        for seed, value in enumerate(values)
    ]
    row = quality.summary(pd.DataFrame(runs)).splitlines()[-1]
    assert row.endswith("| +0.0%, best on 1 of 2 |")
