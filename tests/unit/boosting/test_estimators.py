"""What the estimators promise beyond the algorithm."""

import pickle
import warnings

import joblib
import numpy as np
import pandas as pd
import pytest
from scipy import sparse
from sklearn import config_context
from sklearn.base import clone
from sklearn.compose import make_column_transformer
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import check_estimator

from benchmarks.tabular import corrupt, make_tasks
from mtl.boosting import RMTGBClassifier, RMTGBRegressor, growing

QUICK = {"n_gated": 8, "n_task": 5, "max_depth": 3, "random_state": 0}


def regression(seed=0, **options):
    train, test = make_tasks(seed, train=60, test=30, tasks=5, outliers=1, **options)
    return train, test


def classes(train, count=3):
    edges = np.quantile(train.y, np.linspace(0, 1, count + 1)[1:-1])
    return np.array(["low", "middle", "top"])[np.digitize(train.y, edges)]


@pytest.mark.parametrize(
    "estimator",
    [
        RMTGBRegressor(n_gated=10, n_task=5),
        RMTGBRegressor(n_shared=5, n_gated=10, n_task=5, task_column=0),
        RMTGBRegressor(n_gated=10, n_task=5, task_column=-1, early_stopping=True),
        RMTGBRegressor.paper(n_shared=5, n_gated=10, n_task=5, task_column=0),
        RMTGBClassifier(n_gated=10, n_task=5),
        RMTGBClassifier(n_gated=10, n_task=5, task_column=0, task_as_category=True, n_shared=5),
    ],
    ids=["plain", "column", "last_column", "paper", "classifier", "classifier_column"],
)
def test_scikit_learn_checks(estimator):
    skipped = {"check_sample_weight_equivalence_on_dense_data": "held-out rows are drawn"}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        check_estimator(
            estimator,
            expected_failed_checks=skipped if estimator.early_stopping else {},
            on_skip=None,
        )


@pytest.mark.parametrize("make", [RMTGBRegressor, RMTGBClassifier])
def test_copies_predict_the_same(make, tmp_path):
    train, test = regression()
    y = train.y if make is RMTGBRegressor else classes(train)
    model = make(**QUICK).fit(train.x, y, train.task)
    expected = model.predict(test.x, test.task)
    joblib.dump(model, tmp_path / "model.joblib")
    for copy in (
        pickle.loads(pickle.dumps(model)),
        joblib.load(tmp_path / "model.joblib"),
        clone(model).fit(train.x, y, train.task),
    ):
        np.testing.assert_array_equal(copy.predict(test.x, test.task), expected)


def test_a_task_column_is_the_same_as_task_labels():
    train, test = regression()
    names = np.array([f"school {t}" for t in range(5)])
    frame = pd.DataFrame(train.x, columns=list("abcde"))
    frame.insert(2, "school", names[train.task])
    by_label = RMTGBRegressor(**QUICK).fit(train.x, train.y, names[train.task])
    by_column = RMTGBRegressor(**QUICK, task_column="school").fit(frame, train.y)
    by_place = RMTGBRegressor(**QUICK, task_column=-1).fit(
        np.column_stack([train.x, 7 * train.task - 3]), train.y
    )
    expected = by_label.predict(test.x, names[test.task])
    table = pd.DataFrame(test.x, columns=list("abcde"))
    table.insert(2, "school", names[test.task])
    np.testing.assert_array_equal(by_column.predict(table), expected)
    placed = by_place.predict(np.column_stack([test.x, 7 * test.task - 3]))
    np.testing.assert_array_equal(placed, expected)
    np.testing.assert_array_equal(by_column.tasks_, names)


def test_neither_names_nor_order_of_tasks_and_rows_matter():
    train, test = regression()
    order = np.random.default_rng(0).permutation(len(train.y))
    names = np.array(["d", "a", "e", "c", "b"])
    model = RMTGBRegressor(**QUICK).fit(train.x, train.y, train.task)
    other = RMTGBRegressor(**QUICK).fit(train.x[order], train.y[order], names[train.task[order]])
    np.testing.assert_allclose(
        model.predict(test.x, test.task), other.predict(test.x, names[test.task])
    )
    place = [list(other.tasks_).index(name) for name in names]
    np.testing.assert_allclose(other.gate_[place], model.gate_)


