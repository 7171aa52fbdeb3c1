# SPDX-License-Identifier: Apache-2.0
"""ARM's extensions and run commands of machines as identity-and-arm-api.md C.3, C.7 and C.8 describe them, in memory.

For what a hub does that a test cannot bring a real one to do at will: other forms of long-running operations,
operations that fail, a hub that goes away meanwhile. `test_collection_extensions.py` asks a real one.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from tests.integration.collection_fake_hub import Answer, FakeHub

WRITE_ONLY = ("protectedSettings", "protectedParameters", "runAsPassword")


@dataclass
class FakeArm(FakeHub):
    """`way`: how writes go on, `operation`, `location`, `resource` or `now`. `looks`: how many an operation takes.

    `fate`: how the next operations end, `Succeeded` or an error; `trouble`: answers that come before the true ones.
    `said`: the instance view of a run command that has ended. `sent`: bodies of all PUTs. `operations`: by number, what
    each is about and how many looks it still takes; hosts work beside one another.
    """

    way: str = "operation"
    looks: int = 2
    fate: str | dict[str, str] = "Succeeded"
    machines: set[str] = field(default_factory=lambda: {"web01"})
    resources: dict[str, dict[str, Any]] = field(default_factory=dict)
    sent: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    trouble: list[Answer] = field(default_factory=list)
    said: dict[str, Any] = field(default_factory=dict)
    operations: dict[str, tuple[str, str, int]] = field(default_factory=dict)

    def answer(self, method: str, path: str, body: Any) -> Answer:
        """The answer to a request."""
        if path.endswith("/oauth2/v2.0/token"):
            return Answer(200, {"access_token": "fake", "token_type": "Bearer", "expires_in": 3600})
        self.asked.append(f"{method} {path}")
        if self.trouble and "/operations/" in path:
            return self.trouble.pop(0)
        parts = urlsplit(path)
        assert parse_qs(parts.query).get("api-version"), path
        target = unquote(parts.path)
        if "/operations/" in target:
            return self._look(target.rsplit("/", maxsplit=1)[-1])
        if method == "PUT":
            return self._put(target, body)
        if method == "DELETE":
            return self._delete(target)
        return self._get(target)

    def _get(self, target: str) -> Answer:
        if self.way == "resource":
            for number in [key for key, (_, about, _) in self.operations.items() if about.lower() == target.lower()]:
                self._advance(number)
        kind, name = target.split("/")[-2:]
        if kind == "machines":
            known = name in self.machines
            return Answer(200, {"id": target, "name": name, "location": "local"}) if known else self._missing()
        if name in {"extensions", "runCommands"}:
            rows = [row for key, row in self.resources.items() if key.startswith(f"{target.lower()}/")]
            return Answer(200, {"value": rows, "nextLink": None})
        found = self.resources.get(target.lower())
        return Answer(200, copy.deepcopy(found)) if found else self._missing()

    @staticmethod
    def _missing() -> Answer:
        return Answer(404, {"error": {"code": "ResourceNotFound", "message": "There is none."}})

    def _put(self, target: str, body: dict[str, Any]) -> Answer:
        self.sent.append((target, body))
        properties = {key: value for key, value in body["properties"].items() if key not in WRITE_ONLY}
        properties["provisioningState"] = "Creating"
        resource = {"id": target, "name": target.rsplit("/", maxsplit=1)[-1], **body, "properties": properties}
        self.resources[target.lower()] = resource
        return self._begin("PUT", target, 200 if "/extensions/" in target else 201)

    def _delete(self, target: str) -> Answer:
        if target.lower() not in self.resources:
            return Answer(204)
        self.resources[target.lower()]["properties"]["provisioningState"] = "Deleting"
        return self._begin("DELETE", target, 202)

    def _begin(self, method: str, target: str, status: int) -> Answer:
        number = str(len(self.operations) + 1)
        self.operations[number] = (method, target, self.looks)
        url = f"{{url}}/operations/{number}?api-version=2026-07-15"
        # An answer to DELETE that leads nowhere means that it is done.
        if self.way == "now" or (method == "DELETE" and self.way == "resource"):
            self.operations[number] = (method, target, 0)
            self._advance(number)
        headers = {"operation": {"Azure-AsyncOperation": url}, "location": {"Location": url}}.get(self.way, {})
        status = 202 if self.way == "location" else status
        if method == "DELETE":
            return Answer(status if headers else 204, None, headers)
        return Answer(status, copy.deepcopy(self.resources[target.lower()]), {**headers, "Retry-After": "1"})

    def _advance(self, number: str) -> bool:
        """One look; whether the operation has ended."""
        method, target, left = self.operations[number]
        self.operations[number] = (method, target, left - 1)
        resource = self.resources.get(target.lower())
        if left > 1 or resource is None or left < 0:
            return left <= 1
        properties = resource["properties"]
        if method == "DELETE":
            del self.resources[target.lower()]
        elif self.fate == "Succeeded":
            properties["provisioningState"] = "Succeeded"
            properties["instanceView"] = self.said or {
                "name": resource["name"],
                "status": {"code": "0", "level": "Information", "message": "It went well."},
                "typeHandlerVersion": "1.0.3",
            }
        else:
            properties["provisioningState"] = "Failed"
            properties["instanceView"] = {"status": {"code": "1009", "level": "Error", "message": "It said no."}}
        return True

    def _look(self, number: str) -> Answer:
        ended = self._advance(number)
        if self.way == "location":
            resource = self.resources.get(self.operations[number][1].lower())
            return Answer(200, resource) if ended else Answer(202, None, {"Retry-After": "1"})
        body: dict[str, Any] = {"status": "InProgress", "percentComplete": 40}
        if ended:
            body = {"status": "Succeeded", "percentComplete": 100}
            if self.fate != "Succeeded":
                body = {"status": "Failed", "error": self.fate}
        return Answer(200, body, {"Retry-After": "1"})
