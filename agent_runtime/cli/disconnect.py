# SPDX-License-Identifier: Apache-2.0
"""`azcmagent disconnect`: deletes the machine at the hub and resets the local identity (agent-surface.md 5.2)."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agent_runtime.cli import binding, credential, naming
from agent_runtime.cli.parsing import switch

if TYPE_CHECKING:
    from agent_runtime.cli.parsing import Parser
    from agent_runtime.cli.session import Session


def configure(parser: Parser) -> None:
    switch(parser, "--force-local-only", "reset this machine only; the hub is not asked")
    # `-f` takes no value, so it stands apart from the long form that may be given one.
    parser.add_argument("-f", dest="force_local_only", action="store_true", help="short for --force-local-only")
    credential.configure(parser)


def run(session: Session) -> int:
    """Exit code 0 also when there was nothing to disconnect. Errors: AZCM0016, AZCM0041, AZCM0043, AZCM0063."""
    args = session.args
    credential.warn_about_command_line(session)
    naming.check_guid("--tenant-id", args.tenant_id)
    way = credential.chosen(args, needed=False)
    status = session.himds().status()
    if status.get("identityState") == "disconnected":
        binding.forget(session)
        data = {"status": "success", "resourceId": None, "deleted": False}
        session.out.result(data, "This machine is not connected: there was nothing to disconnect")
        return 0
    token = None
    if not args.force_local_only:
        if way is None:
            credential.chosen(args)
        profile = session.cloud(status.get("cloud"))
        token = credential.token(session, way, profile, args.tenant_id or profile["tenant_id"])
    result = binding.disconnect(session, token, bool(args.force_local_only))
    where = "here; at the hub it was not touched" if args.force_local_only else "here and deleted at the hub"
    session.out.result({"status": "success", **result}, f"Disconnected: {result.get('resourceId')} is gone {where}")
    return 0
