# SPDX-License-Identifier: Apache-2.0
"""Builds what is shipped: the agent's deb and rpm, the hub's wheel, deb and rpm, the collection, our extensions.
`make build` runs it.

    build_packages.py [--out dist] [--version A.B.C.D] [--only deb rpm hub-deb hub-rpm wheel collection handlers]
                      [--hub-python 3.11 3.13] [--hub-arch amd64 arm64]

The same commit gives the same bytes: dates come from SOURCE_DATE_EPOCH, else from the commit. When nothing that goes in
has changed since the last build into the same directory, nothing is built.
"""

from __future__ import annotations

import argparse
import ast
import gzip
import hashlib
import io
import itertools
import json
import os
import platform
import re
import shutil
import stat
import subprocess
import sys
import tarfile
import tempfile
import time
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
KINDS = ("deb", "rpm", "hub-deb", "hub-rpm", "wheel", "collection", "handlers")
_PRODUCTS = (
    "azcmagent_*_all.deb",
    "azcmagent-*.noarch.rpm",
    "hawser-hub_*.deb",
    "hawser-hub-*.rpm",
    "hawser_hub-*.whl",
    "hawser-machine-*.tar.gz",
    "*_linux.zip",
)
# Processors of the hub's packages: Debian's name and that of the wheels' platform. All wheels of the lock are there for
# glibc 2.28.
_PLATFORMS = {"amd64": "x86_64-manylinux_2_28", "arm64": "aarch64-manylinux_2_28"}
_MACHINES = {"x86_64": "amd64", "aarch64": "arm64"}
_VERSION = re.compile(r"\d+(\.\d+){3}")
# Old libraries of handlers split the name of a folder at its hyphens (extension-handler.md section 1).
_HANDLER = re.compile(r"[A-Za-z0-9]+(\.[A-Za-z0-9]+)+")
_HANDLER_VERSION = re.compile(r"\d+(\.\d+){1,3}")
_SHIPPED_SUFFIXES = {".py", ".json", ".typed"}


class BuildError(Exception):
    """A sentence that says what is missing and what to do about it."""


def parse_version(source: str) -> str:
    """The literal `VERSION` of agent_runtime/version.py, four numbers."""
    for node in ast.parse(source).body:
        if isinstance(node, ast.Assign) and [getattr(target, "id", None) for target in node.targets] == ["VERSION"]:
            version = ast.literal_eval(node.value)
            if isinstance(version, str) and _VERSION.fullmatch(version):
                return version
    raise BuildError('agent_runtime/version.py holds no VERSION of four numbers. Write VERSION = "1.0.0.1".')


def with_version(source: str, version: str) -> str:
    """The same source with another VERSION; used to build a second version for tests of upgrades."""
    if not _VERSION.fullmatch(version):
        raise BuildError(f"'{version}' is no version. Use four numbers with dots.")
    return source.replace(f'VERSION = "{parse_version(source)}"', f'VERSION = "{version}"')


def run(argv: Sequence[str], *, cwd: Path, environment: Mapping[str, str] | None = None) -> str:
    """Run a tool and return what it printed.

    :raises BuildError: it failed; the message carries its last words.
    """
    done = subprocess.run(
        argv, cwd=cwd, env={**os.environ, **(environment or {})}, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        words = (done.stdout + done.stderr).strip()[-2000:]
        raise BuildError(f"`{' '.join(argv)}` ended with {done.returncode}: {words}")
    return done.stdout


def checkout_files() -> list[str]:
    """Files of the checkout that git knows or would add, relative."""
    listed = run(["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"], cwd=ROOT)
    return sorted(name for name in set(listed.split("\0")) if name and (ROOT / name).is_file())


def epoch() -> int:
    """Date of everything that is built, in Unix seconds (reproducible-builds.org, SOURCE_DATE_EPOCH)."""
    given = os.environ.get("SOURCE_DATE_EPOCH")
    return int(given) if given else int(run(["git", "log", "-1", "--format=%ct"], cwd=ROOT))


def tool(name: str) -> str:
    """A program of the environment that runs this file."""
    return str(Path(sys.executable).with_name(name))


def fingerprint(files: Iterable[str], settings: Sequence[object]) -> str:
    """SHA-256 over everything that decides the products."""
    digest = hashlib.sha256(json.dumps(settings).encode())
    for name in files:
        path = ROOT / name
        digest.update(f"{name}\0{path.stat().st_mode & 0o111}\0".encode())
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def copy(names: Iterable[str], target: Path) -> None:
    """Copy files of the checkout below `target`, with modes that do not depend on anybody's umask."""
    for name in names:
        destination = target / name
        destination.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / name, destination)
        destination.chmod(0o755 if (ROOT / name).stat().st_mode & 0o111 else 0o644)


