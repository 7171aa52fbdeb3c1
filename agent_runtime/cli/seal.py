# SPDX-License-Identifier: Apache-2.0
"""`azcmagent seal`: makes an image safe to copy, or says what keeps it from being so (docs/golden-images.md). Ours."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from agent_runtime import errors
from agent_runtime.cli.parsing import switch

if TYPE_CHECKING:
    from agent_runtime.cli.imaging import Image, State
    from agent_runtime.cli.parsing import Parser
    from agent_runtime.cli.session import Session


def configure(parser: Parser) -> None:
    add = parser.add_argument
    add("--image-id", metavar="ID", help="name of the image, kept by every machine made from it; required")
    add("--enroll-on-first-boot", metavar="PROFILE", help="copies enrol by themselves, by this profile of the hub")
    add("--token-file", metavar="FILE|-", help="the enrolment token for that; `-` is a line of standard input")
    add("--cloud", metavar="NAME", help="cloud profile for that; default: the only one")
    add("--root", metavar="DIR", help="seal the image that is mounted at DIR, not this machine")
    switch(parser, "--force", "drop the identity of a connected machine; it stays at the hub")
    switch(parser, "--keep-logs", "leave the agent's logs in the image")
    switch(parser, "--check", "change nothing: say what would be cleared and whether the image is clean")
    switch(parser, "--agent-only", "with --check: judge the agent's own files alone")


def run(session: Session) -> int:
    """Exit code 0; with `--check` 27 when something remains by which copies would be taken for one machine.

    Errors: AZCM0016, AZCM0023, AZCM0027, AZCM0069, AZCM0075; a repeated `seal` ends what one of them cut off.
    """
    from agent_runtime.cli import imaging

    args = session.args
    image = imaging.image_of(session, args.root)
    if args.check:
        return _check(session, image, agent_only=bool(args.agent_only))
    token = imaging.token_from(args.token_file) if args.token_file else None
    wish = imaging.wish_of(
        image, args.image_id, args.enroll_on_first_boot, token, args.cloud, bool(args.force), bool(args.keep_logs)
    )
    handlers = imaging.handlers(image)
    cleared = imaging.seal(image, wish)
    state = imaging.look(image)
    system = [*state.system, *handlers]
    if args.token_file not in (None, "-") and not args.root:
        session.out.warn(f"{args.token_file} still holds the enrolment token: remove it, or every copy has it")
    for warning in [*state.warnings, *(f"{item.item} still in the image: {item.remedy}" for item in system)]:
        session.out.warn(warning)
    data = {
        "status": "success",
        "state": "sealed",
        "imageId": wish.image_id,
        "changed": cleared is not None,
        "cleared": cleared or [],
        "warnings": session.out.warnings,
    }
    count = len(cleared or [])
    session.out.result(data, f"Sealed as {wish.image_id}: {count} files cleared; shut the machine down and copy it")
    return 0


def _check(session: Session, image: Image, agent_only: bool) -> int:
    from agent_runtime.cli import imaging

    state = imaging.look(image)
    failure = failure_of(state, agent_only)
    data: dict[str, Any] = {
        "status": "dirty" if failure else "clean",
        "state": state.identity,
        "imageId": state.image_id,
        "wouldClear": [{"path": item.path, "identity": item.is_identity} for item in state.remains],
        "operatingSystem": [
            {"item": item.item, "path": item.path, "remedy": item.remedy, "identity": item.is_identity}
            for item in state.system
        ],
        "warnings": state.warnings,
    }
    if failure:
        data["error"] = failure.as_dict()
    session.out.result(data, text(state))
    if failure is None:
        return 0
    if not session.args.json:
        session.out.error(failure)
    return failure.exit_code


def failure_of(state: State, agent_only: bool) -> errors.AgentError | None:
    """Why copies of the image would not be machines of their own; None when they would. Pure."""
    ours = [item.path for item in state.remains if item.is_identity]
    more = f" and {len(ours) - 1} more" if len(ours) > 1 else ""
    if ours and state.uninstalled:
        return errors.ConfigurationConflict(
            f"an agent that was uninstalled has left a cloning hazard, {ours[0]}{more}: once the agent is installed "
            "again, every copy is the same machine",
            "Remove /var/opt/azcmagent and /var/lib/GuestConfig from the image",
        )
    if state.unfinished:
        return errors.ConfigurationConflict("sealing was cut off", "Run 'azcmagent seal' again; it ends what was begun")
    if state.identity not in ("sealed", "disconnected"):
        return errors.ConfigurationConflict(
            f"the identity of this machine is {state.identity}: every copy would speak as this machine",
            "Run 'azcmagent disconnect', then 'azcmagent seal --image-id ID'",
        )
    if state.identity == "sealed" and state.image_id is None:
        return errors.ConfigurationConflict(
            "the birth record of this sealed image, image.json, is damaged or missing: its copies could neither notice "
            "that they are some nor join",
            "Run 'azcmagent seal --image-id ID' again",
        )
    if ours:
        return errors.ConfigurationConflict(
            f"the image holds what would make its copies one machine: {ours[0]}{more}",
            "Run 'azcmagent seal --image-id ID'; it clears leftovers of earlier installations too",
        )
    if agent_only:
        return None
    theirs = [item for item in state.system if item.is_identity]
    if theirs:
        names = ", ".join(item.item for item in theirs)
        return errors.ConfigurationConflict(
            f"the operating system's own identity is in the image: {names}", theirs[0].remedy
        )
    return None


def text(state: State) -> str:
    """What is in the image, one line each. Pure."""
    of_image = f" as {state.image_id}" if state.image_id else ""
    lines = [f"State: {state.identity}{of_image}"]
    lines += [f"would clear  {item.path}{'' if item.is_identity else '  (no identity)'}" for item in state.remains]
    lines += [f"in the image {item.path}  {item.item}: {item.remedy}" for item in state.system]
    lines += [f"warning: {warning}" for warning in state.warnings]
    return "\n".join(lines)
