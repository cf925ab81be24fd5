"""Whole runs of diffusion models, the scripts behind them, and a run that goes on."""

import json
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from benchmarks.diffusion.checkpoints import rebuild
from mtl.errors import DataError
from tests.integration.shell import QUIET, TINY, invoke, shell
from tests.support import ROOT, assert_same

pytest.importorskip("diffusers")
sys.path.insert(0, str(ROOT / "scripts"))
import affinity
import negative_transfer

SMALL = [
    "dataset=diffusion_gmm",
    "dataset.intervals=10",
    "dataset.batch_size=30",
    "dataset.steps_per_epoch=6",
    "dataset.val_draws=5",
    "dataset.test_draws=5",
    "model.backbone.network.width=16",
    "model.backbone.network.blocks=1",
    "callbacks.samples.count=30",
    "callbacks.samples.steps=3",
    "trainer.max_epochs=2",
    "trainer.log_every_n_steps=2",
    *QUIET,
]
SPECIALIST = "[t0_99,t100_199]", "[t800_899,t900_999]"


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    return shell(*SMALL, "balancer=ant", cwd=tmp_path_factory.mktemp("diffusion")).ok()


def test_files_and_numbers(finished):
    results = finished.results
    assert results["balancer"] == "ant"
    assert next(iter(results["metrics"])) == "t0_99"
    assert len(results["metrics"]) == 10
    assert all(np.isfinite(v["excess_risk"]) for v in results["metrics"].values())
    quality = json.loads((finished.folder / "quality.json").read_text())
    assert quality.keys() == {"frechet", "precision", "recall", "near_mode", "mode_tv"}
    for name in ("samples_epoch1", "samples_epoch2", "samples", "weights"):
        with Image.open(finished.folder / "pictures" / f"{name}.png") as picture:
            assert min(picture.size) > 100
    state = finished.checkpoint["state_dict"]
    assert any(name.startswith("averaged.") for name in state)
    assert state["balancer.combine.log_variance"].shape == (5,)  # one a cluster
    assert finished.checkpoint["optimizer_states"][0]["param_groups"][1]["lr"] < 0.025  # annealed


def test_resumes_to_the_bit(finished, tmp_path):
    for name in "abc":
        (tmp_path / name).mkdir()
    whole = invoke(*SMALL, "balancer=ant", "trainer.max_epochs=3", cwd=tmp_path / "a").ok()
    # Three epochs from the start have another schedule: interrupt that very run.
    part = invoke(
        *SMALL,
        "balancer=ant",
        "trainer.max_epochs=3",
        "trainer.max_steps=9",
        "baseline=null",
        "+callbacks.checkpoint.every_n_train_steps=9",
        "callbacks.checkpoint.save_on_train_epoch_end=false",
        cwd=tmp_path / "b",
    ).ok()
    assert part.checkpoint["global_step"] == 9
    resumed = invoke(
        *SMALL, "balancer=ant", "trainer.max_epochs=3", f"ckpt_path={part.last}", cwd=tmp_path / "c"
    ).ok()
    assert_same(whole.checkpoint["state_dict"], resumed.checkpoint["state_dict"])


def test_evaluation_of_a_checkpoint(finished, tmp_path):
    again = invoke(
        *SMALL, "balancer=ant", "train=false", f"ckpt_path={finished.last}", cwd=tmp_path
    ).ok()
    assert again.results["metrics"] == finished.results["metrics"]  # of the averaged weights
    _, denoiser = rebuild(finished.last)
    weights = finished.checkpoint["state_dict"]
    for name, value in denoiser.state_dict().items():
        assert torch.equal(value, weights[f"averaged.backbone.{name}"])


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        ["balancer=ant_nash", "balancer.transforms.interval_clusters.objective=snr"],
        ["balancer=ant_pcgrad", "balancer.transforms.interval_clusters.weighting=size"],
        ["balancer=ant", "balancer/combine=cagrad", "balancer/sharpness=joint_sam"],
        ["balancer=uw", "dataset.diffusion.prediction=v", "dataset.diffusion.loss_weights=min_snr"],
    ],
    ids=["nash, snr", "pcgrad, by size", "cagrad, joint sam", "uw without clusters, v, min-snr"],
)
def test_combinations(options, tmp_path):
    done = invoke(*SMALL, *options, "trainer.max_epochs=1", cwd=tmp_path).ok()
    assert all(np.isfinite(v["loss"]) for v in done.results["metrics"].values())
    assert done.results["info"]["skipped_steps"] == 0


@pytest.mark.slow
@pytest.mark.parametrize("network", ["unet", "dit"])
def test_pictures_with_classes_and_routing(network, tmp_path):
    sizes = {
        "unet": ["model.backbone.network.width=8"],
        "dit": [
            *(f"model.backbone.network.{o}" for o in ("size=8", "width=16", "depth=1", "heads=2"))
        ],
    }
    done = invoke(
        "dataset=diffusion_digits",
        "dataset.intervals=10",
        "dataset.batch_size=20",
        "dataset.steps_per_epoch=2",
        "dataset.val_draws=2",
        "dataset.test_draws=2",
        "dataset.num_classes=10",
        f"model=denoiser_{network}",
        *sizes[network],
        "callbacks.samples.count=20",
        "callbacks.samples.steps=2",
        "callbacks.samples.guidance=1.5",
        "model.routing=dtr",
        "trainer.max_epochs=1",
        "balancer=ant_pcgrad",
        *QUIET,
        cwd=tmp_path,
    )
    done.ok()
    quality = json.loads((done.folder / "quality.json").read_text())
    assert quality.keys() == {"frechet", "precision", "recall"}


