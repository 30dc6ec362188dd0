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
    workspace_id: str
    index_columns: list[str]
    #: Of each kind of object the one that the policy names, and another one; kinds that are not here cannot be tried.
    things: dict[str, list[str]]
    #: Values that stood in credential variables of the sidecar's own environment.
    decoys: list[str] = field(repr=False)

    @property
    def warehouse(self) -> str:
        return self.things["warehouse"][0]

    @property
    def warehouse_refused(self) -> str:
        return self.things["warehouse"][1]

    @property
    def model(self) -> str:
        return self.things["model"][0]

    @property
    def index(self) -> str:
        return self.things["index"][0]

    @property
    def volume(self) -> str:
        """A path."""
        return self.things["volume"][0]

    def named(self, text: str) -> str | None:
        """Fills in `{name}` and `{name_other}`, with `_path` as parts of a path and `_tool` as the platform calls tools of
        it; nothing where a thing is not given."""
        words = {"workspace_id": self.workspace_id}
        for name, (allowed, other) in self.things.items():
            for key, value in ((name, allowed), (f"{name}_other", other)):
                words |= {key: value, f"{key}_path": value.replace(".", "/"), f"{key}_tool": value.replace(".", "__")}
        try:
            return text.format(**words)
        except KeyError:
            return None


def read() -> Facts:
    """The facts of this run."""
    raw = json.loads(os.environ[VARIABLE])
    users = [User(**user) for user in raw.pop("users")]
    return Facts(users=users, **raw)
