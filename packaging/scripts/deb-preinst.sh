# shellcheck shell=sh source=packaging/scripts/common.sh
# SPDX-License-Identifier: Apache-2.0
# dpkg: install [OLD-VERSION] | upgrade OLD-VERSION | abort-upgrade NEW-VERSION (Debian policy 6.5)
case "$1" in
    install)
        mark_fresh
        ;;
    upgrade | abort-upgrade) ;;
    *)
        echo "azcmagent: preinst called with an unknown argument '$1'." >&2
        exit 1
        ;;
esac
