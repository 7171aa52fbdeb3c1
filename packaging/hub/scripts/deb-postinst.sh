# shellcheck shell=sh source=packaging/hub/scripts/common.sh
# SPDX-License-Identifier: Apache-2.0
# dpkg: configure [OLD] | abort-upgrade NEW | abort-remove … | abort-deconfigure … (Debian policy 6.5)
case "$1" in
    configure)
        install_hub
        if is_fresh; then
            first_start
            unmark_fresh
        fi
        resume
        ;;
    abort-upgrade | abort-remove | abort-deconfigure)
        compile
        [ "$1" != abort-remove ] || systemctl enable --quiet hawser-hub.service
        reload_manager
        resume
        ;;
    *)
        unknown_argument postinst "$1"
        ;;
esac
