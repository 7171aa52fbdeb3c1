# SPDX-License-Identifier: Apache-2.0
"""Load on the local token endpoint: challenge and token pairs, a new connection for each request, as SDKs make them.

Runs on the managed host, needs the standard library only, and prints one JSON object:
``{"pairs", "seconds", "pairs_per_second", "p50_ms", "p99_ms", "max_ms", "errors"}``.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import socket
import time
from typing import Any


def _exchange(address: tuple[str, int], request: bytes) -> bytes:
    with socket.create_connection(address, timeout=10) as connection:
        connection.sendall(request)
        chunks = []
        while chunk := connection.recv(65536):
            chunks.append(chunk)
    return b"".join(chunks)


def _pair(address: tuple[str, int], head: bytes) -> None:
    """One challenge and one token; raises ValueError when either answer is not what an SDK needs."""
    challenge = _exchange(address, head + b"\r\n")
    marker = b"Www-Authenticate: Basic realm="
    start = challenge.find(marker)
    if not challenge.startswith(b"HTTP/1.1 401") or start < 0:
        raise ValueError(challenge[:200].decode("latin-1"))
    path = challenge[start + len(marker) : challenge.index(b"\r\n", start)]
    descriptor = os.open(path, os.O_RDONLY)
    try:
        secret = os.read(descriptor, 4096)
    finally:
        os.close(descriptor)
    answer = _exchange(address, head + b"Authorization: Basic " + secret + b"\r\n\r\n")
    if not answer.startswith(b"HTTP/1.1 200") or b'"access_token"' not in answer:
        raise ValueError(answer[:200].decode("latin-1"))


def _client(port: int, resource: str, seconds: float, cpu: int | None, results: Any) -> None:
    if cpu is not None:
        os.sched_setaffinity(0, {cpu})
    address = ("127.0.0.1", port)
    head = (
        f"GET /metadata/identity/oauth2/token?api-version=2020-06-01&resource={resource} HTTP/1.1\r\n"
        f"Host: localhost:{port}\r\nMetadata: true\r\nConnection: close\r\n"
    ).encode()
    durations: list[float] = []
    errors: list[str] = []
    end = time.monotonic() + seconds
    while (begun := time.monotonic()) < end and len(errors) < 100:
        try:
            _pair(address, head)
            durations.append(time.monotonic() - begun)
        except (OSError, ValueError) as error:
            errors.append(str(error))
    results.put((durations, errors))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=40342)
    parser.add_argument("--seconds", type=float, default=10)
    parser.add_argument("--processes", type=int, default=4)
    parser.add_argument("--cpu", type=int, help="run the clients on this processor")
    parser.add_argument("--resource", default="https%3A%2F%2Fmanagement.azure.com%2F")
    options = parser.parse_args()
    results: Any = multiprocessing.Queue()
    clients = [
        multiprocessing.Process(
            target=_client, args=(options.port, options.resource, options.seconds, options.cpu, results)
        )
        for _ in range(options.processes)
    ]
    begun = time.monotonic()
    for client in clients:
        client.start()
    collected = [results.get() for _ in clients]
    for client in clients:
        client.join()
    elapsed = time.monotonic() - begun
    durations = sorted(value for part, _ in collected for value in part)
    errors = [text for _, part in collected for text in part]

    def percentile(share: float) -> float | None:
        return round(1000 * durations[min(len(durations) - 1, int(share * len(durations)))], 2) if durations else None

    print(
        json.dumps(
            {
                "pairs": len(durations),
                "seconds": round(elapsed, 2),
                "pairs_per_second": round(len(durations) / elapsed, 1),
                "p50_ms": percentile(0.5),
                "p99_ms": percentile(0.99),
                "max_ms": percentile(1.0),
                "errors": errors[:5],
            }
        )
    )


if __name__ == "__main__":
    main()
