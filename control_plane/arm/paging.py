# SPDX-License-Identifier: Apache-2.0
"""Pages: an opaque, authenticated `$skiptoken` that belongs to one list (identity-and-arm-api.md C.2)."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar
from urllib.parse import quote, urlencode

from control_plane.call import HubCall
from control_plane.errors import ApiError

DEFAULT_PAGE = 200
MAX_PAGE = 1000
_MAC = 16
T = TypeVar("T")


def _mac(key: bytes, scope: str, text: str) -> bytes:
    return hmac.new(key, f"{scope.lower()}\n{text}".encode(), hashlib.sha256).digest()[:_MAC]


def seal(key: bytes, scope: str, text: str) -> str:
    """`text` as an opaque token that is good for the list named by `scope` alone."""
    return base64.urlsafe_b64encode(_mac(key, scope, text) + text.encode()).rstrip(b"=").decode()


def unseal(key: bytes, scope: str, token: str) -> str:
    """The text of a token.

    Errors: ApiError 400 `InvalidParameter` when it was not made for this list.
    """
    bad = ApiError(400, "InvalidParameter", "The '$skiptoken' is not one of this list; follow 'nextLink' as it is.")
    try:
        raw = base64.urlsafe_b64decode(token.encode("ascii") + b"=" * (-len(token) % 4))
        text = raw[_MAC:].decode()
    except (binascii.Error, ValueError) as error:
        raise bad from error
    if not hmac.compare_digest(raw[:_MAC], _mac(key, scope, text)):
        raise bad
    return text


def token(key: bytes, scope: str, last: int) -> str:
    """The token for what follows the row with id `last` in the list named by `scope`."""
    return seal(key, scope, str(last))


def read_token(key: bytes, scope: str, text: str) -> int:
    """The last row's id.

    Errors: ApiError 400 `InvalidParameter` when the token was not made for this list.
    """
    return int(unseal(key, scope, text))


def page_size(text: str | None) -> int:
    """`$top`, at most 1000 in one page.

    Errors: ApiError 400 `InvalidParameter` when it is no positive integer.
    """
    if text is None:
        return DEFAULT_PAGE
    if not (text.isascii() and text.isdigit() and 0 < len(text) <= 9) or int(text) == 0:
        raise ApiError(400, "InvalidParameter", "'$top' must be a positive integer.")
    return min(int(text), MAX_PAGE)


def next_link(origin: str, path: str, query: Mapping[str, str] | Sequence[tuple[str, str]], skip: str) -> str:
    """Absolute URL of the next page; no parameter with an empty value, because clients drop those."""
    pairs = query.items() if isinstance(query, Mapping) else query
    kept = [(name, value) for name, value in pairs if value and name != "$skiptoken"]
    return f"{origin}{quote(path, safe='/-_.()~')}?{urlencode([*kept, ('$skiptoken', skip)], safe='$')}"


def wanted(call: HubCall) -> tuple[int, int]:
    """Behind which row the page begins, and how many it holds, by `$skiptoken` and `$top`.

    Errors: ApiError 400 `InvalidParameter`.
    """
    size, skip = page_size(call.query.get("$top")), call.query.get("$skiptoken")
    return (read_token(call.hub.keys.paging_key, call.http.path, skip) if skip else 0), size


def slice_of(call: HubCall, found: Sequence[T], key: Callable[[T], str]) -> tuple[Sequence[T], str | None]:
    """One page of a short list that is there as a whole, in the order of `key`, and its `nextLink`.

    Errors: ApiError 400 `InvalidParameter`.
    """
    size, skip = page_size(call.query.get("$top")), call.query.get("$skiptoken")
    after = unseal(call.hub.keys.paging_key, call.http.path, skip) if skip else ""
    rest = [item for item in found if key(item) > after]
    if len(rest) <= size:
        return rest, None
    onward = seal(call.hub.keys.paging_key, call.http.path, key(rest[size - 1]))
    return rest[:size], next_link(call.http.origin, call.http.path, dict(call.query), onward)


def page(call: HubCall, value: list[dict[str, Any]], last: int | None) -> dict[str, Any]:
    """The body of a page; with `nextLink` when more follows the row `last`."""
    if last is None:
        return {"value": value}
    skip = token(call.hub.keys.paging_key, call.http.path, last)
    return {"value": value, "nextLink": next_link(call.http.origin, call.http.path, dict(call.query), skip)}
