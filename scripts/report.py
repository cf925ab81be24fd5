"""From the runs of a sweep to a verdict: tables, statistics, pictures and one page.

python scripts/report.py multirun/2026-01-01_12-00-00
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from mtl.report.sweep.command import main

if __name__ == "__main__":
    sys.exit(main())
