# SPDX-License-Identifier: Apache-2.0
"""`azcmagent extension list|remove`: extensions on this machine (agent-surface.md section 5.6)."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from agent_runtime import errors
from agent_runtime.cli.output import columns

if TYPE_CHECKING:
    from agent_runtime.cli.parsing import Parser
    from agent_runtime.cli.session import Session


def configure(parser: Parser) -> None:
    parser.add_argument("action", choices=("list", "remove"), help="what to do")
    parser.add_argument("-n", "--name", metavar="NAME", help="remove: the type of the extension, or its name")
    parser.add_argument("-a", "--all", action="store_true", help="remove: every extension")


def run(session: Session) -> int:
    """Errors: AZCM0072 while the extension service runs, AZCM0016, AZCM0023 for a name that means nothing."""
    from agent_runtime.extensions import removing

    records = removing.known(session.paths)
    if session.args.action == "list":
        return _list(session, records)
    if session.args.all and session.args.name:
        raise errors.ParameterInvalid("--name and --all exclude one another", "Give one of them")
    if not session.args.all and not session.args.name:
        raise errors.ParameterMissing("azcmagent extension remove needs a name", "Give --name NAME or --all")
    if session.args.all:
        return _remove(session, [(key, None) for key in records], sorted(_title(record) for record in records.values()))
    found = removing.matching(records, session.args.name)
    if found is None:
        raise errors.ParameterInvalid(
            f"there is no extension called {session.args.name[:64]!r}",
            "See those there are with: azcmagent extension list",
        )
    key, ident = found
    record = records[key]
    return _remove(session, [found], [_title(record) if ident is None else record["extensions"][ident]["name"]])


def _remove(session: Session, meant: list[tuple[str, str | None]], names: list[str]) -> int:
    from agent_runtime.extensions import removing
    from agent_runtime.extensions.timing import Timing

    if meant:
        for problem in removing.remove(session.paths, meant, Timing()):
            session.out.warn(problem)
        left = removing.known(session.paths)
        stay = [key for key, ident in meant if key in left and (ident is None or ident in left[key]["extensions"])]
        if stay:
            raise errors.ExtensionFailed(
                f"still there, because the folder cannot be deleted: {', '.join(sorted(stay))}",
                "See the warnings, end what uses the folder, and run the command again",
            )
    text = f"Removed: {', '.join(names)}" if names else "There is no extension on this machine"
    data = {"status": "success", "removed": names, "warnings": session.out.warnings}
    session.out.result(data, text)
    return 0


def _title(record: dict[str, Any]) -> str:
    return str(record["type"])


def _list(session: Session, records: dict[str, Any]) -> int:
    from agent_runtime.cli import binding
    from agent_runtime.extensions import plan

    bound = binding.read(session)
    own = records if bound is None else plan.own(records, str(bound.get("vmId")).lower())
    found = [_shown(session.paths.handlers, record, key not in own) for key, record in sorted(records.items())]
    rows = [
        (item["type"], item["version"], item["path"], item["state"] + (", FOREIGN" if item["foreign"] else ""))
        for item in found
    ]
    text = columns(("EXTENSION", "VERSION", "EXTENSION PATH", "STATE"), rows) if rows else "No extension"
    session.out.result({"extensions": found}, text)
    return 0


def _shown(folder: str, record: dict[str, Any], is_foreign: bool) -> dict[str, Any]:
    """`is_foreign`: it was wished for another machine, which this one was or was copied from."""
    version = record["version"] or next(iter(record["folders"]), "")
    extensions = record["extensions"].values()
    return {
        "type": record["type"],
        "publisher": record["publisher"],
        "version": version,
        "path": os.path.join(folder, f"{record['publisher']}.{record['type']}-{version}") if version else "",
        "state": str(record["state"]).upper(),
        "foreign": is_foreign,
        "extensions": [{key: known[key] for key in ("name", "sequence", "enabled")} for known in extensions],
    }
