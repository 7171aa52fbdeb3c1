# SPDX-License-Identifier: Apache-2.0
"""Makes the checkout importable as `ansible_collections.hawser.machine`, under which plugins know each other."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parents[3]

if "ansible_collections.hawser.machine" not in sys.modules:
    from ansible.utils.collection_loader._collection_finder import _AnsibleCollectionFinder

    _holder = tempfile.TemporaryDirectory(prefix="hawser-collections-")
    _namespace = Path(_holder.name, "ansible_collections", "hawser")
    _namespace.mkdir(parents=True)
    (_namespace / "machine").symlink_to(ROOT)
    _AnsibleCollectionFinder(paths=[_holder.name])._install()
