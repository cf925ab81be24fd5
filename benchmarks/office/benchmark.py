"""Office-31 and Office-Home as benchmarks."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from torchmetrics.classification import MulticlassAccuracy

from benchmarks.base import Benchmark, Head
from benchmarks.dense.source import spread
from benchmarks.files import first_with, not_found
from benchmarks.office.data import JointData, SeparateData
from benchmarks.office.files import SPLITS, Labelled, divide, read_classes, read_lists
from mtl.errors import ConfigError, DataError
from mtl.losses import CrossEntropy
from mtl.task import Task

Splits = Mapping[str, Mapping[str, Labelled]]  # task -> split -> pictures


_LISTS = "LibMTL's lists"


class _Office(Benchmark):
    """Pictures of the same classes from several domains, one task a domain.

    Pictures are resized to `resize` and normalised with ImageNet's mean and standard deviation. If
    LibMTL's lists `<domain>_{train,val,test}.txt` are there, they are the split; otherwise every
    class of every domain is divided 60/20/20, the same way in every run.

    Args:
        data_dir: Folder with one folder a domain.
        split_dir: Folder of the lists. Default: `data_dir` and its `data_txt/`.
        batch_size: Pictures of each domain in a training step.
        resize: Height and width.
        limit: Pictures of each domain and split, evenly spread; `None`: all.
        num_workers: See `Benchmark`.
        drop_last: See `Benchmark`.
        seed: See `Benchmark`.
    """

    title: ClassVar[str]
    num_classes: ClassVar[int]
    domains: ClassVar[Mapping[str, str]]  # task -> folder
    subfolders: ClassVar[tuple[str, ...]]
    get: ClassVar[str]
    free: ClassVar = (*Benchmark.free, "data_dir", "split_dir")
    shuffles: ClassVar = False

    def __init__(
        self,
        *,
        data_dir: str | Path | None = None,
        split_dir: str | Path | None = None,
        batch_size: int = 64,
        resize: Sequence[int] = (224, 224),
        limit: int | None = None,
        num_workers: int = 0,
        drop_last: bool = True,
        seed: int = 0,
    ) -> None:
        super().__init__(
            batch_size=batch_size, seed=seed, num_workers=num_workers, drop_last=drop_last
        )
        if len(resize) != 2 or min(resize) < 1:
            raise ConfigError(f"`dataset.resize`: expected [HEIGHT, WIDTH], got {resize}.")
        if limit is not None and limit < 1:
            raise ConfigError(f"`dataset.limit`: expected 1 or more, or null, got {limit}.")
        self.data_dir = None if data_dir is None else Path(data_dir).expanduser()
        self.split_dir = None if split_dir is None else Path(split_dir).expanduser()
        self.resize = tuple(resize)
        self.limit = limit

    def tasks(self, head: Head) -> list[Task]:
        """One classification task a domain."""
        return [
            Task(
                name,
                head(self.num_classes),
                CrossEntropy(),
                {"accuracy": MulticlassAccuracy(self.num_classes, average="micro")},
            )
            for name in self.domains
        ]

    def find(self) -> None:
        """Looks whether the pictures are there."""
        self.splits()

    def prepare_data(self) -> None:
        """Looks whether the pictures are there, and how they are divided."""
        self.warn_of(self.differing(self._traits(*self._read())))

    def setup(self, stage: str) -> None:  # noqa: ARG002
        """Lists the pictures; they are read when they are asked for."""
        splits, made = self._read()
        self.departures = self.differing(self._traits(splits, made))
        chosen = {
            task: parts
            for task, parts in splits.items()
            if self.chosen is None or task in self.chosen
        }
        train, val, test = (
            {
                task: parts[split].take(spread(len(parts[split]), self.limit))
                for task, parts in chosen.items()
            }
            for split in SPLITS
        )
        self.train_data = JointData(
            train, size=self.resize, batch_size=self.batch_size, seed=self.seed
        )
        self.val_data = SeparateData(val, size=self.resize)
        self.test_data = SeparateData(test, size=self.resize)

    def splits(self) -> Splits:
        """The pictures of every task and split.

        Raises:
            DataError: A domain, a list or a picture is missing, or there are too many classes.
        """
        return self._read()[0]

    def _read(self) -> tuple[Splits, str]:
        """The pictures, and by what they are divided."""
        folders = self._folders()
        root = next(iter(folders.values())).parent
        places = [root, root / "data_txt"] if self.split_dir is None else [self.split_dir]
        found = {
            task: next((s for place in places if (s := self._lists(root, place, task))), None)
            for task in self.domains
        }
        listed = {task: parts for task, parts in found.items() if parts is not None}
        if len(listed) == len(self.domains):
            return listed, _LISTS
        if listed or self.split_dir is not None:
            lacking = ", ".join(self.domains[task] for task in self.domains if task not in listed)
            raise DataError(
                f"{places[0]}: expected lists of every domain, or of none; missing: "
                f"{lacking} (for example {next(iter(self.domains.values()))}_train.txt)."
            )
        return self._divided(folders), "60/20/20 of every class"

    @staticmethod
    def _traits(splits: Splits, made: str) -> dict[str, Any]:
        counts = {task: [len(parts[s]) for s in SPLITS] for task, parts in splits.items()}
        return {"split": made, **counts}

    def _lists(self, root: Path, place: Path, task: str) -> dict[str, Labelled] | None:
        return read_lists(root, place, self.domains[task], self.num_classes)

    def _divided(self, folders: Mapping[str, Path]) -> Splits:
        classes = {task: read_classes(_pictures(folder)) for task, folder in folders.items()}
        names = sorted({name for own in classes.values() for name in own})
        if len(names) > self.num_classes:
            raise DataError(
                f"{', '.join(map(str, folders.values()))}: expected {self.num_classes} classes, "
                f"got {len(names)}: {', '.join(names)}. Is this {self.title}?"
            )
        if len(names) < self.num_classes:
            warnings.warn(
                f"{self.title}: expected {self.num_classes} classes, got {len(names)}. Results do "
                "not compare with published ones.",
                stacklevel=2,
            )
        numbers = {name: number for number, name in enumerate(names)}
        divided = {task: divide(own, numbers) for task, own in classes.items()}
        for task, parts in divided.items():
            empty = [split for split in SPLITS if not len(parts[split])]
            if empty:
                raise DataError(
                    f"{folders[task]}: expected enough pictures a class to divide them 60/20/20, "
                    f"got none for {', '.join(empty)}."
                )
        return divided

    def _folders(self) -> dict[str, Path]:
        """The folder of every domain, under either spelling."""
        root = Path("data_dir=null") if self.data_dir is None else self.data_dir
        spellings = {task: (name, name.replace("_", " ")) for task, name in self.domains.items()}
        wanted = [s for both in spellings.values() for s in both]
        roots = [root, *(root / sub for sub in self.subfolders)]
        found = first_with(roots, *wanted)
        if self.data_dir is None or found is None:
            raise not_found(
                self.title,
                root,
                f"{'/, '.join(self.domains.values())}/, each with a folder of pictures a class "
                f"(also below {'/, '.join(self.subfolders)}/)",
                self.get,
                "scripts/export_scenes.py writes rooms in this form.",
            )
        folders = {
            task: next((found / s for s in both if (found / s).is_dir()), None)
            for task, both in spellings.items()
        }
        lacking = [self.domains[task] for task, folder in folders.items() if folder is None]
        if lacking:
            raise DataError(
                f"{found}: expected the domains {', '.join(self.domains.values())}; missing: "
                f"{', '.join(lacking)}. Get the data set again."
            )
        return {task: folder for task, folder in folders.items() if folder is not None}


class Office31(_Office):
    """Office-31: 4,110 pictures of 31 classes in the domains amazon, dslr and webcam."""

    title = "Office-31"
    num_classes = 31
    domains: ClassVar = {"amazon": "amazon", "dslr": "dslr", "webcam": "webcam"}
    published: ClassVar = {
        "split": _LISTS,
        "amazon": [1680, 552, 585],
        "dslr": [287, 89, 122],
        "webcam": [466, 149, 180],
    }
    subfolders = ("office-31", "office31")
    get = "faculty.cc.gatech.edu/~judy/domainadapt; then dataset.data_dir=DIR."


class OfficeHome(_Office):
    """Office-Home: 15,588 pictures of 65 classes in four domains."""

    title = "Office-Home"
    num_classes = 65
    domains: ClassVar = {
        "art": "Art",
        "clipart": "Clipart",
        "product": "Product",
        "real_world": "Real_World",
    }
    published: ClassVar = {
        "split": _LISTS,
        "art": [1435, 465, 527],
        "clipart": [2596, 846, 923],
        "product": [2635, 860, 944],
        "real_world": [2586, 846, 925],
    }
    subfolders = ("office-home", "office_home", "OfficeHomeDataset_10072016")
    get = "www.hemanthdv.org/officeHomeDataset.html; then dataset.data_dir=DIR."


def _pictures(domain: Path) -> Path:
    """Office-31 has `images/` between domain and classes."""
    return domain / "images" if (domain / "images").is_dir() else domain
