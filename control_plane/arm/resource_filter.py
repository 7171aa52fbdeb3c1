# SPDX-License-Identifier: Apache-2.0
"""`$filter` of resource lists: read once, then asked of each resource. Pure.

Grammar as the vendor's REST reference documents it for `Resources - List`: `eq` and `ne` on name, resourceType,
resourceGroup, location, tagName, tagValue; `substringof(text, name|resourceGroup)`; `startswith(tagName, text)`; `and`,
`or`, parentheses; `and` binds stronger. Texts are compared without case, except values of tags. Conditions on tagName
and tagValue that are joined by `and` are about one and the same tag.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from control_plane.arm.paths import folded_location
from control_plane.errors import ApiError

MAX_LENGTH = 4096
MAX_CONDITIONS = 64
MAX_DEPTH = 16

_PROPERTIES = {
    name.lower(): name for name in ("name", "resourceType", "resourceGroup", "location", "tagName", "tagValue")
}
_TAG = ("tagName", "tagValue")
_TOKEN = re.compile(r"\s*(?:(?P<text>'(?:[^']|'')*')|(?P<mark>[(),])|(?P<word>[A-Za-z][A-Za-z0-9_/.-]*))")


@dataclass(frozen=True)
class Facts:
    """What a filter may ask of a resource."""

    name: str
    resource_type: str
    resource_group: str
    location: str
    tags: Mapping[str, str]


@dataclass(frozen=True)
class Condition:
    """`how`: eq, ne, substringof, startswith. `of`: a property in its own spelling."""

    how: str
    of: str
    text: str


@dataclass(frozen=True)
class Both:
    """Joined by `and`."""

    parts: tuple[Node, ...]


@dataclass(frozen=True)
class Either:
    """Joined by `or`."""

    parts: tuple[Node, ...]


Node = Condition | Both | Either


def _refusal(message: str) -> ApiError:
    return ApiError(
        400,
        "InvalidFilterInQueryString",
        f'Invalid $filter in the query string: {message} Use for example "resourceType eq '
        "'Microsoft.HybridCompute/machines'\" or \"tagName eq 'env' and tagValue eq 'prod'\".",
        target="$filter",
    )


def _tokens(text: str) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    position, end = 0, len(text.rstrip())
    while position < end:
        match = _TOKEN.match(text, position, end)
        if match is None:
            raise _refusal(f"it cannot be read at character {position + 1}.")
        kind = str(match.lastgroup)
        value = match.group(kind)
        found.append((kind, value[1:-1].replace("''", "'") if kind == "text" else value))
        position = match.end()
    return found


class _Reader:
    """Recursive descent over the tokens."""

    def __init__(self, tokens: list[tuple[str, str]]) -> None:
        self._tokens, self._at, self._conditions = tokens, 0, 0

    def whole(self) -> Node:
        found = self._either(0)
        if self._at < len(self._tokens):
            raise _refusal(f"'{self._tokens[self._at][1][:40]}' is not expected there.")
        return found

    def _take(self, kind: str, what: str) -> str:
        if self._at >= len(self._tokens):
            raise _refusal(f"it ends where {what} is expected.")
        found, value = self._tokens[self._at]
        if found != kind:
            raise _refusal(f"'{value[:40]}' stands where {what} is expected.")
        self._at += 1
        return value

    def _mark(self, mark: str) -> None:
        if self._take("mark", f"'{mark}'") != mark:
            raise _refusal(f"'{mark}' is missing.")

    def _next(self, kind: str, value: str) -> bool:
        here = self._at < len(self._tokens) and self._tokens[self._at][0] == kind
        if here and self._tokens[self._at][1].lower() == value:
            self._at += 1
            return True
        return False

    def _either(self, depth: int) -> Node:
        parts = [self._both(depth)]
        while self._next("word", "or"):
            parts.append(self._both(depth))
        return Either(tuple(parts)) if len(parts) > 1 else parts[0]

    def _both(self, depth: int) -> Node:
        parts = [self._one(depth)]
        while self._next("word", "and"):
            parts.append(self._one(depth))
        return Both(tuple(parts)) if len(parts) > 1 else parts[0]

    def _one(self, depth: int) -> Node:
        if depth > MAX_DEPTH:
            raise _refusal(f"it is nested deeper than {MAX_DEPTH} levels.")
        if self._next("mark", "("):
            found = self._either(depth + 1)
            self._mark(")")
            return found
        self._conditions += 1
        if self._conditions > MAX_CONDITIONS:
            raise _refusal(f"it has more than {MAX_CONDITIONS} conditions.")
        return self._condition()

    def _condition(self) -> Condition:
        word = self._take("word", "a condition")
        if word.lower() == "substringof":
            self._mark("(")
            text = self._take("text", "a text in single quotes")
            self._mark(",")
            of = self._property(("name", "resourceGroup"), "substringof")
            self._mark(")")
            return Condition("substringof", of, text)
        if word.lower() == "startswith":
            self._mark("(")
            of = self._property(("tagName",), "startswith")
            self._mark(",")
            text = self._take("text", "a text in single quotes")
            self._mark(")")
            return Condition("startswith", of, text)
        of = _known(word, tuple(_PROPERTIES.values()))
        how = self._take("word", "'eq' or 'ne'").lower()
        if how not in ("eq", "ne"):
            raise _refusal(f"'{how[:40]}' is no operator; there are 'eq' and 'ne'.")
        if how == "ne" and of in _TAG:
            raise _refusal(f"'{of}' can be compared with 'eq' only.")
        return Condition(how, of, self._take("text", "a text in single quotes"))

    def _property(self, allowed: tuple[str, ...], function: str) -> str:
        of = _known(self._take("word", "a property"), tuple(_PROPERTIES.values()))
        if of not in allowed:
            raise _refusal(f"'{function}' takes {' or '.join(allowed)}, not '{of}'.")
        return of


def _known(word: str, known: tuple[str, ...]) -> str:
    of = _PROPERTIES.get(word.lower())
    if of is None:
        raise _refusal(f"'{word[:40]}' is no property that can be asked for; there are {', '.join(known)}.")
    return of


def read(text: str | None) -> Node | None:
    """The filter, or None when none is asked for.

    Errors: ApiError 400 `InvalidFilterInQueryString`.
    """
    if text is None or not text.strip():
        return None
    if "\x00" in text:
        raise _refusal("it holds the character NUL.")
    if len(text) > MAX_LENGTH:
        raise _refusal(f"it is longer than {MAX_LENGTH} characters.")
    return _Reader(_tokens(text)).whole()


def _folded(of: str, text: str) -> str:
    return folded_location(text) if of == "location" else text.lower()


_VALUES: dict[str, Callable[[Facts], str]] = {
    "name": lambda facts: facts.name,
    "resourceType": lambda facts: facts.resource_type,
    "resourceGroup": lambda facts: facts.resource_group,
    "location": lambda facts: facts.location,
}


def _tag_holds(condition: Condition, name: str, value: str) -> bool:
    if condition.how == "startswith":
        return name.lower().startswith(condition.text.lower())
    return value == condition.text if condition.of == "tagValue" else name.lower() == condition.text.lower()


def _some_tag(conditions: tuple[Condition, ...], facts: Facts) -> bool:
    return any(all(_tag_holds(item, name, value) for item in conditions) for name, value in facts.tags.items())


def holds(node: Node | None, facts: Facts) -> bool:
    """True when the resource is one that the filter asks for."""
    if node is None:
        return True
    if isinstance(node, Either):
        return any(holds(part, facts) for part in node.parts)
    if isinstance(node, Both):
        tags = tuple(part for part in node.parts if isinstance(part, Condition) and part.of in _TAG)
        others = (part for part in node.parts if part not in tags)
        return all(holds(part, facts) for part in others) and (not tags or _some_tag(tags, facts))
    if node.of in _TAG:
        return _some_tag((node,), facts)
    value, wanted = _folded(node.of, _VALUES[node.of](facts)), _folded(node.of, node.text)
    if node.how == "substringof":
        return wanted in value
    return (value == wanted) == (node.how == "eq")


def _joined(node: Node | None) -> tuple[Condition, ...]:
    """Conditions that every resource which is asked for fulfils."""
    parts = node.parts if isinstance(node, Both) else (node,)
    return tuple(part for part in parts if isinstance(part, Condition))


def required(node: Node | None, of: str) -> str | None:
    """The text, in lower case, that a property must equal whatever else holds; None when the filter leaves it open."""
    texts = (part.text.lower() for part in _joined(node) if (part.how, part.of) == ("eq", of))
    return next(texts, None)


def required_tag(node: Node | None) -> tuple[str, str | None] | None:
    """Name, and value if one is asked for, of a tag that must be there; None when the filter leaves it open."""
    asked = {part.of: part.text for part in reversed(_joined(node)) if part.how == "eq"}
    return (asked["tagName"], asked.get("tagValue")) if "tagName" in asked else None
