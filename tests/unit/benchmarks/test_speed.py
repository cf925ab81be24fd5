"""What the speed benchmarks count and write; what they measure is for the benchmarks to say."""

import re
import sys

import pytest
import torch

from benchmarks.speed import __main__ as command
from benchmarks.speed import costs
from benchmarks.speed.combine import _combine
from benchmarks.speed.costs import COLUMNS, UNKNOWN, cells, fill
from benchmarks.speed.memory import beyond_equal_weighting, peak_bytes
from benchmarks.speed.methods import combiners_of_rows, preset, preset_names
from benchmarks.speed.networks import NETWORKS, mlp, wide_cnn
from benchmarks.speed.parts import parts
from benchmarks.speed.rep_mtl import PROBLEMS, convolutional_head, problem
from benchmarks.speed.tables import Table, rewrite, section
from benchmarks.speed.timing import Ratio, Times, interleave
from mtl.linalg import gramian
from mtl.models import UNet
from tests.support import PRESETS, ROOT

README = (ROOT / "README.md").read_text()
DOCUMENT = (ROOT / "docs" / "speed.md").read_text()
METHODS = section(README, "costs")[0].strip("\n")
FIGURE = re.compile(r"\d+\.\d+ / \d+\.\d+ / \d+ P")
PASSES = re.compile(r"(\d+|(\d+ )?T)( [+-] \d+)?(, .* forward)?")


def test_presets_are_those_of_the_configurations():
    assert preset_names() == PRESETS


# --------------------------------------------------------------------------------- method table


def test_every_preset_has_its_figures_or_a_dash():
    head, _, *rows = map(cells, METHODS.splitlines())
    table = {row[0].strip("`"): dict(zip(head, row, strict=False)) for row in rows}
    for name in PRESETS:
        passes, *figures = (table[name].get(column) or UNKNOWN for column in COLUMNS)
        assert all(cell == UNKNOWN or FIGURE.fullmatch(cell) for cell in figures), name
        assert figures == [UNKNOWN] * 2 or PASSES.fullmatch(passes), name
    assert FIGURE.fullmatch(table["ew"]["parameters"])


def test_filling_in_changes_nothing_but_the_figures():
    figures = [[f"`{name}`", "T + 1", "1.00 / 2.00 / 3 P", "4.00 / 5.00 / 6 P"] for name in PRESETS]
    filled = fill(METHODS, Table("costs", "", ["name", *COLUMNS], figures))
    assert fill(filled, Table("costs", "", ["name", *COLUMNS], figures)) == filled
    before, after = METHODS.splitlines(), filled.splitlines()
    assert len(before) == len(after)
    head = cells(before[0])
    costly = [head.index(column) for column in COLUMNS]
    for old, new in zip(map(cells, before[2:]), map(cells, after[2:]), strict=True):
        assert len(new) == len(head)
        kept = [i for i in range(len(head)) if i not in costly]
        assert [new[i] for i in kept] == [(old + [""] * len(head))[i] for i in kept]
        assert [new[i] for i in costly] == figures[0][1:]


def test_rows_that_are_new_or_short_get_dashes():
    document = "| name | passes | paper | parameters | representation |\n|---|---|---|---|---|\n"
    rows = "| `ew` | 1 | | | |\n| `fresh` | T | [1](http://x/y) |"
    measured = [["`ew`", "1", "1.00 / 1.00 / 0 P", "1.01 / 1.02 / 0 P"]]
    filled = fill(document + rows, Table("costs", "", ["name", *COLUMNS], measured))
    assert filled.splitlines()[2:] == [
        "| `ew` | 1 |  | 1.00 / 1.00 / 0 P | 1.01 / 1.02 / 0 P |",
        f"| `fresh` | {UNKNOWN} | [1](http://x/y) | {UNKNOWN} | {UNKNOWN} |",
    ]


@pytest.mark.parametrize(
    ("counts", "text"),
    [((1, 1), "1"), ((3, 40), "T"), ((4, 41), "T + 1"), ((6, 80), "2 T"), ((7, 81), "2 T + 1")],
)
def test_passes_as_a_function_of_the_number_of_tasks(counts, text):
    assert costs._formula((3, 40), counts) == text
    assert PASSES.fullmatch(text)


@pytest.mark.parametrize(
    ("name", "forward", "backward"),
    [("ew", 1, 1), ("famo", 2, 1), ("pcgrad", 1, 4), ("graddrop", 1, 4)],
)
@pytest.mark.parametrize("make", [mlp, wide_cnn])
def test_passes_are_counted(name, forward, backward, make):
    problem = make(4, 2)
    assert problem.passes(preset(name, 4, "parameters")) == (forward, backward)
    one = (forward, 1)
    assert problem.passes(preset(name, 4, "representation")) == one


# ----------------------------------------------------------------------------------- documents


def test_tables_are_written_between_their_marks(tmp_path):
    path = tmp_path / "page.md"
    path.write_text("# A\n<!-- speed: x -->\nold\n<!-- speed: end -->\nB\n<!-- speed: y -->\n")
    table = Table("x", "Title", ["what", "ms"], [["a", "1"], ["b", "2"]])
    rewrite(path, "x", table.markdown())
    expected = "**Title**\n\n| what | ms |\n| --- | ---: |\n| a | 1 |\n| b | 2 |"
    assert path.read_text() == (
        f"# A\n<!-- speed: x -->\n{expected}\n<!-- speed: end -->\nB\n<!-- speed: y -->\n"
    )
    with pytest.raises(SystemExit, match="speed: z"):
        rewrite(path, "z", "")