def normalise(top: Path, seconds: int) -> None:
    """Give everything below `top` one date and the usual modes, whatever the umask was."""
    for directory, _names, files in os.walk(top):
        for path in (Path(directory), *(Path(directory, file) for file in files)):
            path.chmod(0o755 if path.stat().st_mode & stat.S_IXUSR else 0o644)
            os.utime(path, (seconds, seconds))


class HubTarget(NamedTuple):
    """What the hub's packages are for: a minor version of Python such as 3.11, a processor such as amd64."""

    python: str
    arch: str

    def version(self, version: str) -> str:
        """The packages' version. It names the Python, so that a host that goes to the next release of its distribution
        finds the package for that to be the newer one."""
        return f"{version}+py{self.python}"


def here() -> HubTarget:
    """The Python and the processor of this machine; other processors get what they name, which is then refused."""
    machine = platform.machine()
    return HubTarget(f"{sys.version_info.major}.{sys.version_info.minor}", _MACHINES.get(machine, machine))


def stage_vendor(target: Path, python: str, what: Sequence[str]) -> None:
    """Unpack wheels with the installer, for a Python that need not be this one. `what`: its further arguments."""
    uv = [tool("uv"), "pip", "install", "--quiet", "--python", sys.executable, "--python-version", python]
    run([*uv, "--target", str(target), "--no-deps", "--only-binary", ":all:", "--link-mode", "copy", *what], cwd=ROOT)
    # What the installer notes about itself differs from machine to machine.
    for name in ("RECORD", "INSTALLER", "REQUESTED", "uv_cache.json", "direct_url.json"):
        for path in target.glob(f"*.dist-info/{name}"):
            path.unlink()
    for path in (target / ".lock", target / ".gitignore"):
        path.unlink(missing_ok=True)
    shutil.rmtree(target / "bin", ignore_errors=True)
    for path in target.rglob("*"):
        if path.is_file():
            path.chmod(0o644)


def lock(name: str) -> list[str]:
    """Arguments that install what requirements/NAME.txt names, and nothing with another hash."""
    return ["--require-hashes", "-r", str(ROOT / "requirements" / f"{name}.txt")]


def stage_agent(files: Sequence[str], version: str, stage: Path) -> None:
    """Lay out the tree that nfpm.yaml names."""
    copy((n for n in files if n.startswith("agent_runtime/") and Path(n).suffix in _SHIPPED_SUFFIXES), stage)
    source = (ROOT / "agent_runtime" / "version.py").read_text(encoding="utf-8")
    (stage / "agent_runtime" / "version.py").write_text(with_version(source, version), encoding="utf-8")
    stage_vendor(stage / "vendor", "3.9", lock("agent"))
    # Two thirds of all that is vendored, and of no use on a machine.
    shutil.rmtree(stage / "vendor" / "securesystemslib" / "_vendor" / "ed25519" / "test_data")
    # The command line checks its input against the very contracts; in a checkout it finds them where they are written.
    schemas = stage / "agent_runtime" / "schemas"
    schemas.mkdir()
    for name in ("apply-input", "cloud-profile"):
        shutil.copyfile(ROOT / "docs" / "schemas" / f"{name}.schema.json", schemas / f"{name}.schema.json")
    for room in ("launchers", "units", "files"):
        shutil.copytree(ROOT / "packaging" / room, stage / room)
    shutil.copyfile(ROOT / "LICENSES" / "Apache-2.0.txt", stage / "copyright")
    write_scripts(ROOT / "packaging" / "scripts", stage / "scripts")


