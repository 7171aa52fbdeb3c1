# shellcheck shell=sh source=packaging/hub/scripts/common.sh
# SPDX-License-Identifier: Apache-2.0
# dpkg: remove | purge | upgrade NEW | disappear … | failed-upgrade OLD | abort-install [OLD] | abort-upgrade OLD (Debian policy 6.5)
case "$1" in
    remove | disappear)
        rm -rf "$home"
        reload_manager
        ;;
    purge)
        # Backups were made for the day on which the data are gone: they stay, and become root's.
        rm -rf "$home" "$data"
        hand_to_root "$account" /var/backups/hawser-hub
        remove_account "$account"
        ;;
    abort-install)
        unmark_fresh
        ;;
    upgrade | failed-upgrade | abort-upgrade) ;;
    *)
        unknown_argument postrm "$1"
        ;;
esac
