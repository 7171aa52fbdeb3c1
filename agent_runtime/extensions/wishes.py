# SPDX-License-Identifier: Apache-2.0
"""The content of an `extensions` document as wishes (docs/protocol.md section 15.1). Pure.

The hub has signed it, yet its names become folders and commands of root: what has another form is not acted on, and
what is installed under that name stays as it is.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple, Optional

from agent_runtime.extensions import settings, versions

MOST = 256
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}", re.ASCII)
# Directory names of handlers are split at their one hyphen (extension-handler.md section 1), but a publisher's may be
# what it is.
_PART = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}", re.ASCII)
_THUMBPRINT = re.compile(r"[0-9A-Fa-f]{40}", re.ASCII)
INCARNATION = re.compile(r"[A-Za-z0-9-]{0,64}", re.ASCII)


class Wish(NamedTuple):
    """One extension that shall be there. `settings` has the three members of a settings file; `package`: path of the
    target, with `length` and `sha256` where the document gives them; `rollback_package`: the same for `rollback_to`,
    empty where the document does not say. `incarnation`: whose sequence numbers these are,
    empty where the document does not say; `standing`: digest of the newer settings that stay in force, see
    `plan.effective`."""

    name: str
    publisher: str
    type: str
    version: str
    sequence: int
    settings: dict[str, Any]
    level: int
    rollback_to: Optional[str]
    package: dict[str, Any]
    rollback_package: dict[str, Any]
    incarnation: str = ""
    standing: str = ""

    @property
    def handler(self) -> str:
        """Full name of the handler, as it is spelt in paths."""
        return f"{self.publisher}.{self.type}"

    @property
    def key(self) -> str:
        return self.handler.lower()

    @property
    def ident(self) -> str:
        """Names of extensions are compared without case."""
        return self.name.lower()

    @property
    def digest(self) -> str:
        return self.standing or settings.digest(self.settings)

    @property
    def thumbprint(self) -> Optional[str]:
        found = self.settings["protectedSettingsCertThumbprint"]
        return found if isinstance(found, str) else None

    def at(self, version: str) -> Wish:
        """The same wish for another version of the handler."""
        is_former = self.rollback_to is not None and versions.same(version, self.rollback_to)
        known = self.rollback_package if is_former else {}
        package = known or {"path": target(self.publisher, self.type, version, self)}
        return self._replace(version=version, package=package)


class Fault(NamedTuple):
    """An entry that is not acted on, with what is known of it and why."""

    name: str
    publisher: str
    type: str
    version: str
    sequence: int
    reason: str


class Content(NamedTuple):
    """What a document wants; `certificates` by thumbprint in upper case."""

    wishes: tuple[Wish, ...]
    faults: tuple[Fault, ...]
    certificates: dict[str, str]


def read(content: Mapping[str, Any]) -> Content:
    """The wishes of a document's content. Errors: ValueError when it has no list, or too long a one."""
    listed = content.get("extensions")
    if not isinstance(listed, list):
        raise ValueError("extensions is no list")
    if len(listed) > MOST:
        raise ValueError(f"more than {MOST} extensions")
    wishes: list[Wish] = []
    faults: list[Fault] = []
    for entry in listed:
        found = _entry(entry if isinstance(entry, dict) else {})
        if isinstance(found, Wish):
            wishes.append(found)
        elif found.name:
            faults.append(found)
    certificates = content.get("certificates")
    known = certificates.items() if isinstance(certificates, dict) else ()
    pems = {
        name.upper(): pem
        for name, pem in known
        if isinstance(name, str) and _THUMBPRINT.fullmatch(name) and isinstance(pem, str) and len(pem) < 65536
    }
    good, clashing = _without_clashes(wishes)
    return Content(tuple(good), (*faults, *clashing), pems)


