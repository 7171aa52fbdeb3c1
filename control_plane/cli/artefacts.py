# SPDX-License-Identifier: Apache-2.0
"""`artefacts`: the repository that machines get packages from."""

from __future__ import annotations

import getpass
import sys
from collections.abc import Callable
from pathlib import Path

import click

from control_plane.artefacts import agent_package, package
from control_plane.artefacts import keys as keyfiles
from control_plane.cli.common import json_option, print_json, table, told
from control_plane.errors import OperatorError
from control_plane.operate import artefacts as work

_FILE = click.Path(path_type=Path, dir_okay=False)
_FOLDER = click.Path(path_type=Path, file_okay=False)
_FILES = click.argument("files", type=_FILE, nargs=-1)
_PASSPHRASE = click.option("--passphrase-file", type=_FILE, help="0600; otherwise it is asked for.")


@click.group()
def artefacts() -> None:
    """Packages for machines, in a TUF repository: staged here, signed where the operator's keys are, published here."""


def _passphrase_in(path: Path) -> bytes:
    try:
        if path.stat().st_mode & 0o077:
            raise OperatorError(f"{path} can be read by others.", f"Run: chmod 600 {path}")
        return path.read_bytes().rstrip(b"\r\n")
    except OSError as error:
        raise OperatorError(f"{path} cannot be read ({error.strerror}).", "Name a file of yours.") from error


def _ask(prompt: str) -> bytes:
    if not sys.stdin.isatty():
        raise OperatorError("A passphrase is needed, and nobody can be asked for it.", "Give --passphrase-file.")
    return getpass.getpass(prompt).encode()


@artefacts.command("keys")
@click.argument("folder", type=_FOLDER, metavar="DIR")
@click.option("--role", "roles", type=click.Choice(keyfiles.OFFLINE), multiple=True, help="Only of this role.")
@click.option("--passphrase", "encrypt", is_flag=True, help="Encrypt the keys with a passphrase.")
@_PASSPHRASE
@json_option
@told
def artefacts_keys(
    folder: Path, roles: tuple[str, ...], encrypt: bool, passphrase_file: Path | None, as_json: bool
) -> None:
    """Make an operator's keys in DIR. Needs no hub: use a machine that stays with you."""
    passphrase = None
    if passphrase_file is not None:
        passphrase = _passphrase_in(passphrase_file)
    elif encrypt:
        passphrase = _ask("Passphrase: ")
        if passphrase != _ask("Once more: "):
            raise OperatorError("The two passphrases differ.", "Run the command again.")
    if passphrase is not None and len(passphrase) < 8:
        raise OperatorError("The passphrase has fewer than 8 characters.", "Choose a longer one.")
    made = keyfiles.make(folder, roles or keyfiles.OFFLINE, passphrase)
    if as_json:
        print_json(made)
        return
    for role, keyid in made.items():
        print(f"{role:8} {keyid}  {folder / role}.key, {folder / role}.pub")
    print("Keep the .key files; the hub gets the .pub files alone.")


@artefacts.command("init")
@click.option("--root-key", "root", type=_FILE, multiple=True, required=True, metavar="PUBLIC", help="May be repeated.")
@click.option("--targets-key", "targets", type=_FILE, multiple=True, required=True, metavar="PUBLIC")
@click.option("--root-threshold", type=click.IntRange(min=1), default=1, show_default=True)
@click.option("--targets-threshold", type=click.IntRange(min=1), default=1, show_default=True)
@json_option
@click.pass_obj
@told
def artefacts_init(
    data: Path,
    root: tuple[Path, ...],
    targets: tuple[Path, ...],
    root_threshold: int,
    targets_threshold: int,
    as_json: bool,
) -> None:
    """Begin a repository: stages root.json and an empty targets.json."""
    found = work.init(data, work.holders(root, root_threshold), work.holders(targets, targets_threshold))
    if as_json:
        print_json(found)
        return
    for role, keyids in found.items():
        print(f"{role:10}{' '.join(keyids)}")
    _next(data)


def _next(data: Path) -> None:
    print(f"Next:\n  hawser-hub --data {data} artefacts sign --keys DIR\n  hawser-hub --data {data} artefacts publish")


