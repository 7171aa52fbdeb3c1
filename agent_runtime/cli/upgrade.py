# SPDX-License-Identifier: Apache-2.0
"""`azcmagent upgrade`: another version of the agent from the hub's repository (agent-surface.md section 5.8).

The upgrade is the watchdog's (agent_runtime/upgrade); this command begins it and shows its steps. Cancelled or killed,
it changes nothing about that.
"""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING, Any

from agent_runtime import errors
from agent_runtime.extensions import versions
from agent_runtime.upgrade import plan
from agent_runtime.upgrade.journal import Files

if TYPE_CHECKING:
    from agent_runtime.cli.parsing import Parser
    from agent_runtime.cli.session import Session

_VERSION = re.compile(r"[0-9]{1,9}(\.[0-9]{1,9}){0,3}", re.ASCII)
LOOK_SECONDS = 1.0
FIND_SECONDS = 600.0


def configure(parser: Parser) -> None:
    parser.add_argument(
        "--version", metavar="VERSION", help="the newest version that begins so, such as 1.2 or 1.2.0.4"
    )
    parser.add_argument("--cloud", metavar="NAME", help="the cloud profile; only for a machine that is not connected")
    parser.add_argument(
        "--deadline",
        type=int,
        default=plan.DEADLINE,
        metavar="SECONDS",
        help=f"time that the new version has for its first heartbeat ({plan.DEADLINE})",
    )
    parser.add_argument("--background", action="store_true", help="begin, and do not wait for the end")


def run(session: Session) -> int:
    """Errors: AZCM0023 for a version that is none, AZCM0003 where the agent cannot upgrade itself, AZCM0027 while
    another upgrade is under way, AZCM0026 and AZCM0074 of the repository, AZCM0061 without himds; AZCM0101 when the
    upgrade failed and the former version is back."""
    from agent_runtime.cli import binding
    from agent_runtime.service import worker
    from agent_runtime.upgrade import packages
    from agent_runtime.upgrade.watchdog import question_of
    from agent_runtime.workers import upgrades

    args = session.args
    if args.version is not None and not _VERSION.fullmatch(args.version):
        raise errors.ParameterInvalid(
            f"{args.version[:64]!r} is no version", "Give --version as one to four numbers with dots"
        )
    if not plan.DEADLINES[0] <= args.deadline <= plan.DEADLINES[1]:
        raise errors.ParameterInvalid(
            f"a deadline of {args.deadline} s cannot be kept",
            f"Give --deadline from {plan.DEADLINES[0]} to {plan.DEADLINES[1]} seconds",
        )
    manager = packages.here()
    # himds faces the network: whose packages root installs is not its to say.
    bound = binding.read(session) or {}
    cloud = str(bound.get("cloud") or session.cloud(args.cloud)["name"])
    if args.cloud and args.cloud.lower() != cloud.lower():
        raise errors.ParameterInvalid(
            f"this machine belongs to cloud {cloud!r}, not to {args.cloud[:64]!r}", "Leave --cloud out"
        )
    files = Files(session.paths)
    files.make()
    upgrades.resume_upgrade({"root": ""})
    files.check_idle()
    question = {**question_of(session.paths, files, cloud), "format": manager.format, "version": args.version}
    version = str(worker.ask("find-agent", question, FIND_SECONDS)["version"])
    if version == session.version or (args.version is None and versions.is_newer(session.version, version)):
        data = {"status": "success", "changed": False, "version": session.version}
        newest = "" if version == session.version else f"; the newest in the repository is {version}"
        session.out.result(data, f"Version {session.version} is installed already{newest}")
        return 0
    wish = plan.Wish(
        by="command",
        machine=str(bound.get("vmId") or "").lower(),
        cloud=cloud,
        installed=session.version,
        version=version,
        format="",
        deadline=args.deadline,
    )
    members = {name: value for name, value in wish._asdict().items() if name != "format"}
    journal = upgrades.begin_upgrade({"root": "", "wish": members})["journal"]
    session.tell_himds()  # which tells extd, which reports
    if args.background:
        session.out.result({"status": "begun", **plan.report(journal)}, f"The upgrade to version {version} has begun")
        return 0
    return _told(session, _followed(session, files, journal))


def _followed(session: Session, files: Files, begun: plan.Journal) -> plan.Journal:
    """The journal at its end; each step is shown as it comes."""
    shown, start = 0, time.monotonic()
    journal = begun
    while True:
        for step in journal["steps"][shown:]:
            session.out.line(f"{time.monotonic() - start:6.1f} s  {step['message']}")
        shown = len(journal["steps"])
        if plan.is_final(journal):
            return journal
        time.sleep(LOOK_SECONDS)
        found = files.read()
        if found is None or found["id"] != begun["id"]:
            raise errors.ConfigurationConflict("the journal of the upgrade is gone", f"See {files.log}")
        journal = found


def _told(session: Session, journal: plan.Journal) -> int:
    """Errors: what the upgrade ended with."""
    if journal["state"] == plan.SUCCEEDED:
        data: dict[str, Any] = {"status": "success", "changed": True, "version": journal["to"], **plan.report(journal)}
        session.out.result({**data, "steps": journal["steps"]}, "")
        return 0
    if journal["error"]:
        raise errors.from_dict(journal["error"])
    if journal["state"] == plan.ROLLED_BACK:
        raise errors.CommandFailed(
            f"{journal['message']}. Version {journal['from']} is back", "See himds.log and 'journalctl -u himdsd'"
        )
    raise errors.CommandFailed(str(journal["message"]), "Look at the agent's services, and repair its package")
