# SPDX-License-Identifier: Apache-2.0
"""What one process of the hub has written of twins, another one obeys, whatever the clocks of their machines say."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import cast

import pytest
from sqlalchemy import select

from control_plane.channel.live import Live
from control_plane.channel.twins import Twins
from control_plane.errors import ApiError
from control_plane.hub import open_database
from control_plane.storage import twins as rows
from control_plane.storage.database import Database
from control_plane.storage.models import Machine as MachineRow
from tests.integration.hub_machine import Machine, beating, vector
from tests.integration.hub_process import HubProcess

OTHERS = [vector(machine_id="m1", dmi_uuid=f"u{number}", dmi_serial=f"s{number}") for number in (2, 3)]


@pytest.fixture(scope="module")
def hub(make_hub: Callable[..., HubProcess]) -> HubProcess:
    return make_hub("--location", "local")


@pytest.fixture
def database(hub: HubProcess) -> Iterator[Database]:
    found = open_database(hub.data)
    yield found
    found.close()


@pytest.mark.parametrize("behind", [100, 5000], ids=["a while ago", "by a clock that is behind"])
def test_a_holder_that_one_process_has_healed_is_heard_by_the_others(
    hub: HubProcess, database: Database, behind: int
) -> None:
    evidence = vector(machine_id="m1", dmi_uuid="u1", dmi_serial="s1")
    original = Machine(hub, f"web-{behind}", evidence=evidence, boot="b1").connect(
        hub.token(hub.principal(f"owner-{behind}", "Owner"))
    )
    with beating(original):
        for number, other in enumerate(OTHERS):
            assert original.copy(evidence=other, boot=f"c{number}").ask().status_code == 403
    hub.execute("UPDATE twins SET last = last - 1000")
    reader = Twins(database, cast(Live, None))  # which it needs for heartbeats alone
    reader.apply()
    with database.read() as session:
        machine = session.scalars(select(MachineRow).where(MachineRow.vm_id == original.vm_id)).one()
        ident = machine.id
    digest = OTHERS[0]["digest"]
    with pytest.raises(ApiError, match="in use elsewhere"):
        reader.admit(ident, digest, "c0")
    with database.write() as session:
        row = session.get_one(MachineRow, ident)
        last = hub.rows("SELECT max(last) FROM twins")[0][0]
        rows.settle(session, row, (rows.Key(digest),), int(last) + 1000 - behind)
    reader.apply()
    reader.admit(ident, digest, "c0")
    with pytest.raises(ApiError, match="in use elsewhere"):
        reader.admit(ident, OTHERS[1]["digest"], "c1")
