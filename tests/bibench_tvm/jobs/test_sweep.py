"""Sweeps: which trainings a file asks for, as jobs, and the table of what came out."""

from pathlib import Path

import pytest
import yaml
from rich.console import Console

from bibench_tvm.cli.errors import UsageError
from bibench_tvm.jobs.job import Outcome, folder_of
from bibench_tvm.jobs.sweep import jobs_of, read_sweep, rows_of, table_of
from trainers import list_algorithms

FILE = """
task: fashion_mnist
arch: [resnet20@small, vgg_small@small]
algorithm: [bnn, recu]
seed: [0, 1]
set:
  lr: [0.001, 0.01]
  epochs: 2
  recu.tau_end: [0.95, 0.99]
  decay_binary: 1.0e-05
"""


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "sweep.yaml"
    path.write_text(text)
    return path


def test_all_combinations_each_once(tmp_path: Path) -> None:
    points = read_sweep(written(tmp_path, FILE))
    assert len(points) == len(set(points)) == 2 * 2 * 2 * (1 + 2)
    settings = {point.settings for point in points if point.algorithm == "bnn"}
    shared = ("epochs=2", "decay_binary=1.0e-05")
    assert settings == {(f"lr={lr}", *shared) for lr in ("0.001", "0.01")}
    jobs = {job.name: job for job in jobs_of(points, tmp_path / "out")}
    assert len(jobs) == len(points) + 2 * 2 * 2  # the float networks, which share their decay with none
    network = "fashion_mnist/resnet20@small"
    name = f"{network}/recu/paper,lr=0.01,epochs=2,recu.tau_end=0.95,decay_binary=1.0e-05,seed=1"
    first = f"{network}/fp32/paper,lr=0.01,epochs=2,seed=1"
    assert jobs[name].needs == [first]
    command = jobs[name].command
    assert command[:2] == ["bibench_tvm.train", "--json"]
    assert command[command.index("--init") + 1] == str(tmp_path / "out" / first / "checkpoint.pt")
    assert command[command.index("--out") + 1] == str(tmp_path / "out" / name)
    assert "recu.tau_end=0.95" in command
    assert "--init" not in jobs[first].command
    assert not any("tau" in word for word in jobs[first].command)


def test_a_setting_is_one_however_it_is_spelled(tmp_path: Path) -> None:
    block = "- {task: fashion_mnist, arch: resnet20@small, algorithm: recu, set: {%s}}\n"
    rates, ends = 'lr: [1e-3, 0.001, "0.001", 1.0e-3, .001]', 'recu.tau_end: [0.9, "0.9", 9e-1, 0.95]'
    counts = "epochs: [2, 0x2]"
    text = block % f"{rates}, {ends}, {counts}" + block % "epochs: 2, lr: 1E-3, recu.tau_end: .9"
    points = read_sweep(written(tmp_path, text))
    assert [point.settings for point in points] == [
        ("lr=0.001", f"recu.tau_end={end}", "epochs=2") for end in ("0.9", "0.95")
    ]
    assert len(jobs_of(points, tmp_path)) == 3


def test_several_blocks_and_all_algorithms(tmp_path: Path) -> None:
    block = "- {task: fashion_mnist, arch: resnet20@small}\n"
    points = read_sweep(written(tmp_path, block + block + block.replace("resnet20", "resnet18")))
    assert [point.algorithm for point in points] == list_algorithms() * 2
    assert len(jobs_of(points, tmp_path)) == len(points)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("a: [", r"is not YAML in line"),
        ("arch: resnet20", "is no sweep: it has no 'task'"),
        ("{task: fashion_mnist, arch: resnet20, archs: 1}", "is no sweep: there is no field 'archs'"),
        ("{task: fashion, arch: resnet20}", "There is no task 'fashion'"),
        ("{task: fashion_mnist, arch: resnet2}", "There is no model 'resnet2'"),
        ("{task: fashion_mnist, arch: resnet20, algorithm: bn}", "There is no algorithm 'bn'"),
        ("{task: fashion_mnist, arch: resnet20, recipe: pape}", "There is no recipe 'pape'"),
        ("{task: fashion_mnist, arch: resnet20, set: {lr: -1}}", "cannot have that lr"),
        ("{task: fashion_mnist, arch: resnet20, seed: x}", "is no sweep"),
        ("{task: fashion_mnist, arch: resnet20, seed: [0, -1]}", r"its seed\[1\]: it has to be .* 0 or more"),
        ("{task: fashion_mnist, arch: resnet20, limit_train: 0}", "its limit_train: .* 2 or more"),
        (
            "{task: fashion_mnist, arch: resnet20, variant: [paper, other]}",
            "it cannot be 'other'",
        ),
        ("{task: fashion_mnist, arch: resnet20, set: {recu.tau_end: [0.9, 2.0]}}", "tau_end is between"),
        ("{task: fashion_mnist, arch: resnet20, set: {reccu.tau_end: 0.9}}", "trains no algorithm 'reccu'"),
        (
            "{task: fashion_mnist, arch: resnet20, algorithm: bnn, set: {recu.tau_end: 0.9}}",
            "sets recu.tau_end, and trains no algorithm 'recu'",
        ),
        ("just words", "is no sweep"),
        ("", "is no sweep"),
        ("!!python/object/apply:os.system ['false']", "is not YAML"),
    ],
)
def test_files_that_are_no_sweeps(tmp_path: Path, text: str, sentence: str) -> None:
    with pytest.raises(ValueError, match=sentence) as error:
        read_sweep(written(tmp_path, text))
    assert "\n" not in str(error.value)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"nowhere\.yaml cannot be read: No such file"):
        read_sweep(tmp_path / "nowhere.yaml")
    (tmp_path / "bytes.yaml").write_bytes(b"\xff\xfe\xff")
    with pytest.raises(UsageError, match="cannot be read: it is no text"):
        read_sweep(tmp_path / "bytes.yaml")


