# SPDX-License-Identifier: Apache-2.0
"""What `init` decided, and where the hub's files are.

DATA/hub.json          this module; written last by `init`, so its presence means 'initialised'
DATA/hub.db            SQLite, WAL
DATA/hub.lock          held by the running server
DATA/keys/             private keys and certificates (keyring.py)
"""

from __future__ import annotations

import json
import os
import re
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from urllib.parse import urlsplit

from control_plane.errors import OperatorError

DEFAULT_DATA = "/var/lib/hawser-hub"
SETTINGS_FILE = "hub.json"
_HOST = re.compile(r"^[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?$|^\[[0-9A-Fa-f:.]{2,45}\]$")


@dataclass(frozen=True)
class Settings:
    """`url`: https origin without a trailing slash. `sans`: further names and addresses in the TLS certificate.
    `own_certificate`: the TLS certificate was made by the hub's CA and may be made again by it."""

    schema: int
    url: str
    tenant_id: str
    tenant_domain: str
    sans: tuple[str, ...]
    own_certificate: bool
    created: str

    @property
    def host(self) -> str:
        """Host of the URL, without brackets."""
        return urlsplit(self.url).hostname or ""

    @property
    def port(self) -> int:
        """Port of the URL, 443 if it names none."""
        return urlsplit(self.url).port or 443

    @property
    def known_hosts(self) -> frozenset[str]:
        """Values of `Host` under which the hub answers with that very name in absolute links."""
        names = {self.host, *self.sans}
        with_port = {f"[{name}]:{self.port}" if ":" in name else f"{name}:{self.port}" for name in names}
        return frozenset(with_port | (names if self.port == 443 else set()))


def check_url(text: str) -> str:
    """The origin in the form the hub keeps it.

    Errors: OperatorError when it is not `https://HOST[:PORT]`.
    """
    remedy = "Give the address that agents and clients will use, for example https://hub.example.org:8443."
    text = text.rstrip("/")
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError as error:
        raise OperatorError(f"'{text}' is not an address: {error}.", remedy) from error
    if parts.scheme != "https" or not parts.hostname:
        raise OperatorError(f"'{text}' is not an https address.", remedy)
    if parts.path or parts.query or parts.fragment or parts.username is not None:
        raise OperatorError(f"'{text}' has more than a host and a port.", remedy)
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    if not _HOST.match(host) or port == 0:
        raise OperatorError(f"'{text}' does not name a valid host and port.", remedy)
    return f"https://{host}" if port is None else f"https://{host}:{port}"


def write_file(path: Path, data: bytes, mode: int = 0o600) -> None:
    """Durable: temporary file with its final mode, fsync, rename, fsync of the directory."""
    descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "wb") as stream:
            os.fchmod(stream.fileno(), mode)
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    sync(path.parent)


def sync(folder: Path) -> None:
    """Make renames in a directory durable."""
    directory = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(directory)
    finally:
        os.close(directory)


def save(data: Path, settings: Settings) -> None:
    """Write DATA/hub.json, 0600."""
    write_file(data / SETTINGS_FILE, (json.dumps(asdict(settings), indent=1) + "\n").encode())


def is_initialised(data: Path) -> bool:
    """True when `init` has finished in this directory."""
    return (data / SETTINGS_FILE).is_file()


def load(data: Path) -> Settings:
    """Read DATA/hub.json.

    Errors: OperatorError when the directory was not initialised, cannot be read, or the file is damaged.
    """
    path = data / SETTINGS_FILE
    try:
        raw = json.loads(path.read_bytes())
        return Settings(**{**raw, "sans": tuple(raw["sans"])})
    except FileNotFoundError:
        raise OperatorError(
            f"There is no hub in {data}.", f"Run 'hawser-hub --data {data} init --url https://HOST:PORT' first."
        ) from None
    except PermissionError:
        raise OperatorError(f"{path} cannot be read.", "Run the command as root or as the hub's user.") from None
    except (ValueError, TypeError, KeyError) as error:
        raise OperatorError(f"{path} is damaged ({error}).", "Restore it from the last backup.") from error