_OS = click.option("--os", "system", type=click.Choice(package.SYSTEMS), default="linux", show_default=True)
_ARCH = click.option("--arch", type=click.Choice(package.ARCHITECTURES), default="any", show_default=True)


@artefacts.command("add")
@click.argument("source", type=_FILE, metavar="PACKAGE")
@click.option("--publisher", help="Otherwise what the package itself says.")
@click.option("--type", "kind")
@click.option("--version")
@_OS
@_ARCH
@json_option
@click.pass_obj
@told
def artefacts_add(
    data: Path,
    source: Path,
    publisher: str | None,
    kind: str | None,
    version: str | None,
    system: str,
    arch: str,
    as_json: bool,
) -> None:
    """Check a package and stage it: a handler's zip, or the agent's own deb or rpm."""
    found: package.Package | agent_package.AgentPackage
    if agent_package.is_one(source):
        if any(value is not None for value in (publisher, kind, version)):
            raise OperatorError("The agent's package says itself what it is.", "Leave --publisher and the like out.")
        found = agent_package.inspect(source)
    else:
        found = package.inspect(source, publisher, kind, version, system, arch)
    fresh = work.add(data, source, found)
    if as_json:
        print_json(
            {"path": found.target, "length": found.length, "sha256": found.sha256, "staged": fresh, **found.custom}
        )
        return
    if not fresh:
        print(f"{found.target} is there already; nothing was changed.")
        return
    print(f"{found.target} is staged ({found.length} bytes, SHA-256 {found.sha256}).")
    _next(data)


@artefacts.command("remove")
@click.argument("publisher")
@click.argument("kind", metavar="TYPE")
@click.argument("version")
@_OS
@_ARCH
@click.pass_obj
@told
def artefacts_remove(data: Path, publisher: str, kind: str, version: str, system: str, arch: str) -> None:
    """Stage the list without a package. Machines keep what they have installed."""
    path = package.target_path(publisher, kind, version, system, arch)
    work.remove(data, path)
    print(f"{path} goes with the next publication.")
    _next(data)


@artefacts.command("remove-agent")
@click.argument("version")
@click.option("--format", "form", type=click.Choice(agent_package.FORMATS), default="deb", show_default=True)
@click.pass_obj
@told
def artefacts_remove_agent(data: Path, version: str, form: str) -> None:
    """Stage the list without a package of the agent. Machines keep the version they have."""
    path = agent_package.target_path(version, form)
    work.remove(data, path)
    print(f"{path} goes with the next publication.")
    _next(data)


@artefacts.command("list")
@json_option
@click.pass_obj
@told
def artefacts_list(data: Path, as_json: bool) -> None:
    """Packages, and until when each role is valid."""
    found = work.every(data)
    if as_json:
        print_json(found)
        return
    rows = [[item["role"], str(item["version"]), item["expires"], str(item["daysLeft"])] for item in found["roles"]]
    table(["ROLE", "VERSION", "EXPIRES", "DAYS LEFT"], rows)
    print()
    packages = [[item["path"], str(item["length"]), item["sha256"], item["state"]] for item in found["packages"]]
    table(["PACKAGE", "BYTES", "SHA-256", "STATE"], packages)
    if found["staged"]:
        print(f"\nStaged, to be signed and published: {', '.join(found['staged'])}.")


@artefacts.command("sign")
@click.option("--keys", "folder", type=_FOLDER, required=True, metavar="DIR", help="The operator's keys.")
@_FILES
@_PASSPHRASE
@json_option
@click.pass_obj
@told
def artefacts_sign(
    data: Path, folder: Path, files: tuple[Path, ...], passphrase_file: Path | None, as_json: bool
) -> None:
    """Sign FILES, or what is staged here. With FILES no hub is needed: carry them to where the keys are, and back."""
    known: dict[str, bytes] = {}

    def asked(path: Path) -> bytes:
        if passphrase_file is not None:
            return _passphrase_in(passphrase_file)
        if "once" not in known:
            known["once"] = _ask(f"Passphrase of {path}: ")
        return known["once"]

    found = work.sign(folder, files or work.staged_files(data), asked)
    if as_json:
        print_json(found)
        return
    for item in found:
        print(f"{item['file']}: {item['role']} version {item['version']}, until {item['expires']}")
        for name, what in item.get("packages", {}).items():
            print(f"  {what}  {name}")
        for name, keyids in item.get("keys", {}).items():
            print(f"  {name:10}{' '.join(keyids)}")
        print(f"  signed with {item['by']} keys; it has {item['signatures']} signatures.")