def stage_hub(wheel: Path, target: HubTarget, stage: Path) -> None:
    """Lay out the tree that hub/nfpm.yaml names: the hub's own wheel over the locked ones."""
    stage_vendor(stage / "lib", target.python, ["--python-platform", _PLATFORMS[target.arch], *lock("hub")])
    stage_vendor(stage / "lib", target.python, ["--no-index", str(wheel)])
    source = ROOT / "packaging" / "hub"
    (stage / "launcher").mkdir()
    launcher = (source / "launcher" / "hawser-hub").read_text(encoding="utf-8")
    (stage / "launcher" / "hawser-hub").write_text(for_python(launcher, target.python), encoding="utf-8")
    shutil.copytree(ROOT / "roles" / "hub" / "files", stage / "units")
    shutil.copyfile(ROOT / "LICENSES" / "Apache-2.0.txt", stage / "copyright")
    write_scripts(source / "scripts", stage / "scripts")
    for script in (stage / "scripts").iterdir():
        script.write_text(for_python(script.read_text(encoding="utf-8"), target.python), encoding="utf-8")


def for_python(text: str, minor: str) -> str:
    """The same text with the very Python that compiled libraries are for in the place of the distribution's default."""
    return re.sub(r"/usr/bin/python3(?![\w.])", f"/usr/bin/python{minor}", text)


def write_scripts(source: Path, target: Path, prefix: str = "") -> None:
    """Put the maintainer scripts of one product together: what they share stands in front of each."""
    parts = [source / "common.sh", ROOT / "packaging" / "shared.sh"]
    common = "\n".join(part.read_text(encoding="utf-8") for part in parts)
    target.mkdir(parents=True, exist_ok=True)
    for script in source.glob("*-*.sh"):
        text = "#!/bin/sh\nset -eu\n" + common + "\n" + script.read_text(encoding="utf-8")
        (target / f"{prefix}{script.stem}").write_text(text, encoding="utf-8")


def build_agent(kinds: Sequence[str], files: Sequence[str], version: str, seconds: int, out: Path) -> None:
    """Build deb and rpm from the one list, packaging/nfpm.yaml."""
    with tempfile.TemporaryDirectory(prefix="hawser-build-") as work:
        stage = Path(work, "stage")
        stage.mkdir()
        stage_agent(files, version, stage)
        normalise(stage, seconds)
        pack(kinds, ROOT / "packaging" / "nfpm.yaml", {"VERSION": version}, seconds, Path(work), out)


def build_hub(
    kinds: Sequence[str], files: Sequence[str], version: str, targets: Sequence[HubTarget], seconds: int, out: Path
) -> None:
    """Build the hub's deb and rpm from the one list, packaging/hub/nfpm.yaml.

    :raises BuildError: there are no wheels for the target, or it is none.
    """
    for target in targets:
        if target.arch not in _PLATFORMS or not re.fullmatch(r"3\.(1[1-9]|[2-9]\d)", target.python):
            raise BuildError(
                f"There is no package of the hub for Python {target.python} on {target.arch}. "
                f"Use --hub-python 3.11 or newer and --hub-arch {' or '.join(_PLATFORMS)}."
            )
    with tempfile.TemporaryDirectory(prefix="hawser-build-") as work:
        build_wheel(files, version, seconds, Path(work, "wheel"))
        (wheel,) = Path(work, "wheel").glob("*.whl")
        for target in targets:
            room = Path(work, f"{target.python}-{target.arch}")
            (room / "stage").mkdir(parents=True)
            stage_hub(wheel, target, room / "stage")
            normalise(room / "stage", seconds)
            variables = {"VERSION": target.version(version), "PYTHON": target.python, "ARCH": target.arch}
            pack(kinds, ROOT / "packaging" / "hub" / "nfpm.yaml", variables, seconds, room, out)


def pack(kinds: Sequence[str], config: Path, variables: Mapping[str, str], seconds: int, work: Path, out: Path) -> None:
    """Run nfpm in `work` once for each kind, `deb` or `rpm`."""
    for kind in kinds:
        argv = [tool("nfpm"), "package", "--packager", kind, "--config", str(config), "--target", str(out)]
        run(argv, cwd=work, environment={**variables, "SOURCE_DATE_EPOCH": str(seconds)})