@pytest.mark.parametrize("settings", ["default", "paper"])
def test_a_prediction_does_not_depend_on_the_other_rows(settings):
    train, test = regression()
    make = RMTGBRegressor.paper if settings == "paper" else RMTGBRegressor
    model = make(random_state=0).fit(train.x, train.y, train.task)
    together = model.predict(test.x, test.task)
    alone = [model.predict(test.x[i : i + 1], test.task[i : i + 1])[0] for i in range(0, 150, 7)]
    np.testing.assert_allclose(alone, together[::7], rtol=1e-12)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"n_shared": 6, "task_as_category": True},
        {"subsample": 0.6, "max_features": 0.5},
        {"leaf": "paper", "gate_step": "gradient", "init": "zero", "max_depth": 1},
    ],
    ids=str,
)
def test_the_last_stage_is_the_prediction_and_more_iterations_only_add(options):
    train, test = regression()
    settings = {**QUICK, "max_depth_task": 1, **options}
    model = RMTGBRegressor(**settings).fit(train.x, train.y, train.task)
    stages = [stage.copy() for stage in model.staged_predict(test.x, test.task)]
    assert len(stages) == model.n_iter_ == settings.get("n_shared", 0) + 13
    np.testing.assert_allclose(stages[-1], model.predict(test.x, test.task), atol=1e-12)
    longer = RMTGBRegressor(**{**settings, "n_task": 9}).fit(train.x, train.y, train.task)
    for stage, longer_stage in zip(stages, longer.staged_predict(test.x, test.task), strict=False):
        np.testing.assert_allclose(stage, longer_stage, atol=1e-12)


def test_stages_of_probabilities():
    train, test = regression()
    model = RMTGBClassifier(**QUICK).fit(train.x, classes(train), train.task)
    *_, last = model.staged_predict_proba(test.x, test.task)
    np.testing.assert_allclose(last, model.predict_proba(test.x, test.task))
    *_, last = model.staged_predict(test.x, test.task)
    np.testing.assert_array_equal(last, model.predict(test.x, test.task))


def test_the_unit_of_the_target_changes_no_gate():
    train, test = regression()
    model = RMTGBRegressor(**QUICK).fit(train.x, train.y, train.task)
    scaled = RMTGBRegressor(**QUICK).fit(train.x, 100 * train.y + 7, train.task)
    np.testing.assert_allclose(scaled.gate_, model.gate_, rtol=1e-8)
    np.testing.assert_allclose(
        scaled.predict(test.x, test.task), 100 * model.predict(test.x, test.task) + 7, rtol=1e-6
    )


@pytest.mark.parametrize("kind", ["function", "flip", "noise", "adversarial"])
def test_planted_outliers_are_found(kind):
    train, _ = make_tasks(3, kind=kind, noise=0.1, test=1)
    model = RMTGBRegressor(random_state=0, n_task=0).fit(train.x, train.y, train.task)
    np.testing.assert_array_equal(model.outlier_tasks_, np.flatnonzero(train.outlier))
    assert model.outlier_score_[train.outlier].min() > model.outlier_score_[~train.outlier].max()
    assert model.task_weights_[train.outlier].max() < 0.5 < model.task_weights_[0]
    assert model.gate_history_.shape == (model.n_gated_ + 1, 10)
    np.testing.assert_array_equal(model.gate_history_[-1], model.gate_)


@pytest.mark.parametrize("seed", [0, 1])
def test_one_outlier_among_twenty_noisy_tasks_is_found(seed):
    random = np.random.default_rng(seed)
    x, task = random.normal(size=(4000, 4)), random.integers(0, 20, 4000)
    y = np.where(task, 1, -1) * x[:, 0] + x[:, 1] * x[:, 2] + random.normal(size=4000)
    model = RMTGBRegressor(n_task=0, max_depth=4, random_state=seed).fit(x, y, task)
    np.testing.assert_array_equal(model.outlier_tasks_, [0])


def test_tasks_with_shuffled_labels_are_found():
    found = []
    for seed in range(4):
        train, _ = make_tasks(seed, outliers=0, test=1)
        y, spoilt = corrupt(train.y, train.task, fraction=0.2, kind="permute", seed=seed)
        model = RMTGBRegressor(random_state=0, n_task=0).fit(train.x, y, train.task)
        found.append(np.array_equal(np.sort(np.argsort(model.outlier_score_)[-2:]), spoilt))
    assert np.mean(found) >= 0.75