@artefacts.command("publish")
@_FILES
@json_option
@click.pass_obj
@told
def artefacts_publish(data: Path, files: tuple[Path, ...], as_json: bool) -> None:
    """Verify what is staged, with the signatures of FILES if they were made elsewhere, and put it in force."""
    done = work.publish(data, files)
    if as_json:
        print_json(vars(done))
        return
    for path in done.added:
        print(f"+ {path}")
    for path in done.removed:
        print(f"- {path}")
    print(f"Published: root version {done.root}, targets version {done.targets}.")
    if done.gap:
        print("The former keys did not sign along: for a moment machines were turned away; they come again.")


_KEY = click.option(
    "--key", "files", type=_FILE, multiple=True, required=True, metavar="PUBLIC", help="May be repeated."
)
_THRESHOLD = click.option("--threshold", type=click.IntRange(min=1), default=1, show_default=True)


def _rotator(role: str, line: str) -> Callable[..., None]:
    @artefacts.command(f"rotate-{role}", help=line)
    @_KEY
    @_THRESHOLD
    @click.pass_obj
    @told
    def rotate(data: Path, files: tuple[Path, ...], threshold: int) -> None:
        version = work.rotate(data, role, work.holders(files, threshold))
        print(
            f"Root version {version} is staged with other keys of {role}. Have it signed with the old and the new keys."
        )
        _next(data)

    return rotate


rotate_root = _rotator(
    "root", "Stage a root with other root keys. It needs the signatures of the old and the new ones."
)
rotate_targets = _rotator(
    "targets", "Stage a root with other targets keys. Targets are signed with both for a gapless change."
)


@artefacts.command("rotate-online")
@click.pass_obj
@told
def artefacts_rotate_online(data: Path) -> None:
    """Stage a root with new keys of the hub's own: snapshot and timestamp."""
    print(f"Root version {work.rotate(data, 'online', None)} is staged with new keys of this hub.")
    _next(data)


@artefacts.command("renew")
@click.pass_obj
@told
def artefacts_renew(data: Path) -> None:
    """Stage root (2 years) and targets (1 year) with a new date of expiry."""
    found = work.renew(data)
    print(f"Root version {found['root']} and targets version {found['targets']} are staged.")
    _next(data)


@artefacts.command("refresh")
@click.option("--force", is_flag=True, help="Also before half of their time is over.")
@click.pass_obj
@told
def artefacts_refresh(data: Path, force: bool) -> None:
    """Renew snapshot (30 days) and timestamp (7 days) now. A running hub does it by itself."""
    renewed = work.refresh(data, force=force)
    print(f"Renewed: {', '.join(renewed)}." if renewed else "Nothing was due.")


@artefacts.command("export-bundle")
@click.argument("target", type=_FILE, metavar="FILE.tar")
@click.option(
    "--valid-days",
    "days",
    type=click.IntRange(1, 365),
    help="How long the bundle is valid; otherwise as long as what the hub serves, 7 days.",
)
@click.pass_obj
@told
def artefacts_export_bundle(data: Path, target: Path, days: int | None) -> None:
    """Write the whole repository into FILE.tar, for a site without the internet."""
    count = work.export_bundle(data, target, days)
    print(f"{target} holds {count} packages.")


@artefacts.command("import-bundle")
@click.argument("source", type=_FILE, metavar="FILE.tar")
@click.option("--root", type=_FILE, help="A root.json that you trust; needed the first time.")
@click.pass_obj
@told
def artefacts_import_bundle(data: Path, source: Path, root: Path | None) -> None:
    """Verify the bundle of another hub and serve it here."""
    version, count = work.import_bundle(data, source, root)
    print(f"Targets version {version} with {count} packages is in force.")
