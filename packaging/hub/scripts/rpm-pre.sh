# shellcheck shell=sh source=packaging/hub/scripts/common.sh
# SPDX-License-Identifier: Apache-2.0
# rpm: 1 for an installation, 2 for an upgrade; the old version's files are replaced after it
[ "$1" -eq 1 ] || pause