@pytest.mark.slow
def test_specialists_and_the_gap(finished, tmp_path):
    short = "hydra.sweep.subdir=${hydra.job.num}"  # or the folder's name has all the options
    options = ["-m", *SMALL, "trainer.max_epochs=1", "seed=0", short]
    tasks = ",".join(("null", *SPECIALIST))
    invoke(*options, "balancer=ew,ant", cwd=tmp_path).ok()
    invoke(*options, f"tasks={tasks}", cwd=tmp_path).ok()
    picture = tmp_path / "gap.png"
    arguments = [str(tmp_path / "multirun"), "--out", str(picture), "--samples", "40"]
    assert negative_transfer.main(arguments) == 0
    assert picture.exists()
    runs = negative_transfer.find_runs([tmp_path / "multirun"])
    shared, specialists = negative_transfer.sort_runs(runs)
    names = list(specialists[0])
    assert names == [("t0_99", "t100_199"), ("t800_899", "t900_999")]
    losses, gaps = negative_transfer.compare(shared, specialists, names)
    assert losses.keys() == {"specialists", "ew", "ant"}
    for run in shared:
        own, other = run.loss(names[0]), specialists[0][names[0]].loss(names[0])
        assert pytest.approx(np.log(other / own)) in gaps[run.results.balancer][0]
    changes = negative_transfer.compare_with("ew", shared, names)
    assert changes.keys() == {"ant"}
    for i in range(len(names)):
        change = np.log(losses["ant"][i][0] / losses["ew"][i][0])
        assert changes["ant"][i] == pytest.approx([change])
        assert gaps["ew"][i][0] - gaps["ant"][i][0] == pytest.approx(change)


def test_runs_without_specialists_are_compared_by_fifths(finished, tmp_path, capsys):
    folders = [str(finished.folder)]
    assert negative_transfer.main([*folders, "--markdown", "--against", "ant"]) == 0
    shown = capsys.readouterr().out
    assert "| test loss | 0-199 | 200-399 | 400-599 | 600-799 | 800-999 |" in shown
    assert "negative transfer" not in shown
    assert negative_transfer.main([*folders, "--against", "uw"]) == 2
    assert "--against" in capsys.readouterr().err


def test_a_specialist_equal_to_the_shared_network_has_no_gap(finished):
    runs = negative_transfer.find_runs([finished.folder])
    names = ("t0_99", "t100_199"), ("t800_899", "t900_999")
    same = {0: dict.fromkeys(names, runs[0])}
    _, gaps = negative_transfer.quality_gaps(runs, same, names, 40)
    assert list(gaps.values()) == [[[0.0], [0.0]]]
    _, in_loss = negative_transfer.compare(runs, same, names)
    assert list(in_loss.values()) == [[[0.0], [0.0]]]


def test_affinities_for_gradient_clusters(finished, tmp_path):
    out = tmp_path / "affinity.npz"
    last = str(finished.last)
    assert affinity.main([last, last, "--out", str(out), "--samples", "40"]) == 0
    assert out.with_suffix(".png").exists()
    once = tmp_path / "once.npz"
    affinity.main([last, "--out", str(once), "--samples", "40"])
    with np.load(out) as twice, np.load(once) as single:
        assert twice["affinity"].shape == (10, 10)
        np.testing.assert_allclose(twice["affinity"], single["affinity"])  # a mean
    done = invoke(
        *SMALL,
        "balancer=ant",
        "balancer.transforms.interval_clusters.objective=gradient",
        f"balancer.transforms.interval_clusters.affinity={out}",
        "trainer.max_epochs=1",
        cwd=tmp_path,
    ).ok()
    assert done.results["balancer"] == "ant"


def test_checkpoints_of_other_models(tmp_path, capsys):
    done = invoke(*TINY, cwd=tmp_path).ok()
    with pytest.raises(DataError, match="diffusion model"):
        rebuild(done.last)
    assert affinity.main([str(done.last), "--out", str(tmp_path / "a.npz")]) == 2
    assert negative_transfer.main([str(tmp_path)]) == 2
    assert "sweep=negative_transfer" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (
            ["balancer=ant", "balancer.transforms.interval_clusters.k=11"],
            ["`k`", "between 1 and 10"],
        ),
        (["balancer=ant", "dataset.batch_size=4"], ["4 samples for 5 clusters"]),
        (["dataset.intervals=1001"], ["between 1 and 1000"]),
        (["model.routing=dtrr"], ["dtr, random"]),
        (["dataset.diffusion.schedule=cubic"], ["schedule", "linear", "cosine"]),
        (["callbacks.samples.steps=2000"], ["steps", "1000"]),
    ],
    ids=["k", "batch", "intervals", "routing", "schedule", "steps"],
)
def test_wrong_options(options, named, tmp_path):
    invoke(*SMALL, *options, cwd=tmp_path).refused(*named)