def test_a_duplicated_task_gets_the_same_predictions():
    train, test = regression()
    copy = train.task == 2
    model = RMTGBRegressor(**QUICK, gate_spread=0.0, n_shared=5).fit(
        np.concatenate([train.x, train.x[copy]]),
        np.concatenate([train.y, train.y[copy]]),
        np.concatenate([train.task, np.full(copy.sum(), 99)]),
    )
    rows = test.x[:40]
    np.testing.assert_allclose(
        model.predict(rows, np.full(40, 2)), model.predict(rows, np.full(40, 99)), atol=1e-9
    )


def test_small_and_constant_tasks():
    train, test = regression()
    x = np.concatenate([train.x, test.x[:1], test.x[1:21]])
    y = np.concatenate([train.y, [5.0], np.full(20, 2.0)])
    task = np.concatenate([train.task, [50], np.full(20, 60)])
    for options in ({}, {"early_stopping": True}):
        model = RMTGBRegressor(random_state=0, **options).fit(x, y, task)
        assert np.isfinite(model.predict(x, task)).all()
        assert np.abs(model.predict(x[-20:], task[-20:]) - 2).max() < 1.5
    np.testing.assert_allclose(
        RMTGBRegressor().fit(x, np.full(len(x), 3.0), task).predict(x, task), 3
    )


def test_one_task_is_plain_boosting():
    train, test = regression()
    model = RMTGBRegressor(**QUICK, n_shared=20).fit(train.x, train.y)
    assert len(model.tasks_) == 1
    assert len(model.outlier_tasks_) == 0
    assert model.predict(test.x).shape == (150,)
    assert model.score(train.x, train.y) > 0.5


def test_a_task_with_one_class():
    train, test = regression()
    y = classes(train)
    y[train.task == 1] = "low"
    model = RMTGBClassifier(n_task=30, random_state=0).fit(train.x, y, train.task)
    own = test.task == 1
    probability = model.predict_proba(test.x, test.task)
    np.testing.assert_allclose(probability.sum(1), 1)
    assert (model.predict(test.x[own], test.task[own]) == "low").mean() > 0.9


def test_unseen_tasks_get_what_is_shared():
    train, test = regression()
    model = RMTGBRegressor(**QUICK).fit(train.x, train.y, train.task)
    with pytest.warns(UserWarning, match=r"task\(s\) 77, 78 were not there in fit"):
        unseen = model.predict(test.x[:4], np.array([77, 78, 0, 0]))
    *_, shared = (stage for _, stage in zip(range(8), _stages(model, test.x[:4]), strict=False))
    np.testing.assert_allclose(unseen[:2], shared[:2])
    strict = RMTGBRegressor(**QUICK, unknown_task="error").fit(train.x, train.y, train.task)
    with pytest.raises(ValueError, match="unknown_task='shared'"):
        strict.predict(test.x[:1], [77])
    with pytest.warns(UserWarning, match="'north'"):
        model.predict(test.x[:1], ["north"])


def _stages(model, x):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield from (stage.copy() for stage in model.staged_predict(x, np.full(len(x), 77)))


def test_rows_without_a_task_label_are_a_task():
    train, test = regression()
    labels = np.array([f"t{t}" for t in train.task], dtype=object)
    labels[train.task == 3] = None
    with pytest.warns(UserWarning, match="60 of 300 rows have no task label"):
        model = RMTGBRegressor(**QUICK).fit(train.x, train.y, labels)
    assert model.tasks_[-1] is None
    reference = RMTGBRegressor(**QUICK).fit(train.x, train.y, train.task)
    with pytest.warns(UserWarning, match="no task label"):
        own = model.predict(test.x[:5], [None] * 5)
    np.testing.assert_allclose(own, reference.predict(test.x[:5], np.full(5, 3)))


def test_categories_and_missing_values_of_frames():
    train, _ = regression()
    kind = np.random.default_rng(0).integers(0, 4, len(train.y))
    frame = pd.DataFrame(train.x, columns=list("abcde"))
    frame["kind"] = np.array(["p", "q", "r", "s"])[kind]
    frame["flag"] = pd.Categorical(kind % 2 == 0)
    y = train.y + 3 * np.isin(kind, [0, 2])
    frame.loc[::9, "kind"] = None
    frame.loc[::7, "a"] = np.nan
    model = RMTGBRegressor(n_gated=40, n_task=5, max_depth=3, random_state=0)
    model.fit(frame, y, train.task)
    assert model.score(frame, y, train.task) > 0.8
    new = frame.iloc[:3].copy()
    new["kind"] = ["never seen", None, "p"]
    assert np.isfinite(model.predict(new, train.task[:3])).all()
    codes = np.column_stack([train.x, kind])
    by_place = RMTGBRegressor(**QUICK, categorical_features=[5]).fit(codes, y, train.task)
    by_mask = RMTGBRegressor(**QUICK, categorical_features=[False] * 5 + [True])
    by_mask.fit(codes, y, train.task)
    np.testing.assert_array_equal(
        by_place.predict(codes, train.task), by_mask.predict(codes, train.task)
    )


