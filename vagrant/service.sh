#!/usr/bin/env bash
# Checks the packaged service on this machine: installs the unit with the given program, starts it, runs commands through
# it, looks at the groups that the kernel enforces them with, stops it and looks for leftovers. Needs root and systemd.
# Takes away what it installed, and keeps nothing of /var/lib/cellblock; refuses to run where a service is installed.
set -euo pipefail
program=$1
here=$(cd "$(dirname "$0")" && pwd)
. "$here/facts.sh"
unit=/etc/systemd/system/cellblock.service
data=/var/lib/cellblock
address=127.0.0.1:8080

if [ -e "$unit" ] || [ -e /usr/bin/cellblock ] || [ -e "$data" ]; then
    echo "a Cellblock is installed here; this check would take it away" >&2
    exit 1
fi

answers=$(mktemp) before=$(mktemp)
mounts_before=$(wc -l < /proc/self/mountinfo)
loops_before=$(losetup -a | wc -l)

cleanup() {
    local code=$?
    if [ "$code" -ne 0 ]; then
        systemctl status --no-pager --lines=0 cellblock.service || true
        journalctl --no-pager -u cellblock.service 2> /dev/null | tail -n 40 || true
    fi
    systemctl stop cellblock.service || true
    rm -f "$unit" /usr/bin/cellblock "$answers" "$before"
    systemctl daemon-reload
    grep -q " $data" /proc/self/mountinfo || rm -rf --one-file-system "$data"
    exit "$code"
}
trap cleanup EXIT

die() {
    echo "service: $*" >&2
    exit 1
}

# is WHAT FOUND WANTED
is() {
    [ "$2" = "$3" ] || die "$1 is '$2', not '$3'"
    echo "ok $1 is $2"
}

# Polls a shell condition for up to a minute, which is long even under emulation.
eventually() {
    local end=$((SECONDS + 60))
    until eval "$1"; do
        [ "$SECONDS" -lt "$end" ] || return 1
        sleep 0.2
    done
}

# call METHOD PATH [BODY]
call() {
    curl -sS --max-time 120 -X "$1" "http://$address$2" -H "Authorization: Bearer $(cat "$data/admin-token")" \
        -H 'Content-Type: application/json' ${3:+-d "$3"}
}

exec_in() {
    call POST /v1/runtimes/example/exec "$1"
}

# Directories of our groups in all hierarchies.
groups() {
    find /sys/fs/cgroup -type d -name 'cellblock-*' ! -name '*.service' ! -name '*.slice' 2> /dev/null
}

install -m 755 "$program" /usr/bin/cellblock
install -m 644 "$here/../packaging/cellblock.service" "$unit"
systemctl daemon-reload
if command -v systemd-analyze > /dev/null; then
    systemd-analyze verify "$unit" || die "the unit has errors"
    systemd-analyze security --no-pager cellblock.service 2> /dev/null | tail -n 1 || true
fi

# Groups of other servers on this machine are not ours to judge.
groups | sort > "$before"
systemctl start cellblock.service
eventually 'curl -sf -o /dev/null http://$address/healthz && [ -e $data/admin-token ]' || die "it does not answer"
echo "ok it answers"
curl -sS "http://$address/readyz"
echo

answer=$(exec_in '{"command":"sh","args":["-c","echo hello; exit 3"]}')
grep -q '"stdout":"hello\\n"' <<< "$answer" || die "no output: $answer"
grep -q '"exit_code":3' <<< "$answer" || die "no exit code: $answer"
echo "ok a command runs"

