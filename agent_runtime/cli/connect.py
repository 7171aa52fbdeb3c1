# SPDX-License-Identifier: Apache-2.0
"""`azcmagent connect`: makes the machine's resource at the hub and binds this machine to it (agent-surface.md 5.1)."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING, Any

from agent_runtime import errors
from agent_runtime.cli import credential, naming
from agent_runtime.cli.parsing import switch
from agent_runtime.identity import birth, machine

if TYPE_CHECKING:
    from agent_runtime.cli.parsing import Parser
    from agent_runtime.cli.session import Session

# Documented flags whose feature comes with a later part.
_LATER = {
    "private_link_scope": "--private-link-scope (private link)",
    "gateway_id": "--gateway-id (the gateway)",
    "automanage_profile": "--automanage-profile (best-practice profiles)",
    "identity_key_store": "--identity-key-store (keys in a TPM)",
    "use_aws_ec2_hostname": "--use-aws-ec2-hostname (names from other clouds)",
}


def configure(parser: Parser) -> None:
    add = parser.add_argument
    add("-s", "--subscription-id", metavar="ID", help="subscription of the machine; required")
    add("-g", "--resource-group", metavar="NAME", help="resource group, made when it is missing; required")
    add("-l", "--location", metavar="NAME", help="one of the cloud's locations; required")
    add("-n", "--resource-name", metavar="NAME", help="name of the machine at the hub; default: its host name")
    add("--cloud", metavar="NAME", help="cloud profile; default: the only one")
    add("--tags", metavar="K=V,...", help="tags of the machine")
    add("--correlation-id", metavar="GUID", help="kept with the machine, for finding it in logs")
    switch(parser, "--ignore-network-check", "go on although an endpoint cannot be reached")
    credential.configure(parser)
    add("--private-link-scope", metavar="ID", help="comes with a later release")
    add("--gateway-id", metavar="ID", help="comes with a later release")
    add("--automanage-profile", metavar="ID", help="comes with a later release")
    add("--identity-key-store", metavar="NAME", help="comes with a later release; `default` is accepted")
    switch(parser, "--enable-automatic-upgrade", "bring the agent to each newer version that the hub publishes", None)
    switch(parser, "--use-aws-ec2-hostname", "comes with a later release")


def run(session: Session) -> int:
    """Exit code 0, or an error of the tree; nothing is left half-made (protocol section 5)."""
    from agent_runtime.cli import binding, check

    args = session.args
    _refuse_later(args)
    credential.warn_about_command_line(session)
    place = target_of(session)
    way = credential.chosen(args)
    if birth.is_sealed(session.paths):
        machine.refuse_sealed()  # himds, which does not run in an image, need not say so
    binding.refuse_connected(session.himds().status())
    profile = session.cloud(place["cloud"])
    if not args.ignore_network_check:
        session.out.progress(0, "Checking the network")
        check.require_reachable(profile, session.config())
    token = credential.token(session, way, profile, place["tenant_id"])
    result = binding.connect(session, place, token, session.out.progress)
    session.out.progress(100, "Connected")
    for warning in result.get("warnings") or []:
        session.out.warn(str(warning))
    data = {"status": "success", **result, "warnings": session.out.warnings}
    session.out.result(data, f"Connected: {result['resourceId']}")
    return 0


def target_of(session: Session) -> dict[str, Any]:
    """The place to connect to, out of the flags.

    Errors: AZCM0016, AZCM0020, AZCM0023, AZCM0041, AZCM0075; nothing has been sent or written by then.
    """
    args = session.args
    naming.require(
        {
            "subscription_id": args.subscription_id,
            "resource_group": args.resource_group,
            "location": args.location,
        }
    )
    for flag in ("correlation_id", "tenant_id", "user_tenant_id", "service_principal_id"):
        naming.check_guid(f"--{flag.replace('_', '-')}", getattr(args, flag))
    if not naming.GUID.match(args.subscription_id):
        raise errors.SubscriptionNotResolved(
            f"the name of a subscription cannot be resolved: {args.subscription_id[:80]!r}",
            "Give the subscription's GUID with --subscription-id",
        )
    profile = session.cloud(args.cloud)
    tenant = args.tenant_id or profile["tenant_id"]
    return {
        "cloud": profile["name"],
        "tenant_id": tenant,
        "subscription_id": args.subscription_id,
        "resource_group": naming.group_name(args.resource_group),
        "location": naming.choose_location(args.location, profile),
        "name": naming.machine_name(args.resource_name or host_name()),
        "tags": naming.parse_tags(args.tags) if args.tags else {},
        "correlation_id": args.correlation_id,
        "automatic_upgrade": args.enable_automatic_upgrade,
    }


def host_name() -> str:
    """The machine's host name without its domain, as far as it may be a resource's name. Errors: AZCM0102."""
    name = socket.gethostname().partition(".")[0][:54].rstrip("-_")
    if not name:
        raise errors.ResourceNameNotObtained("this machine has no host name", "Give --resource-name")
    return name


def _refuse_later(args: Any) -> None:
    for name, what in _LATER.items():
        value: Any | None = getattr(args, name)
        if value and not (name == "identity_key_store" and str(value).lower() == "default"):
            raise errors.NotSupported(f"{what} is not supported by this release", "Leave the flag out")
    if os.name == "nt":
        raise errors.NotSupported("this release connects Linux machines", "Use a Linux machine")
