"""Office: a task a domain, each with its own pictures."""

import re
import shutil
from collections import Counter

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks.office.benchmark import Office31, OfficeHome
from benchmarks.office.data import JointData
from benchmarks.office.files import SPLITS, Labelled, divide, read_picture
from mtl.errors import ConfigError, DataError
from tests.rooms import write_domains

pytestmark = pytest.mark.filterwarnings("ignore:.*Results do not compare")


@pytest.fixture(scope="module")
def office(tmp_path_factory):
    return write_domains(tmp_path_factory.mktemp("office"))


@pytest.fixture(scope="module")
def listed(tmp_path_factory):
    return write_domains(tmp_path_factory.mktemp("listed"), lists=True)


def ready(root, benchmark=Office31, chosen=None, **options):
    made = benchmark(data_dir=root, **{"batch_size": 8, "resize": [16, 24], **options})
    made.chosen = chosen
    made.setup("fit")
    return made


def test_departures_from_the_published_lists(office, listed):
    """The numbers of all domains, whichever are trained; and whether there are lists."""
    counts = {
        task: [len(part) for part in parts.values()]
        for task, parts in Office31(data_dir=office).splits().items()
    }
    assert ready(office, chosen=["dslr"]).departures == {
        "split": "60/20/20 of every class",
        **counts,
    }
    with pytest.warns(UserWarning, match=r"Office31 split: expected LibMTL's lists, got 60/20/20"):
        Office31(data_dir=office).prepare_data()
    made = ready(listed)
    assert made.departures.keys() == {"amazon", "dslr", "webcam"}
    made.published = {**made.published, **made.departures}
    made.setup("fit")
    assert made.departures == {}


def test_every_picture_is_in_one_split(office):
    splits = Office31(data_dir=office).splits()
    assert list(splits) == ["amazon", "dslr", "webcam"]
    for task, parts in splits.items():
        there = sorted((office / task).rglob("*.jpg"))
        assert sorted(path for part in parts.values() for path in part.paths) == there
        assert list(parts) == list(SPLITS)
    assert sum(len(parts["train"]) for parts in splits.values()) == pytest.approx(72, abs=6)
    names = {
        task: {
            path.parent.name: number
            for part in parts.values()
            for path, number in zip(part.paths, part.labels, strict=True)
        }
        for task, parts in splits.items()
    }
    union = {name: n for own in names.values() for name, n in own.items()}
    assert all(union[name] == n for own in names.values() for name, n in own.items())
    assert sorted(union, key=union.get) == sorted(union)  # alphabetical


def test_divides_60_20_20_within_each_class(tmp_path):
    classes = {
        name: [tmp_path / name / f"{i}.jpg" for i in range(n)] for name, n in (("a", 50), ("b", 10))
    }
    parts = divide(classes, {"a": 0, "b": 1})
    assert [Counter(parts[s].labels) for s in SPLITS] == [
        {0: 30, 1: 6}, {0: 10, 1: 2}, {0: 10, 1: 2},
    ]  # fmt: skip
    assert divide(classes, {"a": 0, "b": 1}) == parts
    alone = divide({"a": classes["a"]}, {"a": 4})  # whatever other classes there are
    assert alone["val"].paths == parts["val"].paths[:10]


def test_lists_win_with_their_own_numbers(listed):
    splits = Office31(data_dir=listed).splits()
    first = splits["dslr"]["test"]
    lines = (listed / "dslr_test.txt").read_text().splitlines()
    assert [
        f"{p.relative_to(listed)} {n}" for p, n in zip(first.paths, first.labels, strict=True)
    ] == lines
    labels = {p.parent.name: n for p, n in zip(first.paths, first.labels, strict=True)}
    assert sorted(labels, key=labels.get) == sorted(labels, reverse=True)  # not alphabetical


@pytest.mark.parametrize("where", ["data_txt", "elsewhere"])
def test_places_of_lists(where, listed, tmp_path):
    root = shutil.copytree(listed, tmp_path / "office-31")
    (root / where).mkdir()
    for path in root.glob("*.txt"):
        path.rename(root / where / path.name)
    split_dir = root / where if where == "elsewhere" else None
    found = Office31(data_dir=tmp_path, split_dir=split_dir).splits()
    expected = Office31(data_dir=listed).splits()
    for task, parts in expected.items():
        assert all(found[task][split].labels == parts[split].labels for split in SPLITS)


