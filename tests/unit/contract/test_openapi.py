# SPDX-License-Identifier: Apache-2.0
"""The OpenAPI document is valid and complete; what ships with the hub is what the documentation shows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator

from control_plane.api import openapi
from control_plane.api.router import OPERATIONS, REPEATED, Operation

ROOT = Path(__file__).parents[3]
DOCS = ROOT / "docs" / "schemas"
SHIPPED = ROOT / "control_plane" / "api" / "schemas"


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    return dict(openapi.document(OPERATIONS, "https://hub.example:8443", "tenant", REPEATED))


def test_the_document_is_valid(document: dict[str, Any]) -> None:
    OpenAPIV31SpecValidator(json.loads(json.dumps(document))).validate()


def _id(operation: Operation) -> str:
    return f"{operation.method} {operation.path}"


@pytest.mark.parametrize("operation", OPERATIONS, ids=_id)
def test_every_operation_is_described(operation: Operation, document: dict[str, Any]) -> None:
    shown = document["paths"][operation.path][operation.method.lower()]
    assert operation.answer is not None or operation.status == 204, "name the schema of the answer in docs/schemas"
    takes_body = operation.method in ("POST", "PUT", "PATCH")
    assert (operation.body is not None) == takes_body, "name the schema of the body in docs/schemas"
    assert {item["name"] for item in shown["parameters"] if item["in"] == "query"} == set(operation.query)
    assert shown["summary"]
    assert ("security" in shown) == operation.open


@pytest.mark.parametrize("operation", OPERATIONS, ids=_id)
def test_refusals_are_those_that_can_be(operation: Operation, document: dict[str, Any]) -> None:
    shown = {int(status) for status in document["paths"][operation.path][operation.method.lower()]["responses"]}
    assert bool({401, 403, 429, 503} & shown) == (not operation.open)
    assert (413 in shown) == (operation.body is not None)
    assert (404 in shown) == ("{" in operation.path or 404 in operation.refuses)
    assert (409 in shown) == (409 in operation.refuses)
    assert shown >= {operation.status, *operation.also, 400, 500}
    assert 405 not in shown


def test_an_operation_without_schemas_makes_no_document() -> None:
    def handler(_call: Any) -> Any:
        return None

    for row in (
        Operation("GET", "/x", handler, "No answer"),
        Operation("GET", "/x", handler, "Unknown parameter", answer="ticket", query=("nobody-knows",)),
        Operation("GET", "/{nothing}", handler, "Unknown name", answer="ticket"),
        Operation("GET", "/x", handler, "No such schema", answer="none-such"),
    ):
        with pytest.raises((ValueError, KeyError, FileNotFoundError)):
            openapi.document([row], "https://hub", "tenant", REPEATED)


def test_names_of_operations_are_unique() -> None:
    names = [openapi.operation_id(operation) for operation in OPERATIONS]
    assert len(set(names)) == len(names)


def test_a_machine_is_found_by_any_spelling_of_its_id() -> None:
    from control_plane.api.router import find

    machine = "subscriptions/S/resourceGroups/G/providers/Microsoft.HybridCompute/machines/web01"
    for path in (
        f"/hawser/v1/machines/{machine}",
        f"/hawser/v1/machines//{machine}/",
        f"/HAWSER/v1/Machines/{machine}",
    ):
        operation, names = find("GET", path)
        assert (operation.path, names[0].lstrip("/")) == ("/machines/{machine}", machine)
    assert find("GET", "/hawser/v1/machines/summary")[0].path == "/machines/summary"


@pytest.mark.parametrize("path", sorted(SHIPPED.glob("*.json")), ids=lambda path: str(path.name))
def test_what_ships_is_what_is_documented(path: Path) -> None:
    assert path.read_bytes() == (DOCS / path.name).read_bytes(), f"copy docs/schemas/{path.name} to {SHIPPED}"


def test_the_schema_of_the_configuration_is_documented() -> None:
    shipped = ROOT / "control_plane" / "config.schema.json"
    assert shipped.read_bytes() == (DOCS / "hub-config.schema.json").read_bytes(), (
        "copy control_plane/config.schema.json"
    )
