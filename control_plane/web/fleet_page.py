# SPDX-License-Identifier: Apache-2.0
"""/fleet: the machines, filtered by what stands in the address, and how many have which status."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

from starlette.responses import Response

from control_plane.errors import ApiError
from control_plane.fleet.filters import ORDERS
from control_plane.web import render, words
from control_plane.web.visit import Pairs, Visit

ROWS = 50
_LISTS = ("status", "osType", "resourceGroup", "location", "agentVersion")
_FILTERS = (*_LISTS, "tag", "search", "subscriptionId", "name", "seenBefore", "seenAfter")
_COLUMNS = (
    ("name", "Name"),
    ("status", "Status"),
    ("lastHeartbeat", "Last heartbeat"),
    ("", "System"),
    ("agentVersion", "Agent"),
    ("", "Group"),
    ("location", "Location"),
    ("", "Tags"),
    ("", "Address"),
)
_FIRST_DESCENDING = frozenset({"lastHeartbeat", "agentVersion"})


@dataclass(frozen=True)
class Asked:
    """What an address asks for. `chosen`: pairs of the fleet query; `sort`: a name of ORDERS, with `-` before it for
    the other way round; `after`: where the page begins."""

    chosen: tuple[tuple[str, str], ...] = ()
    sort: str = "name"
    after: str = ""

    def value(self, name: str) -> str:
        """The value of a filter, or nothing."""
        return next((value for key, value in self.chosen if key == name), "")

    def without(self, *names: str) -> tuple[tuple[str, str], ...]:
        """The filters but these."""
        return tuple(pair for pair in self.chosen if pair[0] not in names)

    def address(self, chosen: Pairs | None = None, sort: str | None = None, after: str = "") -> str:
        """The address of the same list with something changed; its first page unless said otherwise."""
        pairs = list(self.chosen if chosen is None else chosen)
        order = self.sort if sort is None else sort
        pairs += [("sort", order)] if order != "name" else []
        pairs += [("after", after)] if after else []
        return f"/fleet?{urlencode(pairs)}" if pairs else "/fleet"


def read(pairs: Sequence[tuple[str, str]]) -> Asked:
    """What the query of an address asks for, names in lower case; unknown ones are left alone. Pure.

    Errors: ApiError 400 for an order that there is not. Filters are judged by the fleet query.
    """
    chosen: list[tuple[str, str]] = []
    for name in _FILTERS:
        given = [value.strip() for key, value in pairs if key == name.lower() and value.strip()]
        if name in _LISTS and given:
            chosen.append((name, ",".join(dict.fromkeys(given))))
        else:
            chosen += [(name, value) for value in (given if name == "tag" else given[-1:])]
    single = {key: value for key, value in pairs if value}
    sort = single.get("sort", "name")
    if sort.removeprefix("-") not in ORDERS:
        raise ApiError(400, "InvalidParameter", f"The list can be sorted by {', '.join(ORDERS)}.", target="sort")
    return Asked(tuple(chosen), sort, single.get("after", ""))


def _columns(asked: Asked) -> list[dict[str, str]]:
    """Headings with what a click on them sorts by."""
    found = []
    for key, title in _COLUMNS:
        column = {"key": key, "title": title, "sorted": "", "href": ""}
        if key:
            now_by, descending = asked.sort.removeprefix("-") == key, asked.sort.startswith("-")
            column["sorted"] = ("descending" if descending else "ascending") if now_by else ""
            turned = (not descending) if now_by else key in _FIRST_DESCENDING
            column["href"] = asked.address(sort=f"-{key}" if turned else key)
        found.append(column)
    return found


def _sorts() -> list[tuple[str, str]]:
    """What the headings offer, for a form where there is no room for headings."""
    offered = [(key, title) for key, title in _COLUMNS if key]
    ways = (("", "ascending"), ("-", "descending"))
    return [(f"{sign}{key}", f"{title}, {way}") for key, title in offered for sign, way in ways]


def _counts(summary: Mapping[str, Any]) -> dict[str, int]:
    found = {item["value"]: item["count"] for item in summary["status"]["values"]}
    return {word: found.get(word, 0) for word in words.STATUSES}


def _bar(asked: Asked, counts: Mapping[str, int]) -> list[dict[str, Any]]:
    """The parts of the bar over the list, in thousandths of its width, each a link to its machines."""
    total, begin, parts = sum(counts.values()), 0.0, []
    chosen = set(filter(None, asked.value("status").split(",")))
    for word, number in counts.items():
        width = 1000 * number / total if total else 0
        only = chosen == {word}
        href = asked.address(asked.without("status") if only else (*asked.without("status"), ("status", word)))
        parts.append({"word": word, "count": number, "x": begin, "width": width, "href": href, "only": only})
        begin += width
    return parts


def _options(summary: Mapping[str, Any], asked: Asked) -> dict[str, list[tuple[str, bool]]]:
    """The values that the lists of the form offer, and whether each is chosen."""
    found = {}
    for name in ("resourceGroup", "location", "agentVersion"):
        chosen = [part for part in asked.value(name).split(",") if part]
        known = sorted({str(item["value"]) for item in summary[name]["values"] if item["value"]}, key=str.lower)
        lower = {value.lower() for value in known}
        offered = known + [value for value in chosen if value.lower() not in lower]
        found[name] = [(value, value.lower() in {item.lower() for item in chosen}) for value in offered]
    return found


def show(visit: Visit) -> Response:
    """GET /fleet; with `part=list` the list alone, which the script puts into the page.

    Errors: ApiError 400, 403.
    """
    asked = read(visit.http.pairs)
    order = f"{asked.sort[1:]} desc" if asked.sort.startswith("-") else asked.sort
    paging = [("$orderby", order), ("$top", str(ROWS)), *([("$skiptoken", asked.after)] if asked.after else [])]
    found = visit.get("/machines", [*asked.chosen, *paging])
    summary = visit.get("/machines/summary", asked.without("status"))
    counts = _counts(summary)
    chosen = [word for word in asked.value("status").split(",") if word]
    lower = {word.lower() for word in chosen}
    token = parse_qs(urlsplit(found["nextLink"] or "").query).get("$skiptoken", [""])[0]
    values: dict[str, Any] = {
        "machines": found["value"],
        "total": sum(number for word, number in counts.items() if not lower or word.lower() in lower),
        "all": summary["total"],
        "bar": _bar(asked, counts),
        "columns": _columns(asked),
        "asked": asked,
        "chosen": chosen,
        "following": asked.address(after=token) if token else "",
        "first": asked.address() if asked.after else "",
        "tag_address": lambda name, value: asked.address(
            (*asked.chosen, *([pair] if (pair := ("tag", f"{name}={value}")) not in asked.chosen else []))
        ),
    }
    if visit.http.query.get("part") == "list":
        return render.page(visit, "_list.html.j2", **values)
    whole = summary if not asked.without("status") else visit.get("/machines/summary")
    values["tags"] = [
        (pair[1], asked.address([other for other in asked.chosen if other != pair]))
        for pair in asked.chosen
        if pair[0] == "tag"
    ]
    return render.page(
        visit, "fleet.html.j2", options=_options(whole, asked), nothing=whole["total"] == 0, sorts=_sorts(), **values
    )