@pytest.mark.parametrize("lists", [False, True])
@pytest.mark.parametrize("spelling", ["Real_World", "Real World"])
def test_both_spellings_of_a_domain(lists, spelling, tmp_path):
    root = write_domains(tmp_path / "home", OfficeHome, lists=lists)
    (root / "Real_World").rename(root / "kept")
    (root / "kept").rename(root / spelling)
    parts = OfficeHome(data_dir=root).splits()["real_world"]
    assert sum(map(len, parts.values())) == 30
    assert all(path.is_file() for part in parts.values() for path in part.paths)


def test_pictures_are_resized_and_normalised(office):
    path = next((office / "dslr").rglob("*.jpg"))
    assert read_picture(path, (16, 24)).shape == (3, 16, 24)
    benchmark = ready(office, limit=4, batch_size=2)
    inputs, targets = next(iter(benchmark.test_dataloader()))
    assert (
        list(inputs) == list(targets) == ["amazon", "dslr"]
    )  # in order, 4 pictures of each domain
    assert inputs["amazon"].shape == (4, 3, 16, 24)
    stored = benchmark.splits()["amazon"]["test"].take([0])
    pixels = np.asarray(Image.open(stored.paths[0]).resize((24, 16), Image.Resampling.BILINEAR))
    expected = (pixels / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    torch.testing.assert_close(
        inputs["amazon"][0].permute(1, 2, 0), torch.from_numpy(expected).float()
    )
    assert targets["amazon"][0] == stored.labels[0]


def test_evaluation_sees_every_picture_once(office):
    benchmark = ready(office, batch_size=2)
    seen = Counter()
    for inputs, targets in benchmark.test_dataloader():
        assert inputs.keys() == targets.keys()
        seen.update({task: len(labels) for task, labels in targets.items()})
    assert seen == {task: len(parts["test"]) for task, parts in benchmark.splits().items()}


def domain(count):
    return Labelled([None] * count, list(range(count)))


def joint(monkeypatch, counts, batch_size=4, seed=0):
    monkeypatch.setattr(
        "benchmarks.office.data.read_picture", lambda path, size: np.zeros((3, 1, 1))
    )
    domains = {f"d{i}": domain(count) for i, count in enumerate(counts)}
    return JointData(domains, size=(1, 1), batch_size=batch_size, seed=seed)


def epoch_of(data, epoch, batch_size=4):
    data.epoch = epoch
    starts = range(0, len(data), batch_size)
    return [data.__getitems__(list(range(s, s + batch_size)))[1] for s in starts]


def test_an_epoch_is_the_largest_domains_and_others_start_again(monkeypatch):
    data = joint(monkeypatch, [22, 9, 2])
    assert len(data) == 20  # full batches of 4
    batches = epoch_of(data, 0)
    for task, once in (("d0", 20), ("d1", 8), ("d2", 2)):
        drawn = torch.cat([targets[task] for targets in batches]).tolist()
        assert len(drawn) == 20
        for start in range(0, 20 - once + 1, once):  # each turn has no picture twice
            assert len(set(drawn[start : start + once])) == once
    assert all(len(targets["d1"].unique()) == 4 for targets in batches)


def test_order_is_of_seed_epoch_and_domain(monkeypatch):
    def order(epoch=0, seed=0, task="d0"):
        batches = epoch_of(joint(monkeypatch, [40, 40], seed=seed), epoch)
        return torch.cat([targets[task] for targets in batches]).tolist()

    assert order() == order()
    others = [order(1), order(seed=1), order(task="d1")]
    assert all(order() != other for other in others)
    assert all(sorted(other) == list(range(40)) for other in others)


@pytest.mark.parametrize("workers", [0, 2])
def test_resumes_in_the_middle_of_an_epoch(workers, office):
    def loader(**options):
        return ready(office, **options).train_dataloader()

    plain = loader()
    plain.sampler.set_epoch(2)
    whole = list(plain)
    first = loader(num_workers=workers)
    first.sampler.set_epoch(2)
    assert len(whole) > 1
    started = iter(first)
    next(started)
    resumed = loader(num_workers=workers)
    resumed.load_state_dict(first.state_dict())
    rest = list(resumed)
    assert len(rest) == len(whole) - 1
    for (inputs, targets), (others, labels) in zip(rest, whole[1:], strict=True):
        for task in ("amazon", "dslr", "webcam"):
            assert torch.equal(inputs[task], others[task])
            assert torch.equal(targets[task], labels[task])


def test_only_the_chosen_domains_are_read(office, tmp_path):
    benchmark = ready(office, chosen=["dslr"])
    for loader in (benchmark.train_dataloader(), benchmark.test_dataloader()):
        for inputs, targets in loader:
            assert list(inputs) == list(targets) == ["dslr"]
    assert len(benchmark.train_data) == len(benchmark.splits()["dslr"]["train"]) // 8 * 8


# ---------------------------------------------------------------------------------- bad input


def spoil_line(root, change):
    path = root / "webcam_val.txt"
    lines = path.read_text().splitlines()
    lines[2] = change(lines[2])
    path.write_text("\n".join(lines))


BROKEN = {
    "missing domain": (lambda r: shutil.rmtree(r / "dslr"), ["expected the domains", "dslr"]),
    "missing list": (lambda r: (r / "amazon_val.txt").unlink(), ["missing: amazon_val.txt"]),
    "lists of two domains": (
        lambda r: [p.unlink() for p in r.glob("amazon_*.txt")],
        ["missing: amazon (for example amazon_train.txt)"],
    ),
    "label too large": (
        lambda r: spoil_line(r, lambda s: s + "99"),
        ["webcam_val.txt, line 3", "0 to 30"],
    ),
    "no label": (
        lambda r: spoil_line(r, lambda s: s.rpartition(" ")[0]),
        ["webcam_val.txt, line 3"],
    ),
    "missing picture": (
        lambda r: spoil_line(r, lambda s: "no/such.jpg 1"),
        ["webcam_val.txt, line 3", "no/such.jpg"],
    ),
    "empty list": (lambda r: (r / "dslr_test.txt").write_text("\n"), ["dslr_test.txt", "empty"]),
}


@pytest.mark.parametrize("what", BROKEN)
def test_broken_lists(what, listed, tmp_path):
    change, said = BROKEN[what]
    root = shutil.copytree(listed, tmp_path / "data")
    change(root)
    with pytest.raises(DataError) as caught:
        Office31(data_dir=root).splits()
    for word in said:
        assert word in str(caught.value)


def test_broken_folders(office, tmp_path):
    root = shutil.copytree(office, tmp_path / "data")
    (root / "amazon" / "images" / "zebra").mkdir()
    with pytest.raises(DataError, match=r"amazon.images.*empty: zebra"):
        Office31(data_dir=root).splits()
    shutil.rmtree(root / "amazon" / "images")
    with pytest.raises(DataError, match="amazon"):
        Office31(data_dir=root).splits()


def test_too_many_classes(office, tmp_path):
    root = shutil.copytree(office, tmp_path / "data")
    some = next((root / "dslr").rglob("*.jpg"))
    for number in range(31):
        shutil.copytree(some.parent, root / "dslr" / "images" / f"kind {number}")
    with pytest.raises(DataError, match=r"expected 31 classes, got 4?3?\d.*Is this Office-31"):
        Office31(data_dir=root).splits()


def test_too_few_pictures_to_divide(tmp_path):
    root = write_domains(tmp_path / "few", count=6)
    with pytest.raises(DataError, match=r"60/20/20.*got none for"):
        Office31(data_dir=root).splits()


@pytest.mark.parametrize("content", [b"", b"no picture", None])
def test_broken_picture(content, office, tmp_path):
    path = tmp_path / "a.jpg"
    good = next(office.rglob("*.jpg")).read_bytes()
    path.write_bytes(good[: len(good) // 2] if content is None else content)
    with pytest.raises(DataError, match=re.escape(str(path))):
        read_picture(path, (8, 8))


@pytest.mark.parametrize("root", ["nowhere", None])
def test_nothing_there(root, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        DataError, match=r"Office-Home not found.*Looked for: Art/.*Get it.*No data"
    ):
        OfficeHome(data_dir=root).splits()


@pytest.mark.parametrize("options", [{"resize": [8]}, {"resize": [0, 8]}, {"limit": 0}])
def test_wrong_options(options):
    with pytest.raises(ConfigError, match=next(iter(options))):
        Office31(**options)
