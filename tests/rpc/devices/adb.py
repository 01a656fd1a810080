"""Stands in for adb: a phone whose programs run under QEMU. The environment says how it behaves.

PHONE_FOLDER: where its /data/local/tmp is; PHONE_STATE: as `adb devices` has it, empty where absent;
PHONE_FULL, PHONE_OLD, PHONE_LOST: no space left; no exit status, as before Android 7; the cable is pulled
in the middle; PHONE_DIES: a signal that ends each program with a network.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path

from under_qemu import on_arm, wrap

given = os.environ
root = given["PHONE_FOLDER"]
state = given.get("PHONE_STATE", "device")
arguments = sys.argv[1:]
if arguments == ["devices"]:
    print("* daemon started successfully")
    print("List of devices attached")
    if state:
        print(f"R5CT20ABC\t{state}")
    print()
    sys.exit()
assert arguments[:2] == ["-s", "R5CT20ABC"]
if state != "device":
    sys.exit(f"error: device {state}.\nThis adb server's $ADB_VENDOR_KEYS is not set")
what, *rest = arguments[2:]
if what == "push":
    source, place = Path(rest[0]), Path(rest[1])
    if "PHONE_FULL" in given:
        print(f"adb: error: failed to copy '{source}' to '{place}': remote No space left on device")
        sys.exit(1)
    shutil.copy(source, place)
    dies = given.get("PHONE_DIES")
    wrap(place, f'case "$1" in time) kill -{dies} $$;; esac' if dies else "")
    print(f"{source}: 1 file pushed")
elif what == "pull":
    shutil.copy(*rest)
else:
    (line,) = rest
    if "PHONE_LOST" in given and (" time " in line or " kernels " in line):
        sys.exit(1)
    line = on_arm(line.replace("/data/local/tmp", root), given.get("PHONE_MACHINE", "aarch64"))
    old = "PHONE_OLD" in given
    done = subprocess.run(["sh", "-c", line], capture_output=old)
    if old:
        sys.stdout.buffer.write((done.stdout + done.stderr).replace(b"\n", b"\r\n"))
        sys.exit(0)
    sys.exit(done.returncode)