# Where the limits are: on version 2 below the service's own group, which systemd has delegated.
exec_in '{"command":"sleep","args":["1000.4242"],"timeout_secs":120}' > "$answers" 2>&1 &
client=$!
eventually 'pgrep -f "^sleep 1000[.]4242" > /dev/null' || die "the second command does not start: $(cat "$answers")"
pid=$(pgrep -of '^sleep 1000[.]4242')
if [ "$(cgroup_mode)" = v2 ]; then
    own=$(sed -n 's/^0:://p' "/proc/$pid/cgroup")
    case "$own" in
        */cellblock.service/cellblock-*) echo "ok the command is in $own" ;;
        *) die "the command is in $own, not below the delegated service" ;;
    esac
    cell=/sys/fs/cgroup$own
    for limit in memory.max pids.max; do
        grep -qx '[0-9]*' "$cell/$limit" || die "$limit of the command is $(cat "$cell/$limit")"
        echo "ok $limit is $(cat "$cell/$limit")"
    done
    is memory.oom.group "$(cat "$cell/memory.oom.group")" 1
    is memory.swap.max "$(cat "${cell%/*}/memory.swap.max" 2> /dev/null || echo 0)" 0
    grep -q '^[0-9]' "${cell%/*}/cpu.max" || die "no cpu.max: $(cat "${cell%/*}/cpu.max")"
    echo "ok cpu.max of the runtime is $(cat "${cell%/*}/cpu.max")"
    grep -q . "$cell/memory.peak" || die "no memory.peak"
else
    own=$(sed -n 's/^[0-9]*:memory://p' "/proc/$pid/cgroup")
    case "$own" in
        */cellblock-*) echo "ok the command is in $own" ;;
        *) die "the command's memory group is $own" ;;
    esac
    limit=$(cat "/sys/fs/cgroup/memory$own/memory.limit_in_bytes")
    [ "$limit" -lt 9000000000000000000 ] || die "the command's memory is not limited"
    echo "ok memory.limit_in_bytes is $limit"
fi
is "the command's seccomp mode" "$(awk '/^Seccomp:/ { print $2 }' "/proc/$pid/status")" 2
is "the command's capabilities" "$(awk '/^CapBnd:/ { print $2 }' "/proc/$pid/status")" 0000000000000000

# The memory limit is the kernel's: a command that takes more is ended, the service goes on.
{
    answer=$(exec_in '{"command":"tail","args":["/dev/zero"],"limits":{"memory_mib":64},"timeout_secs":120}')
    grep -q '"oom_killed"' <<< "$answer" || die "the limit did not hold: ${answer:0:400}"
    echo "ok a command that takes too much memory is killed"
}
is "the service after that" "$(systemctl is-active cellblock.service)" active

# A runtime of its own: a disk is made, mounted with mapped ids, written to by a command, and taken away again.
answer=$(call POST /v1/runtimes '{"name":"check"}')
grep -q '"display_name":"check"' <<< "$answer" || die "no runtime is made: $answer"
answer=$(call POST /v1/runtimes/check/exec \
    '{"command":"sh","args":["-c","set -e; echo kept > ~/kept; chmod 700 ~/kept; mkdir /tmp/d; hostname; cat ~/kept"]}')
grep -q '"exit_code":0' <<< "$answer" || die "no command runs in it: $answer"
answer=$(call DELETE /v1/runtimes/check)
grep -q '"error"' <<< "$answer" && die "it is not deleted: $answer"
eventually '! ls $data/runtimes/*/disk.img 2> /dev/null | sed -n 2p | grep -q .' || die "its disk is left"
echo "ok a runtime is made, used and deleted"

systemctl stop cellblock.service
wait "$client" || true
is "the service's result" "$(systemctl show -P Result cellblock.service)" success
pgrep -f '^sleep 1000[.]4242' > /dev/null && die "a command outlived the service"
echo "ok no command is left"
eventually '[ -z "$(groups | sort | comm -13 "$before" -)" ]' || die "groups are left: $(groups)"
echo "ok no group is left"
is "mounts" "$(wc -l < /proc/self/mountinfo)" "$mounts_before"
is "loop devices" "$(losetup -a | wc -l)" "$loops_before"

# And again on the same data.
systemctl start cellblock.service
eventually 'curl -sf -o /dev/null http://$address/healthz' || die "it does not answer after a restart"
answer=$(exec_in '{"command":"true"}')
grep -q '"exit_code":0' <<< "$answer" || die "no command runs after a restart: $answer"
echo "ok it starts again on its data"
