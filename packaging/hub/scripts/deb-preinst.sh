# shellcheck shell=sh source=packaging/hub/scripts/common.sh
# SPDX-License-Identifier: Apache-2.0
# dpkg: install [OLD-VERSION] | upgrade OLD-VERSION | abort-upgrade NEW-VERSION (Debian policy 6.5)
case "$1" in
    install)
        mark_fresh
        ;;
    upgrade | abort-upgrade) ;;
    *)
        unknown_argument preinst "$1"
        ;;
esac
