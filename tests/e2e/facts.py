"""What the driver (main.rs) tells the suite: addresses, tokens and names of things, in one variable."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field

VARIABLE = "VALETKEY_E2E_FACTS"


@dataclass(frozen=True)
class User:
    """A person and some good tokens of theirs."""

    name: str
    #: Not in what a failing test prints.
    tokens: list[str] = field(repr=False)


@dataclass(frozen=True)
class Facts:
    """One run of the suite."""

    #: `embedded` or `real`: which kind of workspace is behind the sidecar.
    workspace: str
    inbound: str
    admin: str
    #: The driver's levers on the embedded workspace; none on a real one.
    control: str | None
    #: The sidecar's process.
    sidecar_pid: int
    #: Whether the agent's process holds the right to look into any other (root in some containers).
    agent_may_trace: bool
    #: A directory: everything that came back is kept here, for the canary test.
    store: str
    app_name: str
    #: Two different people.
    users: list[User]
    #: A token of the first user that has expired; none on a real workspace.
    expired_token: str | None = field(repr=False)
    warehouse: str
    #: Not in the policy.
    warehouse_refused: str
    model: str
    index: str
    index_columns: list[str]
    #: A volume's path.
    volume: str
    #: Values that stood in credential variables of the sidecar's own environment.
    decoys: list[str] = field(repr=False)


def read() -> Facts:
    """The facts of this run."""
    raw = json.loads(os.environ[VARIABLE])
    users = [User(**user) for user in raw.pop("users")]
    return Facts(users=users, **raw)