def test_blocks_that_differ_in_their_data_alone(tmp_path: Path) -> None:
    block = (
        "- {task: fashion_mnist, arch: resnet20@small, algorithm: [fp32, bnn], data: %s, limit_train: %s}\n"
    )
    points = read_sweep(written(tmp_path, block % ("a", 8) + block % ("b", 8) + block % ("a", 9)))
    jobs = jobs_of(points, tmp_path)
    assert {job.name for job in jobs} == {point.name for point in points}
    assert len(jobs) == 6
    values = dict(zip((point.name for point in points), (0.1, 0.2, 0.3, 0.4, 0.5, 0.6), strict=True))
    outcomes = [
        Outcome(name=job.name, state="done", command=[], result={"test_accuracy": values[job.name]})
        for job in jobs
    ]
    rows = rows_of(points, outcomes)
    assert [row["values"] for row in rows] == [[value] for value in values.values()]
    assert len({(row["algorithm"], *row["settings"]) for row in rows}) == 6


def test_more_settings_than_a_folder_has_letters(tmp_path: Path) -> None:
    settings: dict[str, object] = {}
    settings |= dict.fromkeys(("decay_binary", "decay_float", "decay_other", "warmup", "clip"), 1e-5)
    settings |= {"optimizer": "sgd", "momentum": 0.9, "schedule": "cosine", "holdout": 0.1, "ema": 0.9}
    settings |= {"accumulate": 2, "select": "best", "patience": 3, "batch_size": 16, "epochs": 2}
    settings |= {"float_epochs": 2, "from_float": False, "distillation": 0.5, "temperature": 2.0, "lr": 0.01}
    grid = {"task": "fashion_mnist", "arch": "resnet20@small", "algorithm": "fp32", "seed": [0, 1]}
    jobs = jobs_of(read_sweep(written(tmp_path, yaml.safe_dump(grid | {"set": settings}))), tmp_path)
    assert all(len(job.name.split("/")[-1]) > 255 for job in jobs)
    folders = {folder_of(tmp_path, job.name) for job in jobs}
    assert len(folders) == 2
    for folder in folders:
        folder.mkdir(parents=True)


def test_the_table(tmp_path: Path) -> None:
    points = read_sweep(
        written(tmp_path, FILE.replace("[resnet20@small, vgg_small@small]", "resnet20@small"))
    )
    outcomes = [
        Outcome(name=point.name, state="done", command=[], result={"test_accuracy": 0.5 + 0.1 * point.seed})
        for point in points
    ]
    outcomes[0] = Outcome(name=points[0].name, state="failed", command=[], reason="The loss is nan.")
    rows = rows_of(points, outcomes)
    assert len(rows) == 6
    assert rows[0]["values"] == [0.6]
    assert rows[0]["missing"] == [f"{points[0].name} failed: The loss is nan."]
    assert rows[1]["values"] == [0.5, 0.6]
    console = Console(width=200)
    with console.capture() as capture:
        console.print(table_of(rows))
    lines = capture.get().splitlines()
    assert any("55.00" in line and "7.07" in line and "lr=0.01" in line for line in lines)
    assert not any("epochs" in line for line in lines)
