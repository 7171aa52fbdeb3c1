# shellcheck shell=sh source=packaging/scripts/common.sh
# SPDX-License-Identifier: Apache-2.0
# rpm: 0 for an erasure, 1 for an upgrade. Fedora's packages keep their accounts, and so does this one.
if [ "$1" -eq 0 ]; then
    remove_programs
    reload_manager
fi
