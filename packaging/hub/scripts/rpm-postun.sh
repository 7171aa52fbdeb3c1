# shellcheck shell=sh source=packaging/hub/scripts/common.sh
# SPDX-License-Identifier: Apache-2.0
# rpm: 0 for an erasure, 1 for an upgrade. rpm knows no purge: data and account stay.
if [ "$1" -eq 0 ]; then
    rm -rf "$home"
    reload_manager
fi
