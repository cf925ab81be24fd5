"""Many-task tables: a generator with known outlier tasks, real data, and tasks spoilt on purpose.

Nothing here needs torch.
"""

from benchmarks.tabular.corruption import corrupt
from benchmarks.tabular.sources import TABLES, Table, load, read_csv
from benchmarks.tabular.synthetic import OUTLIER_KINDS, ManyTasks, make_tasks

__all__ = [
    "OUTLIER_KINDS",
    "TABLES",
    "ManyTasks",
    "Table",
    "corrupt",
    "load",
    "make_tasks",
    "read_csv",
]
