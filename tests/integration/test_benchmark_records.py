# SPDX-License-Identifier: Apache-2.0
"""Records that a benchmark writes in bulk are machines like any other: they prove themselves, check in and are seen."""

from __future__ import annotations

import uvloop

from benchmarks import records
from benchmarks.checkin_load import closed, paced
from benchmarks.records import Owned
from benchmarks.simulator import Fleet
from benchmarks.site import Site


async def exercise(known: Fleet, fresh: Fleet) -> None:
    assert (await paced(known, 4, 200.0))["statuses"] == {200: 10}
    load = await closed(known, 3, 0.2)
    assert load["checkins"] == load["statuses"][200] > 3
    assert load["p50_ms"] <= load["p99_ms"] <= load["max_ms"]
    for machine in fresh.machines:
        machine.seen.token = ""
    await fresh.checkin()
    await fresh.machines[0].desired("resource")
    assert fresh.summary()["unexpected"] == 0
    known.close()
    fresh.close()


def test_records_written_in_bulk_check_in() -> None:
    owned: list[Owned] = []
    site = Site(lambda made: owned.append(records.write(made, 40, 10, tokens=True)))
    try:
        uvloop.run(exercise(owned[0].fleet(site), owned[0].fleet(site, count=3)))
        query = {"subscriptionId": site.hub.subscription_id, "status": "Connected", "$top": "100"}
        seen = {row["name"] for row in site.get("/hawser/v1/machines", **query).json()["value"]}
        assert {state.name for state in owned[0].states} <= seen
        assert len(site.get("/hawser/v1/machines", subscriptionId=site.hub.subscription_id).json()["value"]) == 40
        assert site.memory() > 0
    finally:
        site.stop()
