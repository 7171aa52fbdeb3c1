# shellcheck shell=sh
# SPDX-License-Identifier: Apache-2.0
# What the maintainer scripts share; the builder puts it in front of each of them.
# Facts: agent-overview 'Linux agent installation details'; owners and modes: docs/protocol.md section 12.

units='himdsd.service gcad.service extd.service'
state=/var/opt/azcmagent
guest=/var/lib/GuestConfig
lib=/opt/azcmagent/lib
# Present from before unpacking to the end of configuring when this is an installation, not an upgrade.
fresh=/opt/azcmagent/.fresh

mark_fresh() {
    mkdir -p "${fresh%/*}"
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

make_account() {
    getent group himds >/dev/null || groupadd --system himds
    getent passwd himds >/dev/null ||
        useradd --system --gid himds --home-dir "$state" --no-create-home --shell /usr/sbin/nologin himds
}

# directory OWNER MODE PATH; never follows a link that the unprivileged service may have put there.
directory() {
    if [ -L "$3" ]; then
        echo "azcmagent: $3 is a symbolic link; remove it and configure the package again." >&2
        exit 1
    fi
    [ -d "$3" ] || mkdir -m 0700 "$3"
    chown --no-dereference "$1" "$3"
    chmod "$2" "$3"
}

make_directories() {
    mkdir -p /var/opt
    directory root:root 0755 "$state"
    directory root:root 0755 "$state/clouds"
    directory root:root 0755 "$state/trust"
    for entry in state:0750 certs:0700 tokens:0750 log:0755 socks:0755; do
        directory himds:himds "${entry#*:}" "$state/${entry%%:*}"
    done
    if [ ! -e "$state/agentconfig.json" ] && [ ! -L "$state/agentconfig.json" ]; then
        ln -s state/agentconfig.json "$state/agentconfig.json"
    fi
    directory root:root 0755 "$guest"
    for name in arc_policy_logs ext_mgr_logs extension_logs; do
        directory root:root 0750 "$guest/$name"
    done
    for name in policy extensions extensions/keys; do
        directory root:root 0700 "$guest/$name"
    done
}

# What an earlier installation left belongs to nobody, or to root, since its account was removed.
adopt_leftovers() {
    for name in state certs tokens; do
        find "$state/$name" -xdev -mindepth 1 -exec chown --no-dereference himds:himds {} +
    done
    find "$state/log" -xdev -mindepth 1 -name 'himds*' -exec chown --no-dereference himds:himds {} +
    if [ -f "$state/localconfig.json" ] && [ ! -L "$state/localconfig.json" ]; then
        chown root:himds "$state/localconfig.json"
    fi
}

hand_leftovers_to_root() {
    [ ! -d "$state" ] || find "$state" -xdev \( -user himds -o -group himds \) -exec chown --no-dereference root:root {} +
}

drop_bytecode() {
    [ ! -d "$lib" ] || find "$lib" -xdev -type d -name __pycache__ -prune -exec rm -rf {} +
}

# The files carry the date of the release, so a changed file may look unchanged to Python: compile always.
compile() {
    python3 -IS -m compileall -q -f "$lib"
}

enable_services() {
    # shellcheck disable=SC2086 # one word for each unit
    systemctl enable --quiet $units
}

disable_services() {
    # shellcheck disable=SC2086
    systemctl disable --quiet $units
}

# The environment of services is the manager's: it reads system.conf.d again when it reloads.
reload_manager() {
    ! systemd_runs || systemctl daemon-reload
}

# A service that does not start must not leave the package half configured: the operator is told, and repairs it with systemctl.
activate() {
    systemd_runs || return 0
    enabled=''
    for unit in $units; do
        ! systemctl is-enabled --quiet "$unit" || enabled="$enabled $unit"
    done
    [ -n "$enabled" ] || return 0
    # shellcheck disable=SC2086
    systemctl restart $enabled && return 0
    for unit in $enabled; do
        systemctl is-active --quiet "$unit" ||
            echo "azcmagent: $unit did not start; see 'journalctl -u $unit', then 'systemctl start $unit'." >&2
    done
}

stop_services() {
    systemd_runs || return 0
    # shellcheck disable=SC2086
    systemctl stop azcmagent-specialise.path azcmagent-specialise.service $units
}

remove_programs() {
    rm -rf /opt/azcmagent /opt/GC_Service /opt/GC_Ext
}
