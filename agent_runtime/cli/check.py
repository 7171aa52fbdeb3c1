# SPDX-License-Identifier: Apache-2.0
"""`azcmagent check`: can every endpoint of the cloud profile be reached from here (agent-surface.md section 5.5)."""

from __future__ import annotations

import ipaddress
import os
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from agent_runtime import errors
from agent_runtime.cli import naming
from agent_runtime.cli.output import columns
from agent_runtime.cli.parsing import switch
from agent_runtime.identity import machine

if TYPE_CHECKING:
    from agent_runtime.cli.parsing import Parser
    from agent_runtime.cli.session import Session

TIMEOUT = 10.0
_STAGES = {
    "proxy": "the proxy does not lead there",
    "dns": "its name cannot be resolved",
    "tcp": "no connection",
    "tls": "TLS failed",
    "http": "no HTTP answer",
}


class Endpoint(NamedTuple):
    """`part` is the name that `proxy.bypass` has for it; `probe` is what is asked for."""

    part: str
    url: str
    probe: str
    required: bool


class Finding(NamedTuple):
    """`private` is None when no address was found; `why` is empty when the endpoint answers.

    `milliseconds`: from the name to the answer, None without one.
    """

    endpoint: Endpoint
    reachable: bool
    private: bool | None
    tls: str
    proxy: str
    why: str
    stage: str
    milliseconds: int | None


def configure(parser: Parser) -> None:
    add = parser.add_argument
    add("-l", "--location", metavar="NAME", help="location to check; default: the connected one")
    add("--cloud", metavar="NAME", help="cloud profile; default: the connected one, else the only one")
    add("-e", "--extensions", metavar="all|sql", help="endpoints of extensions; comes with a later release")
    switch(parser, "--include-all", "every extended use case; this release has none")
    switch(parser, "--enable-pls-check", "expect private addresses; comes with a later release")
    parser.add_argument("-p", dest="enable_pls_check", action="store_true", help="short for --enable-pls-check")


def run(session: Session) -> int:
    """Exit code 0; 26 when a required endpoint cannot be reached, 44 when all can and the identity is held."""
    args = session.args
    if args.extensions or args.enable_pls_check:
        flag = "--extensions" if args.extensions else "--enable-pls-check"
        raise errors.NotSupported(f"{flag} is not supported by this release", "Leave the flag out")
    connected = session.status_or_none() or {}
    profile = session.cloud(args.cloud or connected.get("cloud"))
    if args.location:
        naming.choose_location(args.location, profile)
    found = examine(profile, session.config())
    failure = failure_of(found) or held(connected)
    rows = [as_json(item) for item in found]
    data: dict[str, Any] = {"status": "failed" if failure else "success", "cloud": profile["name"], "endpoints": rows}
    data["identityState"] = connected.get("identityState")
    if failure:
        data["error"] = failure.as_dict()
    session.out.result(data, text(found))
    for item in found:
        if item.why and not item.endpoint.required:
            session.out.line(f"{item.endpoint.url} is optional and cannot be reached: {item.why}")
    if failure is None:
        return 0
    if not session.args.json:
        session.out.error(failure)
    return failure.exit_code


def endpoints(profile: Mapping[str, Any]) -> list[Endpoint]:
    """The endpoints of a profile. Artefacts are not needed before a package is fetched. Pure."""
    authority = f"{profile['authority']}/{profile['tenant_id']}/v2.0/.well-known/openid-configuration"
    made = [
        Endpoint("AAD", profile["authority"], authority, True),
        Endpoint("ARM", profile["arm"], f"{profile['arm']}/metadata/endpoints?api-version=2022-09-01", True),
    ]
    made += [Endpoint("Arc", url, f"{url}/v1/checkin", True) for url in profile["channel"]]
    made += [Endpoint("Arc", url, f"{url}/", False) for url in profile.get("artefacts") or ()]
    if profile.get("gateway"):
        made.append(Endpoint("Arc", profile["gateway"], f"{profile['gateway']}/", False))
    return made


def examine(profile: Mapping[str, Any], config: Mapping[str, Any]) -> list[Finding]:
    """Every endpoint of the profile, probed one after the other."""
    from agent_runtime.cli import net
    from agent_runtime.hub import proxy as proxies

    context = net.trust(profile)
    found = []
    for endpoint in endpoints(profile):
        proxy, word = proxies.proxy_for(endpoint.part, config, os.environ, endpoint.probe)
        begun = time.monotonic()
        try:
            contact = net.connect(endpoint.probe, context, proxy, TIMEOUT)
            private = None if proxy else ipaddress.ip_address(contact.address.partition("%")[0]).is_private
            # Any answer will do: it came over verified TLS, and who may ask is another question.
            net.exchange(contact, "GET", endpoint.probe)
            taken = round((time.monotonic() - begun) * 1000)
            found.append(Finding(endpoint, True, private, contact.tls, word, "", "", taken))
        except net.UnreachableError as problem:
            found.append(Finding(endpoint, False, None, "unknown", word, str(problem), problem.stage, None))
    return found


def failure_of(found: list[Finding]) -> errors.AgentError | None:
    """AZCM0026 naming the first required endpoint that fails, None when there is none. Pure."""
    broken = [item for item in found if item.endpoint.required and not item.reachable]
    if not broken:
        return None
    first = broken[0]
    more = f" ({len(broken)} of {len(found)} endpoints fail)" if len(broken) > 1 else ""
    remedy = (
        "Compare ca_pem of the cloud profile with the hub's CA, and the clock of this machine"
        if first.stage == "tls"
        else "Correct the name service, the firewall, proxy.url, or the cloud profile; then: azcmagent check"
    )
    return errors.NetworkFailed(
        f"{first.endpoint.url} cannot be reached, {_STAGES[first.stage]}: {first.why}{more}", remedy
    )


def held(status: Mapping[str, Any]) -> errors.AgentError | None:
    """AZCM0044 while the identity is out of use, None otherwise. Pure."""
    state = status.get("identityState")
    if state not in machine.HELD:
        return None
    why, event = status.get("agentErrorDetails"), status.get("identityEvent")
    return errors.NameTaken(
        f"the identity of this machine is {state}: {why} (event {event})",
        "Wait for the hub's decision; by hand: 'azcmagent disconnect --force-local-only', then connect under a name of "
        "its own",
    )


def require_reachable(profile: Mapping[str, Any], config: Mapping[str, Any]) -> None:
    """Errors: AZCM0026 when a required endpoint fails."""
    failure = failure_of(examine(profile, config))
    if failure is not None:
        raise errors.NetworkFailed(str(failure), f"{failure.remedy}; or go on with --ignore-network-check")


def as_json(item: Finding) -> dict[str, Any]:
    return {
        "useCase": "core",
        "endpoint": item.endpoint.url,
        "required": item.endpoint.required,
        "reachable": item.reachable,
        "private": item.private,
        "tls": item.tls,
        "proxyStatus": item.proxy,
        "latencyMs": item.milliseconds,
        "reason": item.why or None,
    }


def text(found: list[Finding]) -> str:
    """The table with the columns of agent-surface.md section 5.5."""
    rows = []
    for item in found:
        private = "unknown" if item.private is None else str(item.private).lower()
        rows.append(("core", item.endpoint.url, str(item.reachable).lower(), private, item.tls, item.proxy))
    return columns(("Use Case", "ENDPOINT", "REACHABLE", "PRIVATE", "TLS", "PROXY"), rows)
