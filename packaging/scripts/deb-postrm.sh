# shellcheck shell=sh source=packaging/scripts/common.sh
# SPDX-License-Identifier: Apache-2.0
# dpkg: remove | purge | upgrade NEW | disappear … | failed-upgrade OLD | abort-install [OLD] | abort-upgrade OLD (Debian policy 6.5)
case "$1" in
    remove | disappear)
        remove_programs
        reload_manager
        ;;
    purge)
        # /var/opt/azcmagent and /var/lib/GuestConfig stay (agent-overview); a uid that may be given out again must not own them.
        remove_programs
        hand_to_root himds "$state"
        remove_account himds
        ;;
    abort-install)
        unmark_fresh
        ;;
    upgrade | failed-upgrade | abort-upgrade) ;;
    *)
        unknown_argument postrm "$1"
        ;;
esac
