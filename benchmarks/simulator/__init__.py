# SPDX-License-Identifier: Apache-2.0
"""Thousands of simulated machines in one asyncio process, speaking the protocol of docs/protocol.md to a real hub.

    from benchmarks.simulator import Fleet
    fleet = Fleet(url, ca_file, tenant_id, subscription_id, "fleet", credential, 1000)
    await fleet.enrol()             # PUT, enrolment, channel token, first check-in of each machine
    await fleet.run(seconds=60)     # heartbeats held by the hub, desired state, renewal, back-off
    fleet.summary()                 # what the machines saw; fleet.save(path) keeps it for another process

Each machine has a TLS connection of its own that it keeps alive, and its own identity, certificate, token, lease and
generations. What differs from real machines: RSA keys are 2048 bits and drawn from a small pool that machines share;
documents are checked for machine, kind and generation, not for their signature; nothing is written to disk between
`save`s.
"""

from __future__ import annotations

from benchmarks.simulator.client import Pace, Refusal
from benchmarks.simulator.fleet import Fleet, background
from benchmarks.simulator.machine import Machine
from benchmarks.simulator.twin import Twin
from benchmarks.simulator.wire import Broken

__all__ = ["Broken", "Fleet", "Machine", "Pace", "Refusal", "Twin", "background"]
