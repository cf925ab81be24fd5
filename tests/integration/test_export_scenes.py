"""The script that writes rooms as the files of public data sets."""

import runpy
import subprocess
import sys

import pytest

from benchmarks.dense.cityscapes import Cityscapes
from benchmarks.dense.nyuv2 import NYUv2
from benchmarks.office.benchmark import Office31, OfficeHome
from tests.integration.shell import environment, shell
from tests.integration.test_real_data import DEPTH, NORMAL, SEGMENTATION, SMALL, trained
from tests.support import ROOT

pytestmark = pytest.mark.filterwarnings("ignore:.*Results do not compare")


def export(*options, cwd):
    return subprocess.run(
        [sys.executable, str(ROOT / "scripts" / "export_scenes.py"), *options],
        cwd=cwd,
        env=environment(cwd),
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.slow
def test_exported_rooms_are_trained_on(tmp_path):
    """The two commands of the documentation, in a shell."""
    options = ["layout=mtan", "out=rooms", "train=6", "val=2", "size=[32,32]", "dtype=float64"]
    done = export(*options, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert len(list((tmp_path / "rooms" / "train" / "normal").glob("*.npy"))) == 6
    run = [
        "dataset=nyuv2",
        "model=unet",
        "model.backbone.width=4",
        *SMALL,
        "dataset.data_dir=rooms",
    ]
    trained(shell(*run, cwd=tmp_path), segmentation=SEGMENTATION, depth=DEPTH, normal=NORMAL)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["layout=mtn", "out=x"], ["mtn", "cityscapes"]),
        (["layout=mtan"], ["out"]),
        (["layout=mtan", "out=x", "sizes=3"], ["sizes"]),
        (["layout=mtan", "out=x", "train=few"], ["train", "few"]),
        (["layout=mtan", "out=."], ["new or empty folder"]),
        (["layout=mtan", "out=x", "size=[30,30]"], ["32"]),
    ],
)
def test_wrong_options_of_the_script(options, named, tmp_path, capsys, monkeypatch):
    (tmp_path / "mine.txt").write_text("")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    script = runpy.run_path(str(ROOT / "scripts" / "export_scenes.py"))
    assert script["main"](options) == 2
    told = capsys.readouterr().err
    assert all(word in told for word in named)


def test_a_folder_called_off(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    script = runpy.run_path(str(ROOT / "scripts" / "export_scenes.py"))
    assert script["main"](["layout=mtan", "out=off", "train=1", "val=1", "size=[32,32]"]) == 0
    assert (tmp_path / "off" / "train" / "image" / "0.npy").is_file()


@pytest.mark.parametrize("layout", ["parquet", "cityscapes", "office31", "office_home"])
def test_other_layouts_of_the_script(layout, tmp_path, monkeypatch):
    if layout == "parquet":
        pytest.importorskip("datasets")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    script = runpy.run_path(str(ROOT / "scripts" / "export_scenes.py"))
    size = ["size=[32,32]", "train=120" if layout.startswith("office") else "train=4", "val=2"]
    root = tmp_path / "out"
    assert script["main"]([f"layout={layout}", f"out={root}", *size, "lists=true"]) == 0
    if layout.startswith("office"):
        made = {"office31": Office31, "office_home": OfficeHome}[layout](data_dir=root)
        assert sum(len(part) for own in made.splits().values() for part in own.values()) == 120
        assert len(list(root.glob("*_train.txt"))) == len(made.domains)
    else:
        made = {"parquet": NYUv2, "cityscapes": Cityscapes}[layout](data_dir=root)
        assert [len(source) for source in made.open().values()] == [4, 2]
