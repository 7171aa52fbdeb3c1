# SPDX-License-Identifier: Apache-2.0
"""`azcmagent apply -` and `plan -`: a machine's whole desired state in one call (docs/protocol.md section 11). Ours."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from agent_runtime import errors
from agent_runtime.version import VERSION

if TYPE_CHECKING:
    from agent_runtime.cli.parsing import Parser
    from agent_runtime.cli.planning import Plan
    from agent_runtime.cli.session import Session

INPUT_LIMIT = 256 * 1024


def configure(parser: Parser) -> None:
    parser.add_argument("input", metavar="-", help="`-`: the wish is read from standard input, as JSON")


def run(session: Session) -> int:
    """Exit code 0 or the number of the answer's error code; standard output holds one JSON object in every case."""
    return answer(session, act=True)


def blank() -> dict[str, Any]:
    """The answer of which nothing is known yet (docs/schemas/apply-answer.schema.json)."""
    return {
        "schema": 1,
        "agent_version": VERSION,
        "changed": False,
        "reasons": [],
        "before": {},
        "after": {},
        "steps": [],
        "warnings": [],
        "credential_required": [],
        "error": None,
    }


def tell(body: dict[str, Any]) -> None:
    """Print the answer; the callers of `apply` and `plan` are promised one JSON object whatever happens."""
    # One line: Windows PowerShell and terminals of ssh break what is longer than a line anywhere they like.
    import json

    sys.stdout.write(json.dumps(body, ensure_ascii=True, separators=(",", ":")) + "\n")
    sys.stdout.flush()


def answer(session: Session, *, act: bool) -> int:
    """Reads the wish, makes the plan, carries it out if `act`, and prints the answer."""
    body = blank()
    from agent_runtime.cli.session import disk_error

    problem: errors.AgentError | None = None
    try:
        _fill(session, body, act)
    except errors.AgentError as found:
        problem = found
    except KeyboardInterrupt:
        problem = errors.Cancelled("cancelled", "Run the command again; it goes on where it was")
    except OSError as found:
        problem = disk_error(found)
    except Exception as found:
        session.log.exception(found)
        problem = errors.InternalError(f"an error inside azcmagent: {type(found).__name__}", "See azcmagent.log")
    if problem is not None:
        body["error"] = problem.as_dict()
        session.log.failed(problem)
    tell(body)
    return problem.exit_code if problem is not None else 0


def _fill(session: Session, body: dict[str, Any], act: bool) -> None:
    from agent_runtime.cli import applying, planning

    if session.args.input != "-":
        raise errors.ParameterInvalid("the wish is read from standard input only", "Give `-` as the argument")
    wish, secrets = applying.read_wish(sys.stdin.buffer.read(INPUT_LIMIT + 1), INPUT_LIMIT)
    actual = applying.look(session, wish)
    made = planning.plan(wish, actual)
    applying.check_new_profile(wish, made)
    applying.check_image(session, wish, made, secrets.enrolment)
    body["before"] = body["after"] = planning.view(wish, actual)
    body["warnings"] += made.warnings
    _describe(body, made)
    if not act:
        body["steps"] = [{"name": name, "seconds": 0} for name in made.steps]
        body["changed"] = bool(made.steps)
        body["after"] = planning.view(wish, planning.project(wish, actual, made))
        return
    if made.credential_required and secrets.access is None:
        wanted = ", ".join(f"{need.operation} {need.resource_id}" for need in made.credential_required)
        raise errors.ParameterMissing(
            f"the change needs a credential for: {wanted}",
            "Give connection.credential.access_token: a ticket for these",
        )
    for name in made.steps:
        body["steps"].append({"name": name, "seconds": applying.carry_out(session, name, wish, made, secrets, body)})
        body["changed"] = True
        body["after"] = planning.view(wish, applying.look(session, wish))


def _describe(body: dict[str, Any], made: Plan) -> None:
    body["reasons"] = [reason._asdict() for reason in made.reasons]
    body["credential_required"] = [need._asdict() for need in made.credential_required]