def build_wheel(files: Sequence[str], version: str, seconds: int, out: Path) -> None:
    """Build the hub's wheel in a copy, so that the checkout stays clean."""
    wanted = ("control_plane/", "pyproject.toml", "LICENSES/", "requirements/hub.in", "agent_runtime/version.py")
    with tempfile.TemporaryDirectory(prefix="hawser-build-") as work:
        copy((name for name in files if name.startswith(wanted)), Path(work))
        module = Path(work, "agent_runtime", "version.py")
        module.write_text(with_version(module.read_text(encoding="utf-8"), version), encoding="utf-8")
        normalise(Path(work), seconds)
        argv = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), work]
        run(argv, cwd=Path(work), environment={"SOURCE_DATE_EPOCH": str(seconds)})


def build_collection(files: Sequence[str], seconds: int, out: Path) -> None:
    """Build the Galaxy artefact from what git knows; galaxy.yml says what of it is shipped."""
    with tempfile.TemporaryDirectory(prefix="hawser-build-") as work:
        source, product = Path(work, "source"), Path(work, "product")
        copy(files, source)
        normalise(source, seconds)
        environment = {"ANSIBLE_HOME": str(Path(work, "ansible")), "ANSIBLE_NOCOLOR": "1"}
        argv = [tool("ansible-galaxy"), "collection", "build", "--output-path", str(product), str(source)]
        run(argv, cwd=Path(work), environment=environment)
        for artefact in product.glob("*.tar.gz"):
            (out / artefact.name).write_bytes(normalised(artefact.read_bytes(), seconds))


def normalised(archive: bytes, seconds: int) -> bytes:
    """The same collection with its members in order, with one date and nobody's name.

    ansible-galaxy writes the time of the build, and members in the order of the directory on the disk.
    """
    with tarfile.open(fileobj=io.BytesIO(archive), mode="r:gz") as old:
        members = {member.name: member for member in old.getmembers()}
        contents = {name: file.read() for name, member in members.items() if (file := old.extractfile(member))}
    files = json.loads(contents["FILES.json"])
    files["files"].sort(key=lambda entry: str(entry["name"]))
    contents["FILES.json"] = json.dumps(files, indent=1).encode()
    manifest = json.loads(contents["MANIFEST.json"])
    manifest["file_manifest_file"]["chksum_sha256"] = hashlib.sha256(contents["FILES.json"]).hexdigest()
    contents["MANIFEST.json"] = json.dumps(manifest, indent=1).encode()
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w", format=tarfile.PAX_FORMAT) as new:
        for name, member in sorted(members.items()):
            member.mtime, member.uid, member.gid, member.uname, member.gname = seconds, 0, 0, "", ""
            member.pax_headers = {}
            member.size = len(contents.get(name, b""))
            new.addfile(member, io.BytesIO(contents[name]) if member.isfile() else None)
    return gzip.compress(plain.getvalue(), mtime=seconds)


def build_handlers(files: Iterable[str], seconds: int, out: Path) -> None:
    """Pack every folder of handlers/ that has a manifest: PUBLISHER.TYPE_VERSION_linux.zip, links in it followed."""
    for manifest in sorted((ROOT / "handlers").glob("*/HandlerManifest.json")):
        room = f"handlers/{manifest.parent.name}/"
        members = {name.removeprefix(room): ROOT / name for name in files if name.startswith(room)}
        name = handler_name(manifest.read_text(encoding="utf-8"), manifest.parent.name)
        (out / f"{name}_linux.zip").write_bytes(zipped(members, seconds))


def handler_name(manifest: str, folder: str) -> str:
    """PUBLISHER.TYPE_VERSION out of a manifest's `signingInfo`. The folder has the type's name.

    :raises BuildError: the manifest is not one, or names something else.
    """
    try:
        signing = json.loads(manifest)[0]["signingInfo"]
        publisher, kind, version = (signing[key] for key in ("publisher", "type", "version"))
    except (ValueError, LookupError, TypeError):
        raise BuildError(
            f"handlers/{folder}/HandlerManifest.json has no signingInfo with publisher, type and version. Write it."
        ) from None
    if not _HANDLER.fullmatch(f"{publisher}.{kind}") or not _HANDLER_VERSION.fullmatch(str(version)) or kind != folder:
        raise BuildError(
            f"handlers/{folder} names itself {publisher}.{kind} {version}. Use letters, digits and dots, the folder's "
            "name as the type, and a version of two to four numbers."
        )
    return f"{publisher}.{kind}_{version}"


