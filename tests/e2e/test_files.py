"""A file far larger than the sidecar's memory goes up and down through it, unharmed."""

from __future__ import annotations

import uuid
from pathlib import Path

from conftest import TRANSFER_SECONDS_MAX, Door
from facts import Facts

FILE_BYTES = 200 << 20
REFUSED_BYTES = 32 << 20
MEMORY_KIB_MAX = 40 << 10


def test_two_hundred_mebibytes_go_up_and_down_in_forty_mebibytes_of_memory(facts: Facts, door: Door) -> None:
    token = facts.users[0].tokens[0]
    path = f"{facts.volume}/valetkey-e2e-{uuid.uuid4().hex}.bin"
    sent = door.asked("/upload", token, TRANSFER_SECONDS_MAX, path=path, bytes=str(FILE_BYTES))
    assert sent["bytes"] == FILE_BYTES
    after_upload = memory_kib(facts.sidecar_pid)
    got = door.asked("/download", token, TRANSFER_SECONDS_MAX, path=path)
    after_download = memory_kib(facts.sidecar_pid)
    door.asked("/discard", token, path=path)
    assert got == sent
    print(f"the sidecar's memory in KiB: {after_upload} after the upload, {after_download} after the download")
    assert max(after_download.values()) < MEMORY_KIB_MAX


def test_a_large_file_that_is_refused_is_refused_at_once(facts: Facts, door: Door) -> None:
    """Not a broken connection, which the SDK would repeat for five minutes."""
    path = f"{facts.things['volume'][1]}/valetkey-e2e.bin"
    refused = door.get("/upload", facts.users[0].tokens[0], path=path, bytes=str(REFUSED_BYTES)).json()
    assert refused.get("error") == "PermissionDenied", refused
    assert "the nearest route is `volume`" in refused["message"], refused


def test_odd_names_of_files_arrive_as_they_are(facts: Facts, door: Door) -> None:
    token = facts.users[0].tokens[0]
    path = f"{facts.volume}/a b%2Fc ü#?-{uuid.uuid4().hex}.txt"
    sent = door.asked("/upload", token, path=path, bytes="1000")
    assert door.asked("/download", token, path=path) == sent
    door.asked("/discard", token, path=path)


def memory_kib(pid: int) -> dict[str, int]:
    """Resident memory now, and the most there ever was."""
    rows = (row.split(":") for row in Path(f"/proc/{pid}/status").read_text().splitlines())
    return {name: int(value.split()[0]) for name, value in rows if name in ("VmHWM", "VmRSS")}
