# shellcheck shell=sh source=packaging/hub/scripts/common.sh
# SPDX-License-Identifier: Apache-2.0
# dpkg: remove [in-favour …] | upgrade NEW | deconfigure … | failed-upgrade OLD (Debian policy 6.5)
case "$1" in
    remove)
        stop_services
        disable_services
        drop_bytecode
        ;;
    upgrade | failed-upgrade)
        pause
        ;;
    deconfigure)
        stop_services
        ;;
    *)
        unknown_argument prerm "$1"
        ;;
esac
