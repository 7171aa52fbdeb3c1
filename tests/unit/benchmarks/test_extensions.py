# SPDX-License-Identifier: Apache-2.0
"""What a log says of the time between a wish and enable; packages that are made to be measured."""

from __future__ import annotations

import os
import time
import zipfile
from pathlib import Path

import pytest

from benchmarks import memory, packages
from benchmarks.extension_host_parts import without_host
from control_plane.artefacts import package

SENT, ENABLED = 1_767_225_600.0, 1_767_225_603.0


def line(seconds: float, message: str) -> str:
    whole = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(SENT + seconds))
    return f'time={whole}.{round(seconds % 1 * 1000):03}Z level=info msg="{message}"\n'


BEGINS = line(0.5, "enable of Bench.Measured 1.0.0 begins")
FETCHED = line(1.75, "download of Bench.Measured 1.0.0 done")


@pytest.mark.parametrize(
    ("log", "found"),
    [
        (BEGINS, 0.5),
        (line(0.5, "install of Bench.Measured 1.0.0 begins") + FETCHED, 1.75),
        (line(0.25, "download of Bench.Measured 1.0.0 done") + BEGINS, 0.5),
        (line(-3, "enable of Bench.Measured 1.0.0 begins") + BEGINS + line(5, "enable of Bench.Measured begins"), 0.5),
        (BEGINS + line(0.75, "download of Other.Handler 1.0.0 done"), 0.5),
    ],
)
def test_what_the_host_alone_did_not_need(log: str, found: float) -> None:
    assert without_host(log, SENT, ENABLED) == pytest.approx(found)


@pytest.mark.parametrize("log", ["", FETCHED, line(4, "enable of Bench.Measured 1.0.0 begins")])
def test_a_log_without_a_beginning_is_no_figure(log: str) -> None:
    with pytest.raises(ValueError, match="when the engine began"):
        without_host(log, SENT, ENABLED)


def test_a_package_is_one_that_a_hub_takes(tmp_path: Path) -> None:
    path = packages.write(tmp_path / "p.zip", "1.2.3", ballast=(1 << 20) + 5)
    found = package.inspect(path, None, None, None, "linux", "any")
    assert (found.publisher, found.type, found.version) == (packages.PUBLISHER, packages.TYPE, "1.2.3")
    with zipfile.ZipFile(path) as archive:
        ballast = archive.getinfo("ballast")
    assert (ballast.file_size, ballast.compress_type) == ((1 << 20) + 5, zipfile.ZIP_STORED)


def test_the_peak_of_memory_is_that_of_the_block() -> None:
    def peak() -> None:
        assert len(bytearray(os.urandom(1 << 20) * 64)) == 64 << 20

    peak()
    with memory.watched(os.getpid()) as before:
        pass
    with memory.watched(os.getpid()) as meanwhile:
        peak()
    assert meanwhile.own - before.own > 32 << 20
    assert (meanwhile.workers, meanwhile.sum) == ({}, meanwhile.own)