def _entry(entry: Mapping[str, Any]) -> Wish | Fault:
    def text(name: str) -> str:
        value = entry.get(name)
        return value if isinstance(value, str) else ""

    def number(name: str) -> int:
        value = entry.get(name, 0)
        return value if type(value) is int and 0 <= value < 2**31 else -1

    name = text("name") if _NAME.fullmatch(text("name")) else ""
    publisher, kind, version = text("publisher"), text("type"), text("version")
    sequence, level, rollback = number("sequence"), number("dependencyLevel"), entry.get("rollbackTo")
    package, former = _package(entry.get("package")), _package(entry.get("rollbackPackage"))
    given = {key: entry.get(key) for key in ("publicSettings", "protectedSettings", "protectedSettingsCertThumbprint")}

    def fault(reason: str) -> Fault:
        sane = [part if _PART.fullmatch(part) else "" for part in (publisher, kind)]
        return Fault(name, sane[0], sane[1], version if versions.FORM.fullmatch(version) else "", sequence, reason)

    if not _PART.fullmatch(publisher) or not _PART.fullmatch(kind):
        return fault("publisher and type are letters, digits, dots, hyphens and underscores")
    if not versions.FORM.fullmatch(version) or not (rollback is None or _is_version(rollback)):
        return fault("version and rollbackTo are up to four numbers with dots between them")
    if sequence < 0 or level < 0:
        return fault("sequence and dependencyLevel are numbers from 0 on")
    if not INCARNATION.fullmatch(text("incarnation")):
        return fault("incarnation is letters, digits and hyphens")
    wrong = _wrong_settings(given)
    if wrong:
        return fault(wrong)
    if given["protectedSettings"] is not None:
        given["protectedSettingsCertThumbprint"] = str(given["protectedSettingsCertThumbprint"]).upper()
    package = package or {"path": target(publisher, kind, version, None)}
    made = Wish(name, publisher, kind, version, sequence, given, level, rollback, package, former, text("incarnation"))
    return made if name else fault("name")


def _package(value: object) -> dict[str, Any]:
    """What a document says of a package; empty where it says no path."""
    return dict(value) if isinstance(value, dict) and isinstance(value.get("path"), str) else {}


def _is_version(value: object) -> bool:
    return isinstance(value, str) and bool(versions.FORM.fullmatch(value))


def _wrong_settings(given: Mapping[str, Any]) -> str:
    """Why settings cannot be used; empty when they can."""
    if given["publicSettings"] is not None and not isinstance(given["publicSettings"], dict):
        return "publicSettings is an object or null"
    protected, thumbprint = given["protectedSettings"], given["protectedSettingsCertThumbprint"]
    if protected is None:
        return "" if thumbprint is None else "there is a thumbprint without protected settings"
    if not isinstance(protected, str) or not isinstance(thumbprint, str) or not _THUMBPRINT.fullmatch(thumbprint):
        return "protectedSettings is an envelope, and the thumbprint of its certificate is given with it"
    return ""


def _without_clashes(wishes: list[Wish]) -> tuple[list[Wish], list[Fault]]:
    """Wishes that agree with one another, and a fault for each that does not."""
    of_key: dict[str, set[tuple[int, ...]]] = {}
    times: dict[str, int] = {}
    for wish in wishes:
        of_key.setdefault(wish.key, set()).add(versions.key(wish.version))
        times[wish.ident] = times.get(wish.ident, 0) + 1
    good, bad = [], []
    for wish in wishes:
        if len(of_key[wish.key]) > 1:
            bad.append(_clash(wish, f"several versions of {wish.handler} are wished for at once"))
        elif times[wish.ident] > 1:
            bad.append(_clash(wish, "several extensions of this name are wished for"))
        else:
            good.append(wish)
    return good, bad


def _clash(wish: Wish, reason: str) -> Fault:
    return Fault(wish.name, wish.publisher, wish.type, wish.version, wish.sequence, reason)


def target(publisher: str, kind: str, version: str, like: Optional[Wish]) -> str:
    """Path of a package in the repository (docs/protocol.md section 15.3), for the system that `like`'s is for."""
    file = "linux.zip"
    if like is not None:
        file = str(like.package.get("path", "")).rpartition("/")[2] or file
    return f"extensions/{publisher}.{kind}/{version}/{file}"
