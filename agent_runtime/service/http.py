# SPDX-License-Identifier: Apache-2.0
"""HTTP/1.1 of the residents, both ways: requests of the local endpoint are parsed, answers of the hub are read.

Strict where a lenient reading is an attack (two lengths, two hosts, folded lines, bad chunks), limited everywhere,
and no more: one request a connection at the server, no trailers kept, no upgrade. Pure: bytes in, values out. RFC 9112.
"""

from __future__ import annotations

HEAD_LIMIT = 16 * 1024
FIELDS_LIMIT = 64
REASONS = {
    200: "OK",
    400: "Bad Request",
    401: "Unauthorized",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    413: "Content Too Large",
    431: "Request Header Fields Too Large",
    500: "Internal Server Error",
    503: "Service Unavailable",
}
_TOKEN = frozenset(b"!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
# Fields of which a second one with another meaning must never be overlooked.
_SINGLE = frozenset(
    {"host", "content-length", "transfer-encoding", "authorization", "metadata", "origin", "location", "retry-after"}
)


class HttpError(Exception):
    """What arrived is not HTTP/1.1 as it is spoken here. `status` is the answer a server gives."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class Request:
    """`target` is as sent (path and query, ASCII), `headers` have lower-case names."""

    __slots__ = ("headers", "method", "target")

    def __init__(self, method: str, target: str, headers: dict[str, str]) -> None:
        self.method = method
        self.target = target
        self.headers = headers


class Response:
    """Status and headers of an answer; the body follows (`BodyReader`)."""

    __slots__ = ("headers", "status")

    def __init__(self, status: int, headers: dict[str, str]) -> None:
        self.status = status
        self.headers = headers


def _fields(lines: list[bytes]) -> dict[str, str]:
    if len(lines) > FIELDS_LIMIT:
        raise HttpError(431, "too many header fields")
    headers: dict[str, str] = {}
    for line in lines:
        name, colon, value = line.partition(b":")
        if not colon or not name or not _TOKEN.issuperset(name):
            raise HttpError(400, "a header field is malformed")
        key = name.decode("ascii").lower()
        text = value.strip(b" \t").decode("latin-1")
        if "\0" in text or "\r" in text or "\n" in text:
            raise HttpError(400, "a header field holds a forbidden character")
        if key in headers:
            if key in _SINGLE:
                raise HttpError(400, f"the header field {key} stands twice")
            text = f"{headers[key]}, {text}"
        headers[key] = text
    return headers


def _split_head(data: bytes) -> tuple[list[bytes], int] | None:
    end = data.find(b"\r\n\r\n")
    if end < 0:
        if len(data) > HEAD_LIMIT:
            raise HttpError(431, "the head is too long")
        return None
    if end > HEAD_LIMIT:
        raise HttpError(431, "the head is too long")
    return data[:end].split(b"\r\n"), end + 4


def parse_request(data: bytes) -> Request | None:
    """The request that `data` begins with, None while its head is not complete. Errors: HttpError.

    A body is not read: no request of the local endpoint has one, and one connection carries one request.
    """
    head = _split_head(data)
    if head is None:
        if data and not _TOKEN.issuperset(data[:1]):
            raise HttpError(400, "this is not HTTP")
        return None
    lines, _ = head
    parts = lines[0].split(b" ")
    if len(parts) != 3 or not parts[0] or not _TOKEN.issuperset(parts[0]):
        raise HttpError(400, "the request line is malformed")
    method, target, version = parts
    if version not in (b"HTTP/1.1", b"HTTP/1.0"):
        raise HttpError(400, "only HTTP/1.1 is spoken here")
    if not target or any(byte <= 0x20 or byte >= 0x7F for byte in target):
        raise HttpError(400, "the request target is malformed")
    headers = _fields(lines[1:])
    if version == b"HTTP/1.1" and "host" not in headers:
        raise HttpError(400, "the header field host is missing")
    return Request(method.decode("ascii"), target.decode("ascii"), headers)


def parse_response(data: bytes) -> tuple[Response, int] | None:
    """The answer that `data` begins with and the length of its head; None while the head is not complete. Errors:
    HttpError."""
    head = _split_head(data)
    if head is None:
        return None
    lines, length = head
    version, _, rest = lines[0].partition(b" ")
    code = rest[:3]
    if (
        version not in (b"HTTP/1.1", b"HTTP/1.0")
        or not code.isdigit()
        or len(code) != 3
        or rest[3:4] not in (b"", b" ")
    ):
        raise HttpError(400, "the status line is malformed")
    return Response(int(code), _fields(lines[1:])), length


class BodyReader:
    """Takes the bytes after a head and gives the body: `feed` returns what is body, `done` says that it is complete.

    Lengths: chunked, Content-Length, or until the connection ends (`end`).
    """

    def __init__(self, response: Response) -> None:
        coding = response.headers.get("transfer-encoding", "").lower()
        length = response.headers.get("content-length")
        self.done = False
        self.until_close = False
        self._buffer = b""
        self._chunked = False
        self._left = 0
        if response.status in (204, 304) or 100 <= response.status < 200:
            self.done = True
        elif coding:
            if coding != "chunked" or length is not None:
                raise HttpError(400, "the length of the answer is ambiguous")
            self._chunked = True
            self._state = "size"
        elif length is not None:
            if not (length.isascii() and length.isdigit()) or len(length) > 15:
                raise HttpError(400, "the length of the answer is malformed")
            self._left = int(length)
            self.done = self._left == 0
        else:
            self.until_close = True

    def feed(self, data: bytes) -> bytes:
        """Body bytes contained in the next bytes of the connection. Errors: HttpError."""
        if self.done:
            if data:
                raise HttpError(400, "the answer is longer than announced")
            return b""
        if self.until_close:
            return data
        if self._chunked:
            return self._feed_chunks(data)
        if len(data) > self._left:
            raise HttpError(400, "the answer is longer than announced")
        self._left -= len(data)
        self.done = self._left == 0
        return data

    def end(self) -> None:
        """The connection ended. Errors: HttpError when the body is not complete."""
        if not self.done and not self.until_close:
            raise HttpError(400, "the answer was cut off")
        self.done = True

    def _feed_chunks(self, data: bytes) -> bytes:
        self._buffer += data
        out = []
        while not self.done:
            if self._state == "data":
                piece = self._buffer[: self._left]
                out.append(piece)
                self._buffer = self._buffer[len(piece) :]
                self._left -= len(piece)
                if self._left:
                    break
                self._state = "end"
            if self._state == "end":
                if len(self._buffer) < 2:
                    break
                if self._buffer[:2] != b"\r\n":
                    raise HttpError(400, "a chunk is malformed")
                self._buffer = self._buffer[2:]
                self._state = "size"
            line = self._line()
            if line is None:
                break
            if self._state == "size":
                size = line.partition(b";")[0].strip(b" \t")
                if not size or len(size) > 8 or not set(size) <= set(b"0123456789abcdefABCDEF"):
                    raise HttpError(400, "a chunk is malformed")
                self._left = int(size, 16)
                self._state = "data" if self._left else "trailer"
            elif not line:
                self.done = True
                if self._buffer:
                    raise HttpError(400, "the answer is longer than announced")
        return b"".join(out)

    def _line(self) -> bytes | None:
        end = self._buffer.find(b"\r\n")
        if end < 0:
            if len(self._buffer) > 4096:
                raise HttpError(400, "a chunk is malformed")
            return None
        line, self._buffer = self._buffer[:end], self._buffer[end + 2 :]
        if len(line) > 4096:
            raise HttpError(400, "a chunk is malformed")
        return line


def response_bytes(status: int, body: bytes, fields: str = "", content_type: str = "application/json") -> bytes:
    """A whole answer after which the connection is closed. `fields`: further header lines, each ended by CRLF."""
    return (
        f"HTTP/1.1 {status} {REASONS.get(status, 'Answer')}\r\nContent-Type: {content_type}\r\n"
        f"Content-Length: {len(body)}\r\n"
        f"{fields}Cache-Control: no-store\r\nConnection: close\r\n\r\n"
    ).encode("latin-1") + body


def request_bytes(method: str, target: str, host: str, fields: dict[str, str], body: bytes) -> bytes:
    """A request that keeps the connection. Errors: ValueError when a value could break out of its line."""
    lines = [f"{method} {target} HTTP/1.1", f"Host: {host}", *(f"{name}: {value}" for name, value in fields.items())]
    if body or method in ("POST", "PUT", "PATCH"):
        lines.append(f"Content-Length: {len(body)}")
    if any("\r" in line or "\n" in line for line in lines):
        raise ValueError("a header field holds a line break")
    return "\r\n".join([*lines, "", ""]).encode("ascii") + body
