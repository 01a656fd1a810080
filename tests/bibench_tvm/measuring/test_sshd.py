"""A device by ssh, with the real programs: an sshd of this user's on the loopback, and ssh."""

import getpass
import os
import shutil
import socket
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from bibench_tvm import compile_model
from tests.rpc.boards import eventually


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The name of this machine to an ssh that has no other configuration than the one made here."""
    server, client = shutil.which("sshd", path=f"{os.environ['PATH']}:/usr/sbin"), shutil.which("ssh")
    assert server and client, "sshd and ssh are not installed: run_tests.sh installs them."
    for name in ("server", "user"):
        key = str(tmp_path / name)
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (tmp_path / "sshd_config").write_text(
        f"ListenAddress 127.0.0.1:{port}\nHostKey {tmp_path}/server\nAuthorizedKeysFile {tmp_path}/user.pub\n"
        "PidFile none\nUsePAM no\nStrictModes no\nPasswordAuthentication no\nPermitRootLogin yes\n"
    )
    (tmp_path / "ssh_config").write_text(
        f"Host loopback\nHostName 127.0.0.1\nPort {port}\nUser {getpass.getuser()}\n"
        f"IdentityFile {tmp_path}/user\nIdentitiesOnly yes\n"
        f"UserKnownHostsFile {tmp_path}/known\nStrictHostKeyChecking accept-new\n"
    )
    tools = tmp_path / "tools"
    tools.mkdir()
    (tools / "ssh").write_text(f'#!/bin/sh\nexec {client} -F {tmp_path}/ssh_config "$@"\n')
    (tools / "ssh").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}:{os.environ['PATH']}")
    if os.getuid() == 0:
        Path("/run/sshd").mkdir(exist_ok=True)  # which it wants of root, and Debian's service makes
    log = (tmp_path / "log").open("w")
    process = subprocess.Popen([server, "-D", "-e", "-f", str(tmp_path / "sshd_config")], stderr=log)

    def listens() -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", port)) == 0

    try:
        eventually(listens)
        yield "ssh:loopback"
    finally:
        process.terminate()
        process.wait()
        log.close()


def test_bench_over_sshd(invoke: Callable, small_file: Path, tmp_path: Path, host: str) -> None:
    artifact = compile_model(small_file, target="host", out=tmp_path / "artifact", standalone=True)
    done = invoke("bench", artifact.folder, "--board", host, "--runs", 5, "--json")
    assert done.code == 0, done.stderr
    (result,) = done.json["results"]
    assert result["board"]["key"] == host and result["latency_ms"]["min"] > 0
    assert result["check"]["identical"] is True
    (tmp_path / "user.pub").unlink()
    done = invoke("bench", artifact.folder, "--board", host, "--json")
    assert done.code == 1 and "does not let this user in by key" in done.json["error"], done.json
