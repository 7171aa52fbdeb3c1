# SPDX-License-Identifier: Apache-2.0
"""Flags of `connect` and `disconnect` that say who asks (agent-surface.md section 5.1, Authentication)."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from agent_runtime import errors
from agent_runtime.cli.parsing import switch

if TYPE_CHECKING:
    from agent_runtime.cli.parsing import Parser
    from agent_runtime.cli.session import Session

_LATER = {
    "use_device_code": "--use-device-code",
    "use_azcli": "--use-azcli",
    "service_principal_cert": "--service-principal-cert",
    "service_principal_cert_thumbprint": "--service-principal-cert-thumbprint",
}
_REMEDY = "Use --access-token, or --service-principal-id with --service-principal-secret in a --config file"
_SECRET_LIMIT = 16384


class Way(NamedTuple):
    """Either an access token or a service principal with its secret."""

    access_token: str | None
    client_id: str | None
    secret: str | None


def configure(parser: Parser) -> None:
    add = parser.add_argument
    parser.secret("--access-token", about="access token or ticket")
    add("-i", "--service-principal-id", metavar="GUID", help="application id of a service principal")
    parser.secret("-p", "--service-principal-secret", about="its secret; better in a --config file than here")
    add("-t", "--tenant-id", metavar="GUID", help="tenant; default: the cloud profile's")
    add("--user-tenant-id", metavar="GUID", help="tenant of the account when it differs")
    add("--service-principal-cert", metavar="PATH", help="comes with a later release")
    add("--service-principal-cert-thumbprint", metavar="HEX", help="comes with a later release")
    switch(parser, "--use-device-code", "comes with a later release")
    switch(parser, "--use-azcli", "comes with a later release")


def chosen(args: Any, needed: bool = True) -> Way | None:
    """The way the flags name; None when they name none and none is needed.

    Errors: AZCM0003 for ways of a later release, AZCM0016 when half is missing, AZCM0027 for two ways at once.
    """
    for name, flag in _LATER.items():
        if getattr(args, name):
            raise errors.NotSupported(f"{flag} is not supported by this release", _REMEDY)
    by_token, by_secret = bool(args.access_token), bool(args.service_principal_id or args.service_principal_secret)
    if by_token and by_secret:
        raise errors.ConfigurationConflict("an access token and a service principal are both given", "Give one of them")
    if by_token:
        return Way(_secret(args.access_token, "--access-token"), None, None)
    if by_secret:
        if not args.service_principal_id or not args.service_principal_secret:
            missing = "secret" if args.service_principal_id else "id"
            raise errors.ParameterMissing(
                f"a service principal needs its id and its secret: --service-principal-{missing} is missing", _REMEDY
            )
        return Way(
            None, args.service_principal_id, _secret(args.service_principal_secret, "--service-principal-secret")
        )
    if not needed:
        return None
    raise errors.ParameterMissing(
        "no credential is given, and this release does not ask for one interactively", _REMEDY
    )


def token(session: Session, way: Way | None, profile: Mapping[str, Any], tenant: str) -> str:
    """An access token for the hub's ARM side. Errors: AZCM0012, AZCM0026, AZCM0041."""
    from agent_runtime.cli import authority, naming
    from agent_runtime.hub import proxy as proxies

    if way is None:
        raise errors.ParameterMissing("no credential is given", _REMEDY)
    if way.access_token is not None:
        naming.check_tenant(tenant, profile)
        return way.access_token
    session.out.verbose(f"Asking {profile['authority']} for a token")
    proxy, _ = proxies.proxy_for("AAD", session.config(), os.environ, str(profile["authority"]))
    return authority.arm_token(
        profile, tenant, str(way.client_id), str(way.secret), proxy, say=lambda text: session.out.progress(0, text)
    )


def warn_about_command_line(session: Session) -> None:
    """A secret in the process list can be read by every user of the machine."""
    for word in session.argv:
        flag = word.partition("=")[0]
        if flag == "--service-principal-secret" or word == "-p" or (word.startswith("-p") and len(word) > 2):
            given = session.args.service_principal_secret or ""
            if given != "-" and not given.startswith("@"):
                session.out.warn(
                    "the secret on the command line can be seen by every user of this machine; "
                    "put it into a --config file, or give `@FILE` or `-`"
                )
            return


def _secret(value: str, flag: str) -> str:
    """`-` is a line of standard input, `@FILE` the content of a file; both forms are ours."""
    if value == "-":
        value = sys.stdin.readline(_SECRET_LIMIT + 2)
    elif value.startswith("@"):
        from agent_runtime.cli import options_file

        value = options_file.read(value[1:]).decode("utf-8", "replace")
    value = value.strip()
    if not value or len(value) > _SECRET_LIMIT or not value.isprintable() or not value.isascii():
        raise errors.ParameterInvalid(
            f"the value of {flag} is empty, too long or not plain text", "Give it again, without line breaks"
        )
    return value
