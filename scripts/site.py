"""Pages of the site that stand elsewhere: a hook of MkDocs (`mkdocs build --strict`).

Files in `docs/` are pages as they are. Added here are the sections of README.md and
CONTRIBUTING.md, so that nothing is written twice, and one page a package from its docstrings.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parent.parent
PAGES = {
    "index.md": ("README.md", ("", "Start", "Use")),
    "python.md": ("README.md", ("From Python", "Your own balancer")),
    "methods.md": ("README.md", ("Methods",)),
    "contributing.md": ("CONTRIBUTING.md", None),
    "add_a_balancer.md": ("CONTRIBUTING.md", ("Add a balancing method",)),
    "add_a_data_set.md": ("CONTRIBUTING.md", ("Add a data set",)),
    "changelog.md": ("CHANGELOG.md", None),
}
FIRST = ("index.md", "python.md", "methods.md", "add_a_balancer.md", "add_a_data_set.md")
LAST = ("contributing.md", "changelog.md")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Adds the pages."""
    for uri, (name, sections) in PAGES.items():
        text = _local((ROOT / name).read_text())
        content = text if sections is None else _chosen(text, sections)
        files.append(File.generated(config, uri, content=content))
    for package in packages():
        title = f"# {package}\n\n::: {package}\n    options: {{show_root_heading: false}}\n"
        files.append(File.generated(config, f"api/{package}.md", content=title))
    return files


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Orders the pages: the first steps, what lies in `docs/`, the docstrings."""
    topics = sorted(path.name for path in Path(config.docs_dir).glob("*.md"))
    modules = [{package: f"api/{package}.md"} for package in packages()]
    nav: list[Any] = [*FIRST, {"Topics": topics}, {"Reference": modules}, *LAST]
    config.nav = nav
    return config


def packages() -> list[str]:
    """The library and its packages, by dotted name."""
    found = sorted(path.parent for path in (ROOT / "mtl").rglob("__init__.py"))
    return [".".join(path.relative_to(ROOT).parts) for path in found]


def _chosen(text: str, titles: tuple[str, ...]) -> str:
    """The sections of these titles; the empty one is what stands before the first."""
    head, *sections = re.split(r"^(?=## )", text, flags=re.MULTILINE)
    by_title = {section[3:].split("\n", 1)[0]: section for section in sections} | {"": head}
    chosen = "\n".join(by_title[title] for title in titles)
    return chosen if chosen.startswith("# ") else chosen.replace("## ", "# ", 1)


def _local(text: str) -> str:
    """Links into `docs/` as seen from there; other files of the repository are named only."""
    text = re.sub(r"\]\(docs/([\w./#-]+)\)", r"](\1)", text)
    text = text.replace("](README.md", "](index.md").replace(
        "](CONTRIBUTING.md", "](contributing.md"
    )
    return re.sub(r"\[([^]]+)\]\((?!https?:|[\w-]+\.md|#)[^)]+\)", r"\1", text)
