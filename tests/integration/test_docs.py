"""What the pages in `docs/` mark as tested is run as it stands there, in order."""

import re
import shlex

import pytest

from tests.integration.shell import TINY, invoke
from tests.support import ROOT

BLOCK = re.compile(r"<!-- test: (\S+) -->\n```\w+\n(.*?)```", re.DOTALL)
PAGES = {
    path.name: blocks
    for path in sorted((ROOT / "docs").glob("*.md"))
    if (blocks := BLOCK.findall(path.read_text()))
}
CALL = ["python", "train.py"]


def test_the_pages_are_found():
    assert {"sweeps.md", "diagnosis.md"} <= PAGES.keys()


@pytest.mark.parametrize("page", PAGES)
def test_a_page_is_true(page, tmp_path, monkeypatch):
    """`command`: lines of train.py, on few data; `NAME.py`: a file; anything else: Python."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    names = {}
    for label, text in PAGES[page]:
        if label == "command":
            for line in filter(None, text.splitlines()):
                words = shlex.split(line, comments=True)
                assert words[:2] == CALL, line
                small = [o for o in TINY if o.split("=")[0] not in line]
                invoke(*words[2:], *small, cwd=tmp_path).ok()
        elif label.endswith(".py"):
            (tmp_path / label).write_text(text)
        else:
            exec(text, names)
