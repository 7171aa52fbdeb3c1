# SPDX-License-Identifier: Apache-2.0
"""`azcmagent config list|get|set|clear|info` (agent-surface.md section 5.3)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from agent_runtime import errors
from agent_runtime.cli.output import shown, table
from agent_runtime.state import config as properties

if TYPE_CHECKING:
    from agent_runtime.cli.parsing import Parser
    from agent_runtime.cli.session import Session

ACTIONS = ("list", "get", "set", "clear", "info")


def configure(parser: Parser) -> None:
    parser.add_argument("action", choices=ACTIONS, help="what to do")
    parser.add_argument("property", nargs="?", help="name of the property")
    parser.add_argument("value", nargs="?", help="new value; lists by commas")
    change = parser.add_mutually_exclusive_group()
    change.add_argument("-a", "--add", action="store_true", help="set: append to a list")
    change.add_argument("-r", "--remove", action="store_true", help="set: remove from a list")


def run(session: Session) -> int:
    """Errors: AZCM0016, AZCM0023 (unknown property or value, nothing is written), AZCM0027, AZCM0069, AZCM0070."""
    args = session.args
    _require_words(args)
    actions = {"list": _list, "get": _get, "set": _set, "clear": _clear, "info": _info}
    return actions[args.action](session)


def _require_words(args: Any) -> None:
    if (args.add or args.remove) and args.action != "set":
        raise errors.ParameterInvalid("--add and --remove belong to azcmagent config set", "Leave them out")
    needs_property = args.action in ("get", "set", "clear")
    if needs_property and not args.property:
        raise errors.ParameterMissing(
            f"azcmagent config {args.action} needs the name of a property", "See those there are: azcmagent config info"
        )
    if args.action == "set" and args.value is None:
        raise errors.ParameterMissing(
            "azcmagent config set needs a value", f"To go back to the default: azcmagent config clear {args.property}"
        )
    if (args.value is not None and args.action != "set") or (args.property and args.action == "list"):
        raise errors.CommandFailed(
            f"azcmagent config {args.action} has more arguments than it takes", "See: azcmagent config --help"
        )


def _list(session: Session) -> int:
    values = session.config()
    values["proxy.url"] = properties.without_password(values["proxy.url"])
    rows = [
        ("  " + name + (" (preview)" if row.preview else ""), shown(values[name]))
        for name, row in properties.PROPERTIES.items()
    ]
    data = {"localSettings": [{"key": name, "value": value} for name, value in values.items()]}
    session.out.result(data, f"Local Configuration Settings\n{table(rows)}")
    return 0


def _get(session: Session) -> int:
    name = properties.find(session.args.property).name
    value = session.config()[name]
    session.out.result({"key": name, "value": value}, shown(value))
    return 0


def _set(session: Session) -> int:
    args = session.args
    row = properties.find(args.property)
    own = properties.load(session.paths).get(row.name, row.default)
    value: properties.Value
    if args.add:
        value = properties.with_added(row, own, args.value)
    elif args.remove:
        value = properties.with_removed(row, own, args.value)
    else:
        value = properties.parse(row.name, args.value)
    if row.name == "connection.type" and value != "direct":
        raise errors.NotSupported("connection.type gateway is not supported by this release", "Leave it at direct")
    return _write(session, row.name, value)


def _clear(session: Session) -> int:
    return _write(session, properties.find(session.args.property).name, None)


def _write(session: Session, name: str, value: Any) -> int:
    changed = properties.update(session.paths, {name: value})
    if changed:
        for warning in session.tell_himds():
            session.out.warn(warning)
    now = session.config()[name]
    data = {"status": "success", "key": name, "value": now, "changed": changed, "warnings": session.out.warnings}
    said = properties.without_password(shown(now)) or "empty"
    session.out.result(data, f"{name} is {'now' if changed else 'already'} {said}")
    return 0


def _info(session: Session) -> int:
    name = session.args.property
    rows = [properties.find(name)] if name else list(properties.PROPERTIES.values())
    data = [
        {
            "displayName": row.name,
            "type": row.kind,
            "isList": row.is_list,
            "inPreview": row.preview,
            "allowed": list(row.allowed),
            "description": {"general": row.description, "example": row.example, "default": row.default},
        }
        for row in rows
    ]
    session.out.result(data[0] if name else data, "\n\n".join(_explained(row) for row in rows))
    return 0


def _explained(row: properties.Property) -> str:
    lines = [
        ("Description", row.description),
        ("Default", shown(row.default) or "empty"),
        ("Example", f"azcmagent config set {row.name} {row.example}"),
    ]
    if row.allowed:
        lines.insert(1, ("Allowed", ", ".join(row.allowed)))
    return f"{row.name}{' (preview)' if row.preview else ''}\n" + table([(f"  {key}", text) for key, text in lines])
