# SPDX-License-Identifier: Apache-2.0
from __future__ import annotations

from pathlib import Path

import pytest

from tests.unit.agent_extensions.kit import Site


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)
