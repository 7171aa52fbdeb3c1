# shellcheck shell=sh source=packaging/hub/scripts/common.sh
# SPDX-License-Identifier: Apache-2.0
# dpkg: remove [in-favour …] | upgrade NEW | deconfigure … | failed-upgrade OLD (Debian policy 6.5)
case "$1" in
    remove)
        pause
        disable_services
        ;;
    upgrade | failed-upgrade | deconfigure)
        pause
        ;;
    *)
        unknown_argument prerm "$1"
        ;;
esac
