# SPDX-License-Identifier: Apache-2.0
"""`azcmagent unseal`: a sealed machine may connect again (docs/golden-images.md). Ours."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agent_runtime import errors
from agent_runtime.cli.parsing import switch

if TYPE_CHECKING:
    from agent_runtime.cli.parsing import Parser
    from agent_runtime.cli.session import Session


def configure(parser: Parser) -> None:
    switch(parser, "--here", "this is the builder, and the image is to be changed; it does not enrol by itself")
    switch(parser, "--first-boot", "this is a copy that boots for the first time: what a first-boot hook says")
    switch(parser, "--if-copied", "only where the evidence says so; with --first-boot also where it can say nothing")
    parser.add_argument("--root", metavar="DIR", help="unseal the image that is mounted at DIR, not this machine")


def run(session: Session) -> int:
    """Exit code 0 also when the machine was not sealed, or stays so. Errors: AZCM0016, AZCM0027, AZCM0069."""
    from agent_runtime.cli import imaging
    from agent_runtime.identity import birth, sealing

    args = session.args
    if bool(args.here) == bool(args.first_boot or args.if_copied):
        raise errors.ParameterMissing(
            "unseal needs to be told why", "Give --here on the builder, or --first-boot in a copy's first-boot hook"
        )
    image = imaging.image_of(session, args.root)
    by: str | None = sealing.HERE if args.here else sealing.FIRST_BOOT
    try:
        journal = sealing.unfinished(image.paths)
        if journal is not None:
            # Whatever this machine is, the identity that was to be dropped is not its own any more.
            with imaging.standing_still(image):
                sealing.finish(image.paths, journal)
    except ValueError:
        raise errors.ConfigurationConflict(
            "sealing was cut off, and its journal seal.json is damaged: it cannot be ended from here",
            "Run 'azcmagent seal --image-id ID' again",
        ) from None
    except OSError as problem:
        raise imaging.explained(problem, image.paths.state) from None
    if args.if_copied:
        record = birth.read_or_none(image.paths)
        by = None
        if record is not None:
            by = sealing.reason_to_unseal(record, imaging.signals(image), bool(args.first_boot))
    done = by is not None and imaging.unseal(image, by)
    state = sealing.state_of(image.paths).state
    words = f"Unsealed ({by})" if done else f"Nothing was done: this machine is {state}"
    session.out.result({"status": "success", "changed": done, "state": state, "by": by if done else None}, words)
    return 0
