# SPDX-License-Identifier: Apache-2.0
"""The pure parts of taking machines back after a restore, and of planning migrations."""

from __future__ import annotations

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from hypothesis import given
from hypothesis import strategies as st

from control_plane import pki
from control_plane.channel import returning
from control_plane.channel.verdict import GAP_SLACK, in_gap
from control_plane.clock import now
from control_plane.errors import OperatorError
from control_plane.operate import migrate
from control_plane.storage.database import revisions

CLIENT, VM = "0a0a0a0a-0000-4000-8000-000000000001", "0b0b0b0b-0000-4000-8000-000000000002"
KEY = rsa.generate_private_key(65537, 2048)
OURS, OTHERS = pki.make_ca("hawser machine CA"), pki.make_ca("hawser machine CA")


@pytest.mark.parametrize(
    ("moment", "gaps", "found"),
    [
        (100, None, False),
        (100, [], False),
        (100, [[100, 200]], True),
        (200, [[100, 200]], True),
        (201, [[100, 200]], False),
        (100 - GAP_SLACK, [[100, 200]], True),
        (99 - GAP_SLACK, [[100, 200]], False),
        (550, [[100, 200], [500, 600]], True),
        (350, [[100, 200], [500, 600]], False),
    ],
)
def test_a_gap_is_what_the_database_does_not_remember(moment: int, gaps: list[list[int]] | None, found: bool) -> None:
    assert in_gap(moment, gaps) is found


def test_only_a_sign_in_certificate_of_the_own_machine_ca_identifies() -> None:
    public = KEY.public_key()
    good = pki.issue_machine(OURS, public, CLIENT, VM)
    assert returning.identified(good, OURS.certificate) == (CLIENT, VM)
    assert abs(returning.issued(good) - now()) < 120
    assert returning.identified(pki.issue_machine(OTHERS, public, CLIENT, VM), OURS.certificate) is None
    assert returning.identified(pki.issue_machine(OURS, public, CLIENT, VM, encipher=True), OURS.certificate) is None
    assert returning.identified(OURS.certificate, OURS.certificate) is None


@given(st.sampled_from(revisions()), st.sampled_from(revisions()))
def test_steps_lead_from_one_revision_to_the_other(found: str, target: str) -> None:
    known = revisions()
    passed = migrate.steps(found, target)
    assert len(passed) == abs(known.index(found) - known.index(target))
    if known.index(target) > known.index(found):
        assert passed[-1] == target
    assert found not in passed or known.index(found) > known.index(target)


def test_steps_of_an_empty_database_and_of_unknown_revisions() -> None:
    assert migrate.steps(None, migrate.HEAD) == list(revisions())
    for found, target in (("9999", migrate.HEAD), ("0001", "9999")):
        with pytest.raises(OperatorError, match="no way"):
            migrate.steps(found, target)
