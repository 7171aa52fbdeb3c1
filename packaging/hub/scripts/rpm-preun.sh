# shellcheck shell=sh source=packaging/hub/scripts/common.sh
# SPDX-License-Identifier: Apache-2.0
# rpm: 0 for an erasure, 1 when an upgrade removes the old version (the new one's post has run)
if [ "$1" -eq 0 ]; then
    stop_services
    disable_services
    drop_bytecode
fi
