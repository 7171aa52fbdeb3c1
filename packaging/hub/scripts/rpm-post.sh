# shellcheck shell=sh source=packaging/hub/scripts/common.sh
# SPDX-License-Identifier: Apache-2.0
# rpm: 1 for an installation, 2 for an upgrade
install_hub
[ "$1" -ne 1 ] || first_start
resume
