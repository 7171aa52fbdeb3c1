# shellcheck shell=sh source=packaging/scripts/common.sh
# SPDX-License-Identifier: Apache-2.0
# rpm: 1 for an installation, 2 for an upgrade
make_account himds "$state"
make_directories
adopt_leftovers
compile
[ "$1" -ne 1 ] || enable_services
reload_manager
activate
