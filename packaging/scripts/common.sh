# shellcheck shell=sh
# SPDX-License-Identifier: Apache-2.0
# What the agent's maintainer scripts share, before what every package's share (../shared.sh).
# Facts: agent-overview 'Linux agent installation details'; owners and modes: docs/protocol.md section 12.

package=azcmagent
home=/opt/azcmagent
lib=$home/lib
units='himdsd.service gcad.service extd.service'
beside='azcmagent-specialise.path azcmagent-specialise.service'
python=python3
state=/var/opt/azcmagent
guest=/var/lib/GuestConfig

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

# What the operator has disabled stays down.
activate() {
    systemd_runs || return 0
    enabled=''
    for unit in $units; do
        ! systemctl is-enabled --quiet "$unit" || enabled="$enabled $unit"
    done
    [ -n "$enabled" ] || return 0
    # shellcheck disable=SC2086 # one word for each unit
    start $enabled
}

remove_programs() {
    rm -rf "$home" /opt/GC_Service /opt/GC_Ext
}