def test_the_command_prints_or_writes(tmp_path, monkeypatch, capsys):
    table = Table("weights 3", "Title", ["method", "ms"], [["`ew`", "7"]])
    part = command.PARTS["weights"]._replace(tables=lambda rounds: [table])
    monkeypatch.setitem(command.PARTS, "weights", part)
    path = tmp_path / "page.md"
    path.write_text("<!-- speed: weights 3 -->\n<!-- speed: end -->\n")
    for options in ([], ["--markdown"], ["--write", str(path)]):
        monkeypatch.setattr(sys, "argv", ["speed", "weights", *options])
        command.main()
    assert capsys.readouterr().out.count("Title") == 2
    assert "| `ew` | 7 |" in path.read_text()


def test_help_names_parts_and_networks(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["speed", "--help"])
    with pytest.raises(SystemExit, match="0"):
        command.main()
    text = capsys.readouterr().out
    for name, part in command.PARTS.items():
        assert re.search(rf"^  {name} +{re.escape(part.help)}", text, re.MULTILINE)
    for name, (description, _) in NETWORKS.items():
        assert re.search(rf"^  {name} +{re.escape(description)}", text, re.MULTILINE)


def test_the_page_has_a_place_for_every_table():
    sharpness = (ROOT / "docs" / "task_sam.md").read_text()
    marks = re.findall(r"<!-- speed: (.+) -->", DOCUMENT + sharpness)
    places = {mark for mark in marks if mark != "end"}
    assert marks.count("end") == len(places)
    networks = {f"{part} {n}" for part in ("peers", "memory") for n in command.PARTS[part].networks}
    assert places >= networks
    studies = {"main", "radii", "ablation", "trap"}  # of scripts/flatness.py
    assert {place.split()[0] for place in places} == {*command.PARTS} - {"costs"} | studies


def test_the_page_of_rep_mtl_has_a_place_for_every_table():
    marks = re.findall(r"<!-- speed: (.+) -->", (ROOT / "docs" / "rep_mtl.md").read_text())
    expected = [mark for title in PROBLEMS for mark in (title, f"{title}: parts")]
    assert [mark for mark in marks if mark != "end"] == expected
    assert marks.count("end") == len(expected)


def test_parts_of_steps():
    tiny = problem(lambda: UNet(width=2), convolutional_head, 2, 8, 8)
    table = parts("tiny", tiny, {"pcgrad": preset("pcgrad", 3).combine}, rounds=1)
    assert table.columns == ("part", "ew", "rep_mtl", "pcgrad")
    rows = {name: [float(cell) for cell in cells] for name, *cells in table.rows}
    assert next(iter(rows)) == "forward"
    assert {"saliency", "heads, backward", "backbone, backward", "combination"} <= {*rows}
    assert rows["saliency"][::2] == [0, 0]


# ------------------------------------------------------------------------------------- measures


def test_ratios_are_taken_within_a_round():
    times = Times({"a": [1.0, 2.0, 3.0, 4.0, 5.0], "b": [2.0, 4.0, 6.0, 8.0, 10.0]})
    assert times.ratio("b", "a") == Ratio(2.0, 2.0, 2.0)
    assert times.milliseconds("a") == 3000
    assert times.fastest(["b", "a"]) == "a"


def test_contenders_take_turns():
    called = []
    contenders = {name: lambda n=name: called.append(n) or 1.0 for name in "abc"}
    times = interleave(contenders, rounds=4, warmup=2)
    assert all(sorted(called[i : i + 3]) == ["a", "b", "c"] for i in range(0, 18, 3))
    assert {name: len(seconds) for name, seconds in times.seconds.items()} == dict.fromkeys(
        "abc", 4
    )


def test_peak_counts_what_is_alive_at_a_time():
    kept = []

    def run():
        first = torch.zeros(100_000)
        del first
        second = torch.zeros(50_000)
        kept.append(second.clone())

    run()
    kept.clear()
    assert peak_bytes(run) == pytest.approx(4 * 150_000, rel=0.01)


@pytest.mark.slow
def test_memory_of_a_step_beyond_equal_weighting():
    extra = beyond_equal_weighting([("W5", name, "parameters") for name in ("ew", "pcgrad")])
    assert extra["W5", "ew", "parameters"] == 0
    assert 10 <= extra["W5", "pcgrad", "parameters"] <= 12


def test_combination_of_a_given_jacobian():
    jacobian = torch.randn(3, 50)
    mgda, trimmed = preset("mgda", 3).combine, preset("trimmed_mean", 3).combine
    weights = mgda(gramian(jacobian)).float()
    torch.testing.assert_close(_combine(mgda, jacobian), weights @ jacobian)
    torch.testing.assert_close(_combine(trimmed, jacobian), jacobian.median(0).values)


def test_combiners_of_rows_are_those_that_compare_gradients():
    names = set(combiners_of_rows(3))
    assert {"pcgrad", "graddrop", "gradnorm"} <= names
    assert not {"ew", "uw", "famo"} & names
