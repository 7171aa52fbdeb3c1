# SPDX-License-Identifier: Apache-2.0
"""`azcmagent plan -`: what `apply` would do, and nothing of it (docs/protocol.md section 11). Ours."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agent_runtime.cli import apply

if TYPE_CHECKING:
    from agent_runtime.cli.session import Session

configure = apply.configure


def run(session: Session) -> int:
    """Exit code 0 or the number of the answer's error code."""
    return apply.answer(session, act=False)