def test_pipelines_and_searches():
    train, test = regression()
    order = np.random.default_rng(0).permutation(len(train.y))
    frame = pd.DataFrame(train.x, columns=list("abcde")).assign(task=train.task).iloc[order]
    scaled = make_column_transformer(
        (StandardScaler(), list("abcde")), remainder="passthrough"
    ).set_output(transform="pandas")
    pipeline = make_pipeline(scaled, RMTGBRegressor(**QUICK, task_column="remainder__task"))
    search = GridSearchCV(pipeline, {"rmtgbregressor__max_depth": [1, 3]}, cv=3, n_jobs=1)
    search.fit(frame, train.y[order])
    assert search.best_score_ > 0.3
    table = pd.DataFrame(test.x, columns=list("abcde")).assign(task=test.task)
    assert search.predict(table).shape == (150,)


def test_task_labels_are_routed():
    train, _ = regression()
    with config_context(enable_metadata_routing=True):
        model = RMTGBRegressor(**QUICK).set_fit_request(task=True).set_score_request(task=True)
        order = np.random.default_rng(0).permutation(len(train.y))
        search = GridSearchCV(model, {"max_depth": [1, 3]}, cv=3)
        search.fit(train.x[order], train.y[order], task=train.task[order])
    assert search.best_score_ > 0.3


@pytest.mark.parametrize("loss", ["squared_error", "absolute_error", "huber"])
@pytest.mark.parametrize("leaf", ["paper", "newton"])
def test_losses_are_minimized(loss, leaf):
    train, _ = regression()
    y = train.y.copy()
    if loss != "squared_error":
        y[::20] += 50
    few, many = (
        RMTGBRegressor(n_gated=n, n_task=0, loss=loss, leaf=leaf, random_state=0)
        .fit(train.x, y, train.task)
        .predict(train.x, train.task)
        for n in (1, 100)
    )
    clean = np.arange(len(y)) % 20 > 0
    error = np.abs(many - y)[clean].mean()
    assert error < 0.6 * np.abs(few - y)[clean].mean()
    if loss != "squared_error":
        assert error < 0.5


def test_several_outputs_are_weighed_by_their_spread():
    train, test = regression()
    y = np.column_stack([train.y, 1000 * train.x[:, 0], -train.y])
    model = RMTGBRegressor(random_state=0).fit(train.x, y, train.task)
    predicted = model.predict(test.x, test.task)
    assert predicted.shape == (150, 3)
    errors = np.abs(predicted - np.column_stack([test.y, 1000 * test.x[:, 0], -test.y])).mean(0)
    assert (errors < 0.7 * y.std(0)).all()


@pytest.mark.parametrize("refit", [True, False])
def test_every_block_stops_by_itself(refit):
    train, _ = regression(noise=1.0)
    model = RMTGBRegressor(
        n_shared=150,
        n_gated=150,
        n_task=150,
        early_stopping=True,
        n_iter_no_change=5,
        validation_fraction=0.3,
        refit=refit,
        random_state=0,
    ).fit(train.x, train.y, train.task)
    assert 0 < model.n_shared_ < 150
    assert model.n_gated_ < 150
    assert len(set(model.n_task_)) > 1
    assert model.n_task_.max() < 150
    assert model.gate_history_.shape[0] == model.n_gated_ + 1
    assert model.n_iter_ == model.n_shared_ + model.n_gated_ + model.n_task_.max()


def test_weights_count_rows_and_zero_leaves_them_out():
    train, test = regression()
    weight = np.tile([0, 1, 2], 100)
    weighted = RMTGBRegressor(**QUICK).fit(train.x, train.y, train.task, sample_weight=weight)
    repeated = np.repeat(np.arange(300), weight)
    plain = RMTGBRegressor(**QUICK).fit(train.x[repeated], train.y[repeated], train.task[repeated])
    np.testing.assert_allclose(
        weighted.predict(test.x, test.task), plain.predict(test.x, test.task), atol=1e-8
    )


