# SPDX-License-Identifier: Apache-2.0
"""Passwords of people: argon2id, what may be one, and a check that takes the same work whoever is named."""

from __future__ import annotations

import secrets
from functools import cache

import argon2

MIN_LENGTH, MAX_LENGTH = 12, 1024
_MADE_BYTES = 18
# RFC 9106 section 4, second recommendation: 64 MiB, three passes. One lane, because the hub's cores have other work.
_hasher = argon2.PasswordHasher(time_cost=3, memory_cost=65536, parallelism=1)


def refusal(password: str, name: str) -> str | None:
    """Why a text cannot be the password of the user `name`, or None. Length counts, not kinds of characters."""
    if len(password) < MIN_LENGTH:
        return f"A password has at least {MIN_LENGTH} characters."
    if len(password) > MAX_LENGTH or not password.isprintable():
        return f"A password has at most {MAX_LENGTH} characters, all printable."
    if len(set(password)) < 5 or name.lower() in (password.lower(), password.lower()[::-1]):
        return "The password is too easy to guess."
    return None


def made() -> str:
    """A new password of 24 random characters."""
    return secrets.token_urlsafe(_MADE_BYTES)


def hashed(password: str) -> str:
    """What is stored: an argon2id string with its salt and parameters."""
    return _hasher.hash(password)


@cache
def _nobody() -> str:
    return _hasher.hash(secrets.token_urlsafe(32))


def fits(stored: str | None, password: str) -> bool:
    """True when `password` is the stored one. Without a stored one the same work is done, and the answer is False.

    How many are checked at once is bounded by Limits.sign_in.
    """
    try:
        _hasher.verify(stored or _nobody(), password[: MAX_LENGTH + 1])
        return stored is not None
    except (argon2.exceptions.VerificationError, argon2.exceptions.InvalidHashError, UnicodeEncodeError):
        return False


def is_dated(stored: str) -> bool:
    """True when a stored password was made with other parameters than today's."""
    return _hasher.check_needs_rehash(stored)
