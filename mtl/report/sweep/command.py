"""From the runs of a sweep to a verdict: tables, statistics, pictures and one page.

mtl-report multirun/2026-01-01_12-00-00
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from mtl.errors import DataError, MTLError
from mtl.report.sweep.analysis import Analysis
from mtl.report.sweep.gather import compare
from mtl.report.sweep.page import page
from mtl.report.sweep.pictures import draw
from mtl.report.sweep.runs import Note, Runs, read_runs
from mtl.report.sweep.tables import latex, markdown, rows, write_csv

_PUBLISHED = Path(__file__).parents[3] / "benchmarks" / "baselines"


def main(arguments: Sequence[str] | None = None) -> int:
    """Reads the runs, writes the report, prints the verdict."""
    options = _options(arguments)
    out = options.out or options.folders[0] / "report"
    try:
        write(options.folders, out, options.reference, options.published, options.pictures)
    except MTLError as error:
        print(f"{type(error).__name__}: {error}", file=sys.stderr)
        return 2
    return 0


def write(
    folders: Sequence[Path],
    out: Path,
    reference: str = "ew",
    published: Path | None = None,
    pictures: bool = True,
) -> None:
    """Writes the report on all runs below the folders.

    Args:
        folders: Where runs lie, at any depth.
        out: Folder of the report.
        reference: Label or balancer of the method that the others are compared with.
        published: Folder of `<dataset>.yaml` files with single-task values.
        pictures: Whether to draw PNG files.

    Raises:
        DataError: No run below the folders has results.
        ConfigError: Plotly is not installed; everything else is written.
    """
    runs = read_runs(folders)
    if not runs.finished:
        lost = "".join(f"\n  {note.kind}: {note.text}" for note in runs.notes)
        where = ", ".join(map(str, folders))
        raise DataError(f"No finished run in {where}: expected metrics.json files below.{lost}")
    comparisons = compare(runs, reference=reference, published=published)
    analyses = [Analysis.of(comparison) for comparison in comparisons]
    found = f"Runs with results: {len(runs.finished)}. Without: {len(runs.failed)}."
    out.mkdir(parents=True, exist_ok=True)
    (out / "report.md").write_text(_markdown(found, runs.notes, analyses))
    all_rows = [row for a in analyses for row in rows(a.comparison, a.table)]
    (out / "report.csv").write_text(write_csv(all_rows))
    tables = [latex(analysis.comparison, analysis.table) for analysis in analyses]
    (out / "report.tex").write_text("\n\n".join(tables) + "\n")
    if pictures:
        for index, analysis in enumerate(analyses):
            draw(analysis, out / "pictures" / (str(index + 1) if len(analyses) > 1 else ""))
    _print(found, runs, analyses, out)
    (out / "report.html").write_text(page(found, runs.notes, analyses))


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="mtl-report", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folders", nargs="+", type=Path, help="folders with runs, at any depth")
    parser.add_argument("--out", type=Path, help="folder of the report (default: FOLDER/report)")
    parser.add_argument(
        "--reference", default="ew", help="method that the others are compared with (default: ew)"
    )
    parser.add_argument(
        "--published",
        type=Path,
        default=_PUBLISHED,
        help="folder of DATASET.yaml files with single-task values, used where the runs have none",
    )
    parser.add_argument(
        "--no-pictures", dest="pictures", action="store_false", help="draw no PNG files"
    )
    return parser.parse_args(arguments)


def _markdown(found: str, notes: Sequence[Note], analyses: Sequence[Analysis]) -> str:
    parts = ["# Sweep report", found]
    if notes:
        parts += ["## What was left out, and what to know", _listed(notes)]
    for analysis in analyses:
        comparison = analysis.comparison
        source = f"Single-task values: {comparison.source}." if comparison.source else ""
        parts += [
            f"## {comparison.title}",
            f"Protocol {comparison.protocol}. {source}".strip(),
            f"**{analysis.conclusion}**",
            markdown(analysis.table),
            "Mean ± standard deviation over seeds. Bold: best mean, the single tasks aside.",
        ]
        if analysis.verdicts:
            parts += ["\n".join(f"- {verdict.sentence}" for verdict in analysis.verdicts)]
        spoken = [f"- {k}: {own.sentence}" for k, own in analysis.diagnoses.items()]
        parts += ["### Gradients", "\n".join(spoken)] if spoken else []
        if comparison.notes:
            parts += ["### Left out here, and what to know", _listed(comparison.notes)]
    return "\n\n".join(parts) + "\n"


def _listed(notes: Sequence[Note]) -> str:
    return "\n".join(f"- {note.kind}: {note.text}" for note in notes)


def _print(found: str, runs: Runs, analyses: Sequence[Analysis], out: Path) -> None:
    print(found)
    for note in runs.notes:
        print(f"{note.kind}: {note.text}")
    for analysis in analyses:
        print(f"\n{analysis.comparison.title}\n{analysis.conclusion}")
        for note in analysis.comparison.notes:
            print(f"{note.kind}: {note.text}")
    print(f"\nReport: {out}")


if __name__ == "__main__":
    sys.exit(main())
