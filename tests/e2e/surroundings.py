"""What the agent's process can find out about itself and about the process that started it: /proc, plainly read.

A curious or a hijacked agent would do no more than this without root. Knows nothing of Valetkey.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

#: Most of another process's memory that is looked at.
MEMORY_BYTES_MAX = 64 << 20

#: What was found, or the name of the error.
Found = dict[str, str]


def own() -> dict[str, object]:
    """The environment and arguments of this process, and what it may do (`CapEff`)."""
    return {
        "environment": dict(os.environ),
        "arguments": sys.argv,
        "environ": proc("self/environ"),
        "capabilities": proc("self/status", "CapEff"),
    }


def parent() -> dict[str, object]:
    """The same for the parent, with its memory and its open files."""
    pid = os.getppid()
    return {
        "parent": pid,
        "parent_name": proc(f"{pid}/status", "Name"),
        "parent_cmdline": proc(f"{pid}/cmdline"),
        "parent_environ": proc(f"{pid}/environ"),
        "parent_memory": memory_of(pid),
        "parent_files": files_of(pid),
    }


def proc(name: str, line: str | None = None) -> Found:
    """One file of /proc, or one line of it, or why it cannot be read."""
    try:
        text = Path("/proc", name).read_bytes().decode(errors="replace")
    except OSError as fault:
        return {"refused": type(fault).__name__}
    if line is None:
        return {"text": text}
    found = (rest.strip() for head, _, rest in (row.partition(":") for row in text.splitlines()) if head == line)
    return {"text": next(found, "")}


def memory_of(pid: int) -> Found:
    """What of another process's writable memory can be read, or why none."""
    try:
        ranges = [row.split() for row in Path(f"/proc/{pid}/maps").read_text().splitlines()]
        read = bytearray()
        with open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:
            for span, rights, *_ in ranges:
                if not rights.startswith("rw") or len(read) >= MEMORY_BYTES_MAX:
                    continue
                start, end = (int(end, 16) for end in span.split("-"))
                memory.seek(start)
                read += memory.read(end - start)
    except OSError as fault:
        return {"refused": type(fault).__name__}
    return {"text": read.decode("latin-1")}


def files_of(pid: int) -> Found:
    """The open files of another process, or why they cannot be listed."""
    try:
        return {"text": " ".join(os.readlink(entry) for entry in Path(f"/proc/{pid}/fd").iterdir())}
    except OSError as fault:
        return {"refused": type(fault).__name__}
