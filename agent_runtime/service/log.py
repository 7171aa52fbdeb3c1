# SPDX-License-Identifier: Apache-2.0
"""Log files of the agent: logfmt lines `time level msg`, rotated by size, old ones compressed (agent-surface.md
section 4).

Line breaks are escaped, so that nothing a peer sends can forge a line. Nobody passes secrets in; `Log` does not look
for them.
"""

from __future__ import annotations

import os
import sys
import time

SIZE_LIMIT = 5 * 1024 * 1024
KEEP = 5
MESSAGE_LIMIT = 8 * 1024
_ESCAPES = {
    ord("\\"): "\\\\",
    ord('"'): '\\"',
    **{number: f"\\x{number:02x}" for number in (*range(32), *range(127, 160))},
}
_ESCAPES.update({10: "\\n", 13: "\\r", 9: "\\t", 0x2028: "\\u2028", 0x2029: "\\u2029"})


def line(at: float, level: str, message: str) -> str:
    """One log line with its end. `at` is in Unix seconds."""
    stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(at)) + f".{int(at * 1000) % 1000:03d}Z"
    return f'time={stamp} level={level} msg="{message[:MESSAGE_LIMIT].translate(_ESCAPES)}"\n'


class Log:
    """Appends to `path`; where that is impossible, to standard error (the journal), once said so."""

    def __init__(self, path: str, mode: int = 0o640) -> None:
        self._path = path
        self._mode = mode
        self._descriptor: int | None = None
        self._complained = False

    def info(self, message: str) -> None:
        self._write("info", message)

    def warning(self, message: str) -> None:
        self._write("warning", message)

    def error(self, message: str) -> None:
        self._write("error", message)

    def _open(self) -> int:
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_CLOEXEC", 0)
        return os.open(self._path, flags, self._mode)

    def _write(self, level: str, message: str) -> None:
        text = line(time.time(), level, message)
        try:
            if self._descriptor is None:
                self._descriptor = self._open()
            os.write(self._descriptor, text.encode("utf-8", "backslashreplace"))
            if os.fstat(self._descriptor).st_size > SIZE_LIMIT:
                self._rotate()
        except OSError as error:
            if not self._complained:
                self._complained = True
                sys.stderr.write(line(time.time(), "error", f"{self._path} cannot be written: {error.strerror}"))
            sys.stderr.write(text)

    def _rotate(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
        for number in range(KEEP - 1, 0, -1):
            if os.path.exists(f"{self._path}.{number}.gz"):
                os.replace(f"{self._path}.{number}.gz", f"{self._path}.{number + 1}.gz")
        import gzip  # a resident needs it once in a long while
        import shutil

        moved = f"{self._path}.old"
        os.replace(self._path, moved)
        opener = os.open(f"{self._path}.1.gz", os.O_WRONLY | os.O_CREAT | os.O_EXCL, self._mode)
        with open(moved, "rb") as source, os.fdopen(opener, "wb") as target, gzip.open(target, "wb") as packed:
            shutil.copyfileobj(source, packed)
        os.unlink(moved)
