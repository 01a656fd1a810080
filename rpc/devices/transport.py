"""How a device is reached: by adb or by ssh, which both send files and run lines in a shell."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rpc.emulation.qemu import apt_line
from rpc.listing import RemoteError, is_device
from rpc.wire import printable

_CONNECT_S = 15
_SEND_S = 300
# Printed behind each line: older devices give no exit status back, and ssh says 255 for its own faults.
_STATUS = "bibench-status"
_LONGEST_WORDS = 200


@dataclass(frozen=True)
class Said:
    """status: of the line, as a shell has it; None where the connection ended before the line did."""

    status: int | None
    output: bytes
    words: str


class Transport(ABC):
    """A device that one may send files to and run lines on. Everything raises RemoteError.

    key: what the user calls it; its file system is as that of any Linux.
    """

    def __init__(self, key: str):
        self.key = key

    @abstractmethod
    def folder_line(self) -> str:
        """A line that makes a new folder for programs, and prints its name."""

    @abstractmethod
    def _command(self, line: str) -> list[str]:
        """What runs a line of shell there."""

    @abstractmethod
    def _reason(self, words: str) -> str:
        """Why there is no connection, as a sentence."""

    @abstractmethod
    def send(self, file: Path, to: str) -> None:
        """Copies a file."""

    @abstractmethod
    def receive(self, source: str, file: Path) -> None:
        """Copies a file back."""

    def run(self, line: str, timeout_s: float) -> Said:
        """Runs a line of shell. Raises RemoteError where there is no connection, or no end in that time."""
        done = self._local(self._command(f"{line}; s=$?; echo; echo {_STATUS} $s"), timeout_s)
        output, words = done.stdout.replace(b"\r\n", b"\n"), done.stderr.decode(errors="replace")
        found = re.search(rb"\n%s (\d+)\s*\Z" % _STATUS.encode(), output)
        if not found:
            raise RemoteError(self._reason(words + output.decode(errors="replace")))
        return Said(int(found[1]), output[: found.start()], words)

    def _local(
        self, command: Sequence[str], timeout_s: float, given: bytes = b""
    ) -> subprocess.CompletedProcess[bytes]:
        """A command of this machine that talks to the device."""
        try:
            return subprocess.run(command, input=given, capture_output=True, timeout=timeout_s)
        except subprocess.TimeoutExpired:
            raise RemoteError(f"The device {self.key} did not answer within {timeout_s:g} s.") from None

    def refuse(self, what: str, words: str) -> RemoteError:
        """Why a file did not arrive."""
        if "no space left" in words.lower():
            return RemoteError(f"The device {self.key} has no space left: {what} failed.")
        if "permission denied" in words.lower() or "read-only" in words.lower():
            return RemoteError(f"The device {self.key} does not let its files be written: {what} failed.")
        return RemoteError(f"On the device {self.key}, {what} failed: {last_words(words)}")


class Adb(Transport):
    """An Android phone that `adb devices` lists."""

    def __init__(self, serial: str):
        super().__init__(f"adb:{serial}")
        self._serial = serial
        found = shutil.which("adb")
        if not found:
            raise RemoteError(f"adb is not installed here. Type: {apt_line('adb')}")
        self._adb = found
        self._check()

    def folder_line(self) -> str:
        # The one place where adb's user may write and execute.
        return "mktemp -d /data/local/tmp/bibench-XXXXXX"

    def _check(self) -> None:
        """Raises RemoteError for a device that cannot be used, with what to do."""
        done = self._local([self._adb, "devices"], _CONNECT_S)
        states = {}
        for line in done.stdout.decode(errors="replace").splitlines():
            serial, _, state = line.partition("\t")
            if state:
                states[serial] = state.strip()
        if self._serial not in states:
            others = ", ".join(printable(serial, 100) for serial in states)
            known = f"It has {others}." if others else "It has none at all."
            raise RemoteError(f"adb has no device {self._serial}. {known}")
        state = states[self._serial]
        if state == "device":
            return
        if state.startswith(("unauthorized", "authorizing")):
            raise RemoteError(
                f"The device {self.key} does not trust this machine. Unlock it, and allow debugging in the "
                "question that it shows."
            )
        if state.startswith("no permissions"):
            raise RemoteError(
                f"The device {self.key} is connected, and this user may not use it. On Debian, type: "
                f"{apt_line('android-sdk-platform-tools-common')}"
            )
        if state.startswith("offline"):
            raise RemoteError(f"The device {self.key} is offline. Unplug it and plug it in again.")
        raise RemoteError(f"The device {self.key} is in the state {printable(state, 40)!r}: start Android.")

    def _command(self, line: str) -> list[str]:
        return [self._adb, "-s", self._serial, "shell", line]

    def _reason(self, words: str) -> str:
        self._check()  # which may know better
        return f"The connection to the device {self.key} ended before the work did."

    def send(self, file: Path, to: str) -> None:
        done = self._local([self._adb, "-s", self._serial, "push", str(file), to], _SEND_S)
        if done.returncode:
            self._check()
            raise self.refuse(f"sending {file.name}", _words(done))

    def receive(self, source: str, file: Path) -> None:
        done = self._local([self._adb, "-s", self._serial, "pull", source, str(file)], _SEND_S)
        if done.returncode or not file.exists():
            self._check()
            raise self.refuse("fetching the results", _words(done))


class Ssh(Transport):
    """A board or phone that lets this user in by key. host: whatever ssh takes; ssh's own settings apply."""

    def __init__(self, host: str):
        super().__init__(f"ssh:{host}")
        self._host = f"ssh:{host}" if host.startswith("//") else host
        found = shutil.which("ssh")
        if not found:
            raise RemoteError(f"ssh is not installed here. Type: {apt_line('openssh-client')}")
        options = ["-T", "-o", "BatchMode=yes", "-o", f"ConnectTimeout={_CONNECT_S}"]
        self._ssh = [found, *options, "-o", "ServerAliveInterval=15", "--", self._host]

    def folder_line(self) -> str:
        return 'mktemp -d "${TMPDIR:-/tmp}/bibench-XXXXXX"'

    def _command(self, line: str) -> list[str]:
        return [*self._ssh, f"exec sh -c {shlex.quote(line)}"]

    def _reason(self, words: str) -> str:
        said = words.lower()
        if "could not resolve" in said:
            return f"There is no host of the name in {self.key}."
        if "permission denied" in said:
            return (
                f"The device {self.key} does not let this user in by key. Type: ssh-copy-id "
                f"{shlex.quote(self._host)}"
            )
        if "host key verification failed" in said:
            return (
                f"The key of {self.key} is not known here, or has changed. Look at it once by hand: "
                f"ssh {shlex.quote(self._host)}"
            )
        for sign, why in (
            ("connection refused", "no ssh server listens there"),
            ("no route to host", "there is no way to it in the network"),
            ("timed out", "it does not answer"),
        ):
            if sign in said:
                return f"The device {self.key} cannot be reached: {why}."
        return f"The connection to the device {self.key} ended before the work did."

    def send(self, file: Path, to: str) -> None:
        """Through `cat`, since small systems have neither scp nor sftp."""
        line = f"cat > {shlex.quote(to)} && wc -c < {shlex.quote(to)}"
        content = file.read_bytes()
        done = self._local(self._command(line), _SEND_S, content)
        self._refuse_connection(done)
        if done.returncode or done.stdout.split() != [str(len(content)).encode()]:
            raise self.refuse(f"sending {file.name}", _words(done))

    def receive(self, source: str, file: Path) -> None:
        done = self._local(self._command(f"cat {shlex.quote(source)}"), _SEND_S)
        self._refuse_connection(done)
        if done.returncode:
            raise self.refuse("fetching the results", _words(done))
        file.write_bytes(done.stdout)

    def _refuse_connection(self, done: subprocess.CompletedProcess[bytes]) -> None:
        if done.returncode == 255:
            raise RemoteError(self._reason(done.stderr.decode(errors="replace")))


def connect(key: str) -> Transport:
    """`adb:SERIAL` or `ssh:HOST`. Raises RemoteError, or ValueError for a key that names nothing."""
    check_key(key)
    kind, _, name = key.partition(":")
    return {"adb": Adb, "ssh": Ssh}[kind](name)


def check_key(key: str) -> None:
    """Raises ValueError for a device's name that names none; a board's key at a tracker may be anything."""
    name = key.partition(":")[2]
    if is_device(key) and (not name or name.startswith("-") or not name.isprintable() or " " in name):
        raise ValueError(
            f"{key!r} names no device: write adb:SERIAL, as `adb devices` lists it, or ssh:HOST, as for ssh."
        )


def last_words(words: str) -> str:
    """The end of what another program said, short and printable."""
    lines = [line.strip() for line in words.splitlines() if line.strip()]
    return printable(lines[-1], _LONGEST_WORDS) if lines else "it said nothing."


def _words(done: subprocess.CompletedProcess[bytes]) -> str:
    return (done.stderr + b"\n" + done.stdout).decode(errors="replace")
