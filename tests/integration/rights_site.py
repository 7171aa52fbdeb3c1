# SPDX-License-Identifier: Apache-2.0
"""The whole application in this process, with a principal for each role at each kind of scope, for tests of rights."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

from click.testing import CliRunner
from starlette.testclient import TestClient

from control_plane.app import build
from control_plane.authority import claims
from control_plane.authority.claims import Subject
from control_plane.cli import main
from control_plane.clock import now
from control_plane.hub import Hub, open_hub
from control_plane.storage import principals
from control_plane.storage.models import Principal
from tests.integration.hub_process import database_options

URL = "https://hub.example:8443"
SUB = "11111111-1111-4111-8111-111111111111"
S = f"/subscriptions/{SUB}"
G, OTHER_G = f"{S}/resourceGroups/fleet", f"{S}/resourceGroups/fleet-2"
P = "providers/Microsoft.HybridCompute"
M, OTHER_M = f"{G}/{P}/machines/web01", f"{G}/{P}/machines/web01x"
SCOPES = {"hub": "/", "subscription": S, "group": G, "machine": M, "neighbour group": OTHER_G, "neighbour": OTHER_M}
ROLES = {
    "O": "Owner",
    "C": "Contributor",
    "R": "Reader",
    "N": "Onboarding",
    "A": "Resource Administrator",
}


def concrete(shape: str) -> str:
    """A path of a shape, about what exists."""
    parts, names = shape.split("/"), {"subscriptions": SUB, "resourcegroups": "fleet", "machines": "web01"}
    found = [names.get(parts[index - 1], "one") if part == "*" else part for index, part in enumerate(parts)]
    path = "/" + "/".join(found)
    return (
        path.replace("/tags/one", "/tags/default")
        .replace("/licenseprofiles/one", "/licenseprofiles/default")
        .replace("/settings/one", "/settings/default")
    )


class Site:
    """The application with one principal for each role and scope."""

    def __init__(self, hub: Hub, client: TestClient) -> None:
        self.hub, self.client = hub, client
        self.tokens: dict[tuple[str, str], str] = {}
        self.principals: dict[tuple[str, str], Principal] = {}
        with hub.database.write() as session:
            for letter, role in ROLES.items():
                for kind, scope in SCOPES.items():
                    self.principals[letter, kind] = principals.create(session, f"{letter}-{kind}", role, scope)
            self.nobody = principals.create(session, "nobody", "Reader", f"{S}/resourceGroups/elsewhere")
        for key, principal in self.principals.items():
            self.tokens[key] = self.token(principal)

    def token(self, principal: Principal) -> str:
        subject = Subject(principal.id, principal.object_id)
        return self.hub.tokens.issue(subject, URL, claims.SECRET, now(), 3600)

    def ask(self, token: str | None, method: str, path: str, body: Any = None, **query: str) -> Any:
        headers = {"Authorization": f"Bearer {token}"} if token is not None else {}
        if not path.startswith("/hawser/"):
            query["api-version"] = "2024-07-10"
        return self.client.request(method, path, params=query, headers=headers, json=body)

    def restore(self) -> None:
        """The two groups and the machines, whatever a permitted DELETE took away."""
        owner = self.tokens["O", "hub"]
        for group in (G, OTHER_G):
            assert self.ask(owner, "PUT", group, {"location": "local"}).status_code in (200, 201)
        for machine in (M, OTHER_M):
            body = {"location": "local", "properties": {"vmId": str(uuid4())}}
            assert self.ask(owner, "PUT", machine, body).status_code in (200, 409)


@contextmanager
def running(data: Path) -> Iterator[Site]:
    """A hub in `data` with two groups and two machines."""
    arguments = ["--data", str(data), "init", "--url", URL, "--subscription-id", SUB, *database_options()]
    assert CliRunner().invoke(main, arguments, catch_exceptions=False).exit_code == 0
    hub = open_hub(data)
    with TestClient(build(hub), base_url=URL) as client:
        made = Site(hub, client)
        made.restore()
        yield made
    hub.database.close()
