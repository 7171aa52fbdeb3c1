# SPDX-License-Identifier: Apache-2.0
"""What of a command line may be written into a log: everything but secrets. Pure."""

from __future__ import annotations

import re

HIDDEN = "[hidden]"
# Misspelt secret flags carry secrets too.
_SECRET_FLAG = re.compile(r"--?[a-z-]*(secret|token|passw)[a-z-]*\Z", re.IGNORECASE)
_USERINFO = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*://)[^/@\s]*@")


def without_userinfo(text: str) -> str:
    """`text` with the user and password of every URL in it hidden (agent-surface.md section 4)."""
    return _USERINFO.sub(rf"\g<1>{HIDDEN}@", text)


def command_line(argv: list[str]) -> str:
    """`argv` as one line without the values of secret flags, in every spelling: `-p x`, `-px`, `--flag x`, `--flag=x`.

    `-p` of `check` takes no value (`--enable-pls-check`); hiding what follows it loses nothing that matters.
    """
    kept: list[str] = []
    hide = False
    for word in argv:
        flag, equals, _ = word.partition("=")
        if hide:
            kept.append(HIDDEN)
            hide = False
        elif _SECRET_FLAG.match(flag):
            kept.append(f"{flag}={HIDDEN}" if equals else flag)
            hide = not equals
        elif word.startswith("-") and not word.startswith("--") and "p" in word[1:]:
            # A short flag with its value stuck to it, maybe behind switches: -pSECRET, -jpSECRET.
            at = word.index("p", 1) + 1
            kept.append(word[:at] + (HIDDEN if word[at:] else ""))
            hide = not word[at:]
        else:
            kept.append(without_userinfo(word))
    return " ".join(kept)
