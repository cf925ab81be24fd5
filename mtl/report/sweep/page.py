"""One self-contained HTML page: Plotly and the data are inside, compressed."""

from __future__ import annotations

import base64
import gzip
import json
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from mtl.errors import ConfigError
from mtl.report.sweep.analysis import Analysis
from mtl.report.sweep.comparison import Method, Metric
from mtl.report.sweep.diagnosis import ALL, Diagnosis
from mtl.report.sweep.runs import Note
from mtl.report.sweep.statistics import Interval

_HERE = Path(__file__).parent
_LAYERS = 40


def page(found: str, notes: Sequence[Note], analyses: Sequence[Analysis]) -> str:
    """The page.

    Args:
        found: What was read, in a sentence.
        notes: On all runs.
        analyses: One a comparison.

    Raises:
        ConfigError: Plotly is not installed.
    """
    try:
        from plotly.offline import get_plotlyjs
    except ImportError as error:
        raise ConfigError(
            'report.html needs plotly: pip install "mtl-balance[report]". The other files of the '
            "report are written."
        ) from error
    data = {
        "found": found,
        "notes": [vars(note) for note in notes],
        "comparisons": [_comparison(analysis) for analysis in analyses],
    }
    parts = {
        "style": (_HERE / "page.css").read_text(),
        "script": (_HERE / "page.js").read_text(),
        "data": _packed(json.dumps(data, separators=(",", ":"), allow_nan=False)),
        "plotly": _packed(get_plotlyjs()),
    }
    text = (_HERE / "page.html").read_text()
    for name, part in parts.items():
        text = text.replace(f"{{{{{name}}}}}", part, 1)
    return text


def _packed(text: str) -> str:
    return base64.b64encode(gzip.compress(text.encode(), 9, mtime=0)).decode()


def _comparison(analysis: Analysis) -> dict[str, Any]:
    found = analysis.comparison
    metrics = list(found.directions)
    index = {metric: i for i, metric in enumerate(metrics)}
    names = {n: None for own in analysis.series.values() for n in own}
    curves = [n for n in names if n.startswith("val/")] + [
        n for n in names if n.startswith("train/loss/")
    ]
    return {
        "title": found.title,
        "protocol": found.protocol,
        "tasks": found.tasks,
        "reference": found.reference.label if found.reference else None,
        "source": found.source,
        "base": analysis.base,
        "unit": analysis.verdicts[0].unit if analysis.verdicts else "",
        "notes": [vars(note) for note in found.notes],
        "conclusion": analysis.conclusion,
        "sentences": [verdict.sentence for verdict in analysis.verdicts],
        "metrics": [
            {"task": m.task, "name": m.name, "higher": found.directions[m]} for m in metrics
        ],
        "methods": [_method(method, metrics, analysis) for method in found.methods],
        "table": _table(analysis),
        "deltas": list(analysis.deltas),
        "volumes": {
            f"{index[a]},{index[b]}": _volumes(analysis, a, b) for a, b in analysis.pairs()
        },
        "series": {
            label: {name: _series(band) for name, band in own.items()}
            for label, own in analysis.series.items()
        },
        "curves": curves,
        "inside": [method.label for method in found.contenders],
        "diagnosis": {label: _diagnosis(own) for label, own in analysis.diagnoses.items()},
    }


def _method(method: Method, metrics: Sequence[Metric], analysis: Analysis) -> dict[str, Any]:
    means = method.means
    verdict = next((v for v in analysis.verdicts if v.method is method), None)
    return {
        "label": method.label,
        "single": method.single,
        "seeds": list(method.values),
        "values": [[_rounded(v.get(m)) for v in method.values.values()] for m in metrics],
        "means": [_rounded(means.get(metric)) for metric in metrics],
        "gains": [_rounded(analysis.comparison.gain(means, metric)) for metric in metrics],
        "rank": method.rank,
        "time": _rounded(method.time),
        "deltas": {
            name: _spread(*own[method.label])
            for name, own in analysis.deltas.items()
            if method.label in own
        },
        "difference": verdict and _spread(list(verdict.differences.values()), verdict.interval),
    }


def _spread(seeds: Sequence[float], interval: Interval | None) -> dict[str, Any]:
    return {
        "mean": _rounded(fmean(seeds)) if seeds else None,
        "interval": interval and [_rounded(end) for end in interval],
        "seeds": [_rounded(seed) for seed in seeds],
    }


def _table(analysis: Analysis) -> dict[str, Any]:
    rows = range(len(analysis.table.methods))
    return {
        "seeds": analysis.table.seeds,
        "columns": [
            {
                "title": column.title,
                "arrow": column.arrow,
                "higher": column.higher,
                "best": column.best,
                "texts": [column.text(row) for row in rows],
                "values": [_rounded(cell.value) for cell in column.cells],
            }
            for column in sorted(analysis.table.columns, key=lambda column: bool(column.group))
        ],
    }


def _volumes(analysis: Analysis, first: Metric, second: Metric) -> list[float | None]:
    volumes = analysis.volumes(first, second)
    return [_rounded(volumes.get(method.label)) for method in analysis.comparison.methods]


def _series(band: Any) -> list[list[float] | None]:
    deviation = [float(f"{v:.2g}") for v in band.deviation.tolist()]
    return [
        [round(step) for step in band.steps.tolist()],
        [float(f"{v:.4g}") for v in band.mean.tolist()],
        deviation if any(deviation) else None,
    ]


def _diagnosis(found: Diagnosis) -> dict[str, Any]:
    layers = [layer for layer in found.conflicts if layer != ALL]
    pairs = list(found.conflicts.get(ALL, {}))
    layers.sort(key=lambda layer: -max(found.conflicts[layer].values(), default=0))
    return {
        "sentence": found.sentence,
        "layers": layers[:_LAYERS],
        "pairs": [" ~ ".join(pair) for pair in pairs],
        "shares": [
            [_rounded(found.conflicts[layer].get(pair)) for pair in pairs]
            for layer in layers[:_LAYERS]
        ],
    }


def _rounded(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.5g}")