def zipped(members: Mapping[str, Path], seconds: int) -> bytes:
    """A zip of these files, in order, with one date and the usual modes; a zip's dates begin in 1980."""
    moment = time.gmtime(max(seconds, 315532800))[:6]
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for name, path in sorted(members.items()):
            member = zipfile.ZipInfo(name, moment)
            member.create_system = 3
            member.compress_type = zipfile.ZIP_DEFLATED
            mode = 0o755 if path.stat().st_mode & stat.S_IXUSR else 0o644
            member.external_attr = (stat.S_IFREG | mode) << 16
            archive.writestr(member, path.read_bytes())
    return target.getvalue()


def current(out: Path, stamp: str) -> bool:
    """Whether the directory holds the products of exactly these inputs, undamaged."""
    try:
        if (out / ".inputs").read_text(encoding="ascii") != stamp:
            return False
        lines = (out / "SHA256SUMS").read_text(encoding="ascii").splitlines()
        return all(
            hashlib.sha256((out / name).read_bytes()).hexdigest() == digest for digest, name in map(str.split, lines)
        )
    except (OSError, ValueError):
        return False


def build(
    out: Path, version: str | None = None, kinds: Sequence[str] = KINDS, targets: Sequence[HubTarget] = ()
) -> list[Path]:
    """Build into `out`; returns the products, which SHA256SUMS there names too."""
    files, seconds = checkout_files(), epoch()
    version = version or parse_version((ROOT / "agent_runtime" / "version.py").read_text(encoding="utf-8"))
    targets = targets or [here()]
    out.mkdir(parents=True, exist_ok=True)
    settings = [version, sorted(kinds), sorted(targets)]
    stamp = fingerprint((name for name in files if not name.startswith("tests/")), settings)
    if not current(out, stamp):
        for pattern in (*_PRODUCTS, "SHA256SUMS", ".inputs"):
            for old in out.glob(pattern):
                old.unlink()
        packagers = [kind for kind in kinds if kind in {"deb", "rpm"}]
        if packagers:
            build_agent(packagers, files, version, seconds, out)
        packagers = [kind.removeprefix("hub-") for kind in kinds if kind.startswith("hub-")]
        if packagers:
            build_hub(packagers, files, version, targets, seconds, out)
        if "wheel" in kinds:
            build_wheel(files, version, seconds, out)
        if "collection" in kinds:
            build_collection(files, seconds, out)
        if "handlers" in kinds:
            build_handlers(files, seconds, out)
        names = sorted(path.name for pattern in _PRODUCTS for path in out.glob(pattern))
        sums = "".join(f"{hashlib.sha256((out / name).read_bytes()).hexdigest()}  {name}\n" for name in names)
        (out / "SHA256SUMS").write_text(sums, encoding="ascii")
        (out / ".inputs").write_text(stamp, encoding="ascii")
    return sorted(path for pattern in _PRODUCTS for path in out.glob(pattern))


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(
        description="Build the packages of agent and hub, its wheel, the collection and our extensions."
    )
    parser.add_argument("--out", type=Path, default=ROOT / "dist", help="directory of the products (default: dist)")
    parser.add_argument("--version", help="build as this version instead of agent_runtime/version.py's")
    parser.add_argument("--only", nargs="+", choices=KINDS, default=KINDS, help="build these alone")
    parser.add_argument("--hub-python", nargs="+", default=[here().python], help="of the hub's hosts (default: ours)")
    parser.add_argument("--hub-arch", nargs="+", default=[here().arch], help="amd64, arm64 (default: ours)")
    parser.add_argument("--scripts", type=Path, help="write the maintainer scripts there, for the linter; nothing else")
    options = parser.parse_args()
    if options.scripts is not None:
        for room in ("", "hub"):
            write_scripts(ROOT / "packaging" / room / "scripts", options.scripts, f"{room}-".lstrip("-"))
        return 0
    try:
        targets = [HubTarget(*pair) for pair in itertools.product(options.hub_python, options.hub_arch)]
        products = build(options.out.resolve(), options.version, options.only, targets)
    except BuildError as error:
        print(f"build: {error}", file=sys.stderr)
        return 1
    for product in products:
        print(product)
    return 0


if __name__ == "__main__":
    sys.exit(main())
