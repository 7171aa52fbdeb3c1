# shellcheck shell=sh source=packaging/scripts/common.sh
# SPDX-License-Identifier: Apache-2.0
# dpkg: configure [OLD] | triggered NAMES | abort-upgrade NEW | abort-remove … | abort-deconfigure … (Debian policy 6.5)
case "$1" in
    configure)
        make_account himds "$state"
        make_directories
        adopt_leftovers
        compile
        if is_fresh; then
            enable_services
            unmark_fresh
        fi
        reload_manager
        activate
        ;;
    triggered)
        # Another Python came: its bytecode is compiled before anybody needs it.
        compile
        ;;
    abort-upgrade | abort-remove | abort-deconfigure)
        compile
        [ "$1" != abort-remove ] || enable_services
        reload_manager
        activate
        ;;
    *)
        unknown_argument postinst "$1"
        ;;
esac