def test_the_work_does_not_grow_with_the_number_of_tasks(monkeypatch):
    random = np.random.default_rng(0)
    x, y = random.normal(size=(4000, 4)), random.normal(size=4000)
    calls = []
    count = np.bincount
    monkeypatch.setattr(
        growing.np, "bincount", lambda *a, **k: (calls.append(1), count(*a, **k))[1]
    )
    seen = []
    for tasks in (4, 1000):
        calls.clear()
        RMTGBRegressor(**QUICK).fit(x, y, np.arange(4000) % tasks)
        seen.append(len(calls))
    assert seen[1] <= seen[0] + 5


def test_inputs_are_not_changed():
    train, _ = regression()
    x, y, task = train.x.copy(), train.y.copy(), train.task.copy()
    for array in (x, y, task):
        array.setflags(write=False)
    RMTGBRegressor(**QUICK).fit(x, y, task).predict(x, task)


def test_gates_are_drawn():
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    train, _ = make_tasks(3, test=1)
    model = RMTGBRegressor(random_state=0, n_task=0).fit(train.x, train.y, train.task)
    ax = model.plot_gates()
    assert len(ax.lines) == 10
    np.testing.assert_array_equal(
        sorted(text.get_text() for text in ax.get_legend().get_texts()), ["8", "9"]
    )
    matplotlib.pyplot.close(ax.figure)


X, Y, T = np.zeros((6, 2)), np.arange(6.0), [0, 0, 0, 1, 1, 1]


@pytest.mark.parametrize(
    ("options", "arguments", "message"),
    [
        ({}, (X, [0, 1, np.nan, 3, 4, 5], T), "NaN"),
        ({}, (X, Y[:5], T), "inconsistent numbers of samples"),
        ({}, (X, Y, T[:4]), "task has 4 labels for 6 rows"),
        ({}, (np.full((6, 2), np.inf), Y, T), "infinity"),
        ({}, (X, Y, np.array([0, "a", 0, 1, 1, 1], dtype=object)), "mix the types int, str"),
        ({"task_column": "school"}, (X, Y), "'school' is no column of X"),
        ({"task_column": "school"}, (pd.DataFrame(X, columns=["a", "b"]), Y), r"\['a', 'b'\]"),
        ({"task_column": 2}, (X, Y), "X has 2 columns"),
        ({"task_column": 0}, (X, Y, T), "both task= and task_column=0"),
        ({"categorical_features": [9]}, (X, Y, T), "there is no feature 9"),
        ({}, (pd.DataFrame({"a": list("abcdef")}).to_numpy(), Y, T), "categorical_features"),
        ({}, (X, Y, T, [-1, 1, 1, 1, 1, 1]), "not be negative"),
        ({"n_gated": -1}, (X, Y, T), "n_gated=-1: expected a whole number from 0"),
        ({"n_task": 1.5}, (X, Y, T), "n_task=1.5"),
        ({"max_depth": 0}, (X, Y, T), "max_depth=0"),
        ({"learning_rate": 0}, (X, Y, T), "learning_rate=0: expected a number above 0"),
        ({"subsample": 1.1}, (X, Y, T), "subsample=1.1"),
        ({"l2": -1}, (X, Y, T), "l2=-1"),
        ({"leaf": "Newton"}, (X, Y, T), "one of 'paper', 'newton'"),
        ({"loss": "hinge"}, (X, Y, T), "loss='hinge'"),
        ({"validation_fraction": 1}, (X, Y, T), "validation_fraction=1"),
    ],
    ids=lambda value: str(value)[:40] if isinstance(value, str | dict) else "",
)
def test_bad_input_is_refused(options, arguments, message):
    with pytest.raises(ValueError, match=message):
        RMTGBRegressor(**options).fit(*arguments)


def test_sparse_input_is_refused_by_name():
    with pytest.raises(TypeError, match=r"got the sparse csr_matrix; pass X\.toarray"):
        RMTGBRegressor().fit(sparse.csr_matrix(X), Y, T)


def test_one_class_is_refused():
    with pytest.raises(ValueError, match="one class only"):
        RMTGBClassifier().fit(X, np.zeros(6), T)


def test_tasks_are_needed_where_they_were_fitted():
    model = RMTGBRegressor(**QUICK).fit(X, Y, T)
    with pytest.raises(ValueError, match="fitted with task="):
        model.predict(X)
    with pytest.raises(ValueError, match="fitted without task="):
        RMTGBRegressor(**QUICK).fit(X, Y).predict(X, T)
