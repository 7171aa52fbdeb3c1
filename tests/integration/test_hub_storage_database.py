# SPDX-License-Identifier: Apache-2.0
"""Which databases of a PostgreSQL `init` takes: those that sort texts by their bytes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.integration.hub_process import REPOSITORY, HubProcess
from tests.integration.postgres_server import PostgresServer

BYTES = "ENCODING 'UTF8' LC_COLLATE 'C' LC_CTYPE 'C'"


def documented() -> str:
    """The options of the documented CREATE DATABASE."""
    page = (REPOSITORY / "docs/operations.md").read_text(encoding="utf-8")
    (found,) = re.findall(r"CREATE DATABASE hawser OWNER hawser (TEMPLATE template0 [^\"]+)\"", page)
    return str(found)


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (documented(), None),
        # What a cluster that was made with ICU gives where no provider is named.
        (f"TEMPLATE template0 LOCALE_PROVIDER icu ICU_LOCALE 'en' {BYTES}", "encoding UTF8 and collation C of ICU"),
        ("TEMPLATE template0 ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C'", "encoding LATIN1 and collation C."),
    ],
)
def test_a_database_must_sort_by_bytes(
    postgres: PostgresServer, tmp_path: Path, options: str, told: str | None
) -> None:
    hub = HubProcess(tmp_path / "data", "https://hub.example:8443", "", {})
    done = hub.run("init", "--url", hub.url, *postgres.fresh(options), check=False)
    assert done.returncode == (0 if told is None else 1), done.stderr
    if told is not None:
        assert told in done.stderr
        # The remedy is what is documented.
        assert documented() in done.stderr
        assert not (hub.data / "hub.json").exists()
