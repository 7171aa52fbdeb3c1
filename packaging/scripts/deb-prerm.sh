# shellcheck shell=sh source=packaging/scripts/common.sh
# SPDX-License-Identifier: Apache-2.0
# dpkg: remove [in-favour …] | upgrade NEW | deconfigure … | failed-upgrade OLD (Debian policy 6.5)
case "$1" in
    remove)
        stop_services
        disable_services
        drop_bytecode
        ;;
    upgrade | failed-upgrade)
        # The services go on with what they have in memory until the new version is configured.
        drop_bytecode
        ;;
    deconfigure)
        stop_services
        ;;
    *)
        unknown_argument prerm "$1"
        ;;
esac
