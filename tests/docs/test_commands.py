"""Every command line of README.md and docs/ is run, those of a page in their order and in one folder.

The words of the page are all there; what makes the work small is added behind them (ADDED), and what a page
takes for granted (a network, an artifact, a board at a tracker) is made here. Where a line takes more than
that, its command's own parser reads it, and NOT_RUN says why. Commands that a sentence names are parsed too.
"""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import trainers
from bibench_tvm.__main__ import app_of
from bibench_tvm.artifact import manifest
from bibench_tvm.importer import bundled, source
from bibench_tvm.jobs.sweep import jobs_of, read_sweep
from bibench_tvm.tracks.profiles import PROFILES, Block
from rpc import emulated, wire
from rpc.machine_name import machine_name, this_machine
from rpc.session import list_boards
from tests.docs.pages import PAGES, ROOT, Step, in_sentences, ours, parse, parts, steps
from tests.rpc.boards import Command, commands, eventually
from tests.trainers.idx import write_fashion_mnist
from trainers.pretrained import pretrained
from trainers.tasks import fashion_mnist, standin_detection

# A command, by how it begins and what it has -> words that are added; of an option that is given twice, the
# last is taken.
ADDED = (
    (r"compile .*--verify", "--verify 1"),
    (r"(compile|tune|train) .*--arch (resnet\d+|dfsmn)(?!\S)", r"--arch \2@small"),
    (r"tune ", "--trials 2"),
    (r"bench ", "--runs 2"),
    (r"train (?!.*--(evaluate|sweep))", "--epochs 1 --batch-size 5"),
    (r"tracks run (?!.*--(track |board))", "--track complexity --algorithm bnn"),
    (r"tracks run .*--board", "--track inference --algorithm fp32"),
)
# A command line, or a part of one before or behind `&&` -> why it is only parsed.
NOT_RUN = {
    r"\./install\.sh( \w+)?": "It installs gigabytes, or data: tests/test_install.py runs it with less.",
    r"\. \.venv/bin/activate": "The tests run in such an environment.",
    r"\./run_tests\.sh": "It runs this test.",
    r".*python -m benchmarks\.(peers|arm|architectures|training_steps|tune_shipped|zoo).*": "Minutes, hours.",
    r".*python -m benchmarks\.(standalone|two_threads)": "Minutes.",
    r"python -m bibench_tvm\.train --threads 1 --out OUT .*": "The trainings of the zoo: an hour together.",
    r"bibench train --sweep sweep\.yaml .*": "33 trainings: `test_the_sweep` reads the file.",
    r"bibench tracks run .* --ray .*": "A Ray cluster: tests/bibench_tvm/jobs/test_cluster.py starts one.",
    r"bibench report .* --(paper|figures .*)": "Minutes of drawing: tests/bibench_tvm/report/ has both.",
    r"bibench bench .* --board (adb|ssh):.*": "A phone: tests/bibench_tvm/measuring/ has one.",
    r"ssh .*": "A second machine.",
    r"cc .*|\./example .*": "A C compiler: tests/bibench_tvm/compiling/test_standalone.py does it with zig.",
}
# What takes long and makes nothing that a later line reads: run on the first page that says it word for word.
LONG = ("bibench bench ", "bibench report ")
# A page -> the file that its block of Python, or of something else, is the content of.
SAVED = {"docs/own-algorithm.md": "my_algorithm.py", "docs/training.md": "sweep.yaml"}
# A page -> where its Python is run.
RUN_ELSEWHERE = {
    "README.md": "tests/bibench_tvm/test_readme.py",
    "docs/how-it-works.md": "tests/bibench_tvm/test_how_it_works.py",
    "docs/standalone.md": "tests/bibench_tvm/compiling/test_standalone.py",
}
WRITES = ("--out", "--output", "--input", "--figures", "--dump-ir", ">")
BOARDS = {"rpi5": "cortex-a76"}  # others are a Cortex-A72


def reason_not_to_run(part: str) -> str:
    return next((reason for pattern, reason in NOT_RUN.items() if re.fullmatch(pattern, part)), "")


def first_page(part: str) -> str:
    return next(page for page in PAGES if any(part in parts(step.text) for step in steps(page)))


