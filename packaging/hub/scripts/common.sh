# shellcheck shell=sh
# SPDX-License-Identifier: Apache-2.0
# What the hub's maintainer scripts share, before what every package's share (../../shared.sh). The builder gives Python its
# full name: the compiled libraries are for one minor version.

package=hawser-hub
home=/opt/hawser-hub
lib=$home/lib
units='hawser-hub.service hawser-hub-backup.timer'
beside=''
python=/usr/bin/python3
account=hawser-hub
data=/var/lib/hawser-hub
# Names, from the stop before a change of the files to the start after it, the units that ran.
ran=$home/.ran

# A hub imports parts when they are needed first, and must not find those of another version then.
pause() {
    if systemd_runs && [ ! -e "$ran" ]; then
        for unit in $units; do
            ! systemctl is-active --quiet "$unit" || echo "$unit"
        done >"$ran"
        stop_services
    fi
    drop_bytecode
}

# The hub's own start brings the schema up too; here the operator sees at once what became of it. It is refused while other
# hubs serve the same PostgreSQL, and then left to the start.
migrate() {
    runuser -u "$account" -- "$home/bin/hawser-hub" --data "$data" migrate ||
        echo "$package: the schema was not migrated (see above); the start of the hub will try again." >&2
}

# What `pause` stopped, again.
resume() {
    [ -e "$ran" ] || return 0
    running=$(cat "$ran")
    rm -f "$ran"
    [ -n "$running" ] || return 0
    systemd_runs || return 0
    case "$running" in
        *hawser-hub.service*) migrate ;;
    esac
    # shellcheck disable=SC2086 # one word for each unit
    start $running
}

# A hub whose data are there (the package was removed and comes back) goes on; without data there is nothing to start.
first_start() {
    systemctl enable --quiet hawser-hub.service
    if [ ! -e "$data/hub.json" ]; then
        echo "$package: there is no hub in $data yet. Make one, then start it:"
        echo "  runuser -u $account -- hawser-hub init --url https://HOST:8443"
        echo "  systemctl start hawser-hub"
    elif systemd_runs; then
        # It may run already, from wheels.
        systemctl stop hawser-hub.service
        migrate
        start hawser-hub.service
    fi
}

install_hub() {
    make_account "$account" "$data"
    directory "$account:$account" 0700 "$data"
    compile
    reload_manager
}
