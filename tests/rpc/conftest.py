"""One tracker with two boards for all tests here, in each process that runs them."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tvm.script import relax as R

from rpc import wire
from rpc.wire import Address
from tests.rpc.boards import Command, Site, commands, export, registered, unary


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Command]]:
    with commands(tmp_path) as starting:
        yield starting


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A tracker with a board of this machine, `here`, and an emulated one, `a72`."""
    with commands(tmp_path_factory.mktemp("site")) as start:
        tracker = start("tracker", "--port", "0")
        board = ["board", "--tracker", wire.show(tracker.address)]
        here, arm = start(*board, "--key", "here"), start(*board, "--key", "a72", "--emulate")
        registered(tracker.address, 2)
        yield Site(tracker, here, arm)


@pytest.fixture(scope="session")
def here(site: Site) -> tuple[Address, str]:
    return site.tracker.address, "here"


@pytest.fixture(scope="session")
def arm(site: Site) -> tuple[Address, str]:
    return site.tracker.address, "a72"


@pytest.fixture(scope="session")
def square(tmp_path_factory: pytest.TempPathFactory) -> Callable[[dict[str, str]], Path]:
    """The library of a small network for a target."""
    folder = tmp_path_factory.mktemp("square")

    def of(target: dict[str, str]) -> Path:
        path = folder / f"square-{target.get('mcpu', 'host')}.so"
        return path if path.exists() else export(unary(lambda x: R.matmul(x, x)), path, target)

    return of