@pytest.fixture
def small_world(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """The bundled network is a small one of the zoo, with six images; data and profiles are small too."""
    folder = tmp_path_factory.mktemp("world")
    with np.load(bundled.IMAGES) as file:
        few = {name: file[name][:6] if name in ("images", "labels") else file[name] for name in file.files}
    np.savez(folder / "images.npz", **few)
    for module in (bundled, source):
        monkeypatch.setattr(module, "NETWORK", pretrained("resnet20@small", "reactnet"))
        monkeypatch.setattr(module, "IMAGES", folder / "images.npz")
    write_fashion_mnist(folder, train=100, test=20)
    monkeypatch.setattr(fashion_mnist, "FOLDER", folder)
    monkeypatch.setattr(standin_detection, "COUNTS", {"train": 10, "validation": 5, "test": 5})
    small = msgspec.structs.replace(
        PROFILES["quick"],
        trainings=(
            Block(
                task="standin_points",
                arch="pointnet_vanilla@small",
                settings=("epochs=1",),
                limit_train=64,
            ),
        ),
        complexity=("resnet20@small",),
        structure=False,
    )
    for name in ("quick", "standin"):
        monkeypatch.setitem(PROFILES, name, small)


@pytest.fixture(scope="session")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of a small network of Fashion-MNIST for a machine, by its name."""
    made: dict[str, Path] = {}

    def of(machine: str) -> Path:
        if machine not in made:
            target = "host" if machine == this_machine() else "arm_cpu"
            made[machine] = tmp_path_factory.mktemp(machine)
            checkpoint = pretrained("resnet20@small", "reactnet")
            type_in("compile", str(checkpoint), "--target", target, "--out", str(made[machine]))
        return made[machine]

    return of


def type_in(name: str, *arguments: str) -> str:
    """What the command prints to standard output."""
    return invoke(app_of(name), [name, *arguments])


def invoke(app: Any, words: list[str]) -> str:
    if words[0] == "report":  # what draws takes many times as long within pytest
        line = [sys.executable, "-m", "bibench_tvm.report", *words[1:]]
        drawn = subprocess.run(line, capture_output=True, text=True)
        assert drawn.returncode == 0, f"{shlex.join(words)}: {drawn.stderr}"
        return drawn.stdout
    done = CliRunner().invoke(app, words[1:])
    assert done.exit_code == 0, f"{shlex.join(words)}: {done.stderr or done.output} {done.exception!r}"
    return done.stdout


class Site:
    """A tracker with boards as commands, started when they are first asked for."""

    def __init__(self, start: Callable[..., Command]):
        self.start = start
        self.tracker: Command | None = None

    @property
    def address(self) -> str:
        if self.tracker is None:
            self.tracker = self.start("tracker", "--port", "0")
        return wire.show(self.tracker.address)

    def add(self, key: str, *options: str) -> None:
        """An emulated board, with these options of the command."""
        if problem := emulated.missing():
            pytest.fail(problem)
        emulate = [] if "--emulate" in options else ["--emulate"]
        self.start("board", *options, *emulate, "--tracker", self.address, "--key", key, "--port", "0")
        eventually(lambda: key in self.boards())

    def boards(self) -> list[str]:
        return [board.key for board in list_boards(wire.parse_address(self.address))]


class Reader:
    """Somebody who types what a page says, in an empty folder."""

    def __init__(self, page: str, folder: Path, artifact: Callable[[str], Path], site: Site, config: Any):
        self.page, self.folder, self.artifact, self.site, self.config = page, folder, artifact, site, config
        self.names: dict[str, Any] = {}  # of the page's Python
        self.compiled: set[str] = set()  # in this section of the page, folders

    def do(self, step: Step) -> None:
        saved = SAVED.get(self.page)
        if step.kind == "heading":
            self.compiled.clear()
        elif step.kind == "command":
            for part in parts(step.text):
                if reason_not_to_run(part) or (part.startswith(LONG) and first_page(part) != self.page):
                    parse(part, self.config)
                else:
                    self.type(part)
        elif saved and step.kind == ("python" if saved.endswith(".py") else "text"):
            (self.folder / saved).write_text(step.text + "\n")
        elif step.kind == "python" and self.page not in RUN_ELSEWHERE:
            exec(step.text, self.names)
            self.compiled.add("build")

    def type(self, line: str) -> None:
        words = shlex.split(line)
        with pytest.MonkeyPatch.context() as patch:
            while re.fullmatch(r"[A-Z_]+=\S*", words[0]):
                patch.setenv(*words.pop(0).split("="))
            if words[:2] == ["python", "-c"]:
                subprocess.run([sys.executable, *words[1:]], check=True)
                return
            found = ours(words)
            assert found, f"{self.page}: {line!r} is neither run nor in NOT_RUN"
            name, app, arguments = found
            self.run(name, app, arguments)

    def run(self, name: str, app: Any, arguments: list[str]) -> None:
        arguments, into = self.redirected(arguments)
        options = dict(zip(arguments, arguments[1:], strict=False))
        if name == "tracker":
            self.site.tracker = self.site.start(name, *arguments, "--port", "0")
            return
        if name == "board" and "--key" in options:
            rest = [word for word in arguments if word not in ("--tracker", "--key", "--port")]
            values = [options.get(option) for option in ("--tracker", "--key", "--port")]
            self.site.add(options["--key"], *[word for word in rest if word not in values])
            return
        boards = [value for word, value in zip(arguments, arguments[1:], strict=False) if word == "--board"]
        for key in boards:
            if key not in self.site.boards():
                self.site.add(key, "--cpu", BOARDS.get(key, "cortex-a72"))
        if "--tracker" in arguments:
            arguments[arguments.index("--tracker") + 1] = self.site.address
        self.provide(name, arguments, "aarch64" if boards else this_machine())
        typed = " ".join([name, *arguments, ""])
        added = [found.expand(words) for pattern, words in ADDED if (found := re.match(pattern, typed))]
        printed = invoke(app, [name, *arguments, *shlex.split(" ".join(added))])
        if into:
            assert printed
            (self.folder / into).write_text(printed)
        if name == "compile":
            self.compiled.add(options.get("--out", "build").rstrip("/"))

    @staticmethod
    def redirected(arguments: list[str]) -> tuple[list[str], str]:
        if ">" not in arguments:
            return list(arguments), ""
        at = arguments.index(">")
        return arguments[:at], arguments[at + 1]

    def provide(self, name: str, arguments: list[str], machine: str) -> None:
        """What the page takes for granted, where none of its own commands has made it: files, and where a
        section compiles nothing for that machine, artifacts."""
        for word in arguments:
            if word in GIVEN and not (self.folder / word).exists():
                (self.folder / word).parent.mkdir(parents=True, exist_ok=True)
                GIVEN[word](self.folder / word)
        if name not in ("run", "bench", "train"):
            return
        for word in arguments:
            if not re.fullmatch(r"build[\w-]*/?", word):
                continue
            there = self.folder / word
            if word.rstrip("/") not in self.compiled or not runs_on(there, machine):
                shutil.rmtree(there, ignore_errors=True)
                shutil.copytree(self.artifact(machine), there, symlinks=True)
            if "--input" in arguments:
                provide_input(there, self.folder / arguments[arguments.index("--input") + 1])


def runs_on(folder: Path, machine: str) -> bool:
    if (folder / "detector.json").exists():
        folder /= "first"
    return machine_name(manifest.read(folder).target.triple) == machine


def provide_input(artifact: Path, file: Path) -> None:
    """An array that the network takes, unless one is there."""
    (taken,) = manifest.read(artifact).inputs
    if not file.exists() or np.load(file).shape[1:] != taken.shape[1:]:
        np.save(file, np.ones(taken.shape, taken.dtype))


def small_network() -> torch.nn.Module:
    torch.manual_seed(0)
    layers = (torch.nn.Conv2d(4, 16, 3), torch.nn.Conv2d(16, 24, 3, padding=1), torch.nn.Flatten())
    return trainers.binarize(torch.nn.Sequential(*layers, torch.nn.Linear(24 * 36, 5)), "bnn").eval()


def export_pt2(path: Path) -> None:
    torch.export.save(torch.export.export(small_network(), (torch.zeros(1, 4, 8, 8),)), path)


def export_onnx(path: Path) -> None:
    torch.onnx.export(small_network(), (torch.zeros(1, 4, 8, 8),), path, dynamo=False)


def save_weights(path: Path) -> None:
    torch.save(trainers.binarize(trainers.create_model("resnet20@small"), "bnn").state_dict(), path)


def copy_algorithm(path: Path) -> None:
    (block,) = (step.text for step in steps("docs/own-algorithm.md") if step.kind == "python")
    path.write_text(block)


GIVEN: dict[str, Callable[[Path], Any]] = {
    "model.onnx": export_onnx,
    "model.pt2": export_pt2,
    "weights.pt": save_weights,
    "out/checkpoint.pt": lambda path: shutil.copyfile(pretrained("resnet20@small", "reactnet"), path),
    "my_algorithm.py": copy_algorithm,
}


@pytest.fixture
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with commands(tmp_path_factory.mktemp("site")) as start:
        yield Site(start)


@pytest.mark.parametrize("page", [page for page in PAGES if any(s.kind == "command" for s in steps(page))])
def test_what_a_page_says_to_type(
    page: str,
    small_world: None,
    artifact: Callable[[str], Path],
    site: Site,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> None:
    monkeypatch.chdir(tmp_path)
    reader = Reader(page, tmp_path, artifact, site, request.config)
    for step in steps(page):
        reader.do(step)


@pytest.mark.parametrize("page", [page for page in PAGES if in_sentences(page)])
def test_commands_in_sentences(page: str, request: pytest.FixtureRequest) -> None:
    for line in in_sentences(page):
        parse(line, request.config, whole=False)


def test_the_sweep(tmp_path: Path) -> None:
    (block,) = (step.text for step in steps("docs/training.md") if step.kind == "text")
    (tmp_path / "sweep.yaml").write_text(block)
    points = read_sweep(tmp_path / "sweep.yaml", None)
    assert len(jobs_of(points, tmp_path, None)) > 30
    assert jobs_of(read_sweep(ROOT / "docs/standin.yaml", None), tmp_path, None)


def test_what_commands_write_in_a_checkout_is_ignored(tmp_path: Path) -> None:
    """Whoever types the pages in the checkout has no new files in it as far as git tells."""
    lines = [words(step.text) for page in PAGES for step in steps(page) if step.kind == "command"]
    written = {
        there for line in lines for before, there in zip(line, line[1:], strict=False) if before in WRITES
    }
    named = {name for name in written if not name.isupper()} | set(SAVED.values())
    assert {"y.npy", "report", "report.html", "tuned", "figures.csv"} <= {name.rstrip("/") for name in named}
    subprocess.run(["git", "init", "--quiet", tmp_path], check=True)
    shutil.copyfile(ROOT / ".gitignore", tmp_path / ".gitignore")
    for name in (*named, "x.npy"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch() if path.suffix else path.mkdir(exist_ok=True)
        (path / "file").touch() if path.is_dir() else None
    line = ["git", "-C", tmp_path, "status", "--porcelain", "--untracked-files=all"]
    assert subprocess.run(line, capture_output=True, text=True, check=True).stdout == "?? .gitignore\n"


def words(line: str) -> list[str]:
    return [word for part in parts(line) for word in shlex.split(part)]


def test_every_reason_is_of_a_line() -> None:
    """So that what NOT_RUN says does not outlive the line."""
    found = [
        part for page in PAGES for step in steps(page) if step.kind == "command" for part in parts(step.text)
    ]
    assert [pattern for pattern in NOT_RUN if not any(re.fullmatch(pattern, part) for part in found)] == []
    assert sum(not reason_not_to_run(part) for part in found) > 60


@pytest.mark.parametrize(
    "line",
    [
        "bibench compile --target host --tune tuned",
        "bibench tracks runs DIR",
        "bibench tracks run DIR --cores many",
        "python -m benchmarks.peers --layer A",
        "./install.sh benches",
        "pytest tests/test_imports.py --pictures 3",
        "gcc -O2 example.c",
    ],
)
def test_a_line_that_is_wrong(line: str, request: pytest.FixtureRequest) -> None:
    with pytest.raises(Exception, match=r".") as raised:
        parse(line, request.config, whole=False)
    assert not isinstance(raised.value, KeyError)


def test_reasons_on_the_page_are_the_compilers() -> None:
    """docs/own-network.md says what to do about layers that stay float."""
    rows = re.findall(r"^\| `(.*?)` \| ", (ROOT / "docs/own-network.md").read_text(), re.MULTILINE)
    said = "".join(path.read_text() for path in (ROOT / "relay_passes").rglob("*.py"))
    assert len(rows) == 4
    assert [row for row in rows if row not in said] == []
