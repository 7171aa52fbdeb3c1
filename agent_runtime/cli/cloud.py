# SPDX-License-Identifier: Apache-2.0
"""`azcmagent cloud add|list|remove`: cloud profiles of this machine. Ours; the vendor's clouds are built in."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agent_runtime import errors
from agent_runtime.cli.output import columns

if TYPE_CHECKING:
    from agent_runtime.cli.parsing import Parser
    from agent_runtime.cli.session import Session


def configure(parser: Parser) -> None:
    parser.add_argument("action", choices=("add", "list", "remove"), help="what to do")
    parser.add_argument(
        "subject", nargs="?", metavar="FILE|NAME", help="add: a profile, `-` is standard input; remove: a name"
    )


def run(session: Session) -> int:
    action, subject = session.args.action, session.args.subject
    if action == "list":
        return _list(session)
    if not subject:
        what = "the file of a profile" if action == "add" else "the name of a profile"
        raise errors.ParameterMissing(
            f"azcmagent cloud {action} needs {what}", f"azcmagent cloud {action} {what.upper()[:4]}"
        )
    return _add(session, subject) if action == "add" else _remove(session, subject)


def _list(session: Session) -> int:
    clouds = session.clouds()
    rows = [(name, profile["arm"], ",".join(profile["locations"])) for name, profile in sorted(clouds.items())]
    data = {"clouds": [clouds[name] for name in sorted(clouds)]}
    text = (
        columns(("NAME", "ARM", "LOCATIONS"), rows)
        if rows
        else "No cloud profile. Add one with: azcmagent cloud add FILE"
    )
    session.out.result(data, text)
    return 0


def _add(session: Session, path: str) -> int:
    from agent_runtime.cli import jsoninput, options_file, profiles

    profile = profiles.check(jsoninput.parse(options_file.read(path), profiles.LIMIT))
    # A damaged profile of the same name is being repaired, so the others' state does not matter here.
    try:
        before = session.clouds().get(profile["name"])
    except errors.CloudNotObtained:
        before = None
    changed = before != profile
    if changed:
        profiles.save(session.paths, profile)
        session.tell_himds()
    data = {"status": "success", "name": profile["name"], "changed": changed}
    said = "added" if before is None else "replaced" if changed else "is there already, unchanged"
    session.out.result(data, f"Cloud profile {profile['name']} {said}")
    return 0


def _remove(session: Session, name: str) -> int:
    from agent_runtime.cli import profiles

    connected = session.status_or_none() or {}
    if str(connected.get("cloud") or "").lower() == name.lower() and connected.get("identityState") != "disconnected":
        raise errors.ConfigurationConflict(
            f"this machine is connected to cloud {name}", "Disconnect it first with: azcmagent disconnect"
        )
    if not profiles.remove(session.paths, name):
        raise errors.ParameterInvalid(
            f"there is no cloud profile called {name[:64]!r}", "See those there are with: azcmagent cloud list"
        )
    session.out.result({"status": "success", "name": name, "changed": True}, f"Cloud profile {name} removed")
    return 0
