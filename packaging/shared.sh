# shellcheck shell=sh
# SPDX-License-Identifier: Apache-2.0
# What the maintainer scripts of all packages share. The package's own common.sh stands before it and says what `package`,
# `home`, `lib`, `units`, `beside` (units that are stopped with those, and started by others) and `python` are; the builder
# puts the parts together.

# Present from before unpacking to the end of configuring when this is an installation, not an upgrade.
fresh=$home/.fresh

mark_fresh() {
    mkdir -p "$home"
    : >"$fresh"
}

is_fresh() {
    [ -e "$fresh" ]
}

unmark_fresh() {
    rm -f "$fresh"
}

systemd_runs() {
    [ -d /run/systemd/system ]
}

# make_account NAME HOME
make_account() {
    getent group "$1" >/dev/null || groupadd --system "$1"
    getent passwd "$1" >/dev/null ||
        useradd --system --gid "$1" --home-dir "$2" --no-create-home --shell /usr/sbin/nologin "$1"
}

# remove_account NAME
remove_account() {
    if getent passwd "$1" >/dev/null; then userdel "$1"; fi
    if getent group "$1" >/dev/null; then groupdel "$1"; fi
}

# directory OWNER MODE PATH; never follows a link that the unprivileged service may have put there.
directory() {
    if [ -L "$3" ]; then
        echo "$package: $3 is a symbolic link; remove it and configure the package again." >&2
        exit 1
    fi
    [ -d "$3" ] || mkdir -m 0700 "$3"
    chown --no-dereference "$1" "$3"
    chmod "$2" "$3"
}

# hand_to_root ACCOUNT PATH: a uid that may be given out again must not own what stays.
hand_to_root() {
    [ ! -d "$2" ] || find "$2" -xdev \( -user "$1" -o -group "$1" \) -exec chown --no-dereference root:root {} +
}

drop_bytecode() {
    [ ! -d "$lib" ] || find "$lib" -xdev -type d -name __pycache__ -prune -exec rm -rf {} +
}

# The files carry the date of the release, so a changed file may look unchanged to Python: compile always.
compile() {
    "$python" -IS -m compileall -q -f "$lib"
}

enable_services() {
    # shellcheck disable=SC2086 # one word for each unit
    systemctl enable --quiet $units
}

disable_services() {
    # shellcheck disable=SC2086
    systemctl disable --quiet $units
}

stop_services() {
    systemd_runs || return 0
    # shellcheck disable=SC2086
    systemctl stop $beside $units
}

# The environment of services is the manager's: it reads system.conf.d again when it reloads.
reload_manager() {
    ! systemd_runs || systemctl daemon-reload
}

# start UNIT…: a service that does not start must not leave the package half configured: the operator is told, and repairs it
# with systemctl.
start() {
    systemctl restart "$@" && return 0
    for unit in "$@"; do
        systemctl is-active --quiet "$unit" ||
            echo "$package: $unit did not start; see 'journalctl -u $unit', then 'systemctl start $unit'." >&2
    done
}

unknown_argument() {
    echo "$package: $1 called with an unknown argument '$2'." >&2
    exit 1
}
