#!/usr/bin/env bash
# Runs the whole suite on this machine, as root: any distribution, virtual or not. Ends with one line,
#   boot=<name> kernel=<release> cgroup=<v1|v2|hybrid> passed=N failed=N skipped=N
# and fails when a test failed or when something promised is missing.
#
#   --name NAME      what to call the machine
#   --promise LIST   separated by commas: cgroup=MODE, kernel>=X.Y, lsm=NAME; service: the packaged unit runs here;
#                    refused: `serve` must refuse this machine, and nothing else is run; or a need of the tests that
#                    none may be skipped for: root python3 x86-64 unshare ia32 clock landlock=ABI
#   --tests FILE     test programs built elsewhere, a line each: NAME PATH; without it cargo builds them here
#   --server PATH    the server's program that belongs to them
#   --parts LIST     PROGRAM:MODULE+MODULE, separated by commas: of these programs only the modules are run, there may be none,
#                    and what the table of attacks has
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
checkout=$(dirname "$here")
. "$here/facts.sh"

name=$(uname -n) promise='' tests='' server='' parts=''
while [ $# -gt 0 ]; do
    case "$1" in
        --name) name=$2 ;;
        --promise) promise=$2 ;;
        --tests) tests=$2 ;;
        --server) server=$2 ;;
        --parts) parts=$2 ;;
        *)
            echo "test.sh: unknown argument $1" >&2
            exit 2
            ;;
    esac
    shift 2
done
if [ "$(id -u)" -ne 0 ]; then
    echo "test.sh: run this as root: without it almost every test would be skipped" >&2
    exit 2
fi
cd "$checkout"
print_facts

# One test program may take this long; a hung one must not take the rest with it.
limit=${CELLBLOCK_TEST_LIMIT:-2700}
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
passed=0 failed=0 skipped=0
: > "$work/skips"

bad() {
    failed=$((failed + 1))
    echo "FAILED: $*"
}

promised() {
    case ",$promise," in
        *,"$1",*) return 0 ;;
        *) return 1 ;;
    esac
}

# What the machine itself must have. Programs that only tests need are found by what the tests skip.
check_promises() {
    local wanted
    for wanted in ${promise//,/ }; do
        case "$wanted" in
            cgroup=*) [ "$wanted" = "cgroup=$(cgroup_mode)" ] || bad "promised $wanted, found $(cgroup_mode)" ;;
            'kernel>='*)
                printf '%s\n%s\n' "${wanted#*>=}" "$(uname -r)" | sort -VC || bad "promised $wanted, found $(uname -r)"
                ;;
            lsm=*)
                case ",$(security_modules)," in
                    *,"${wanted#lsm=}",*) ;;
                    *) bad "promised $wanted, found $(security_modules)" ;;
                esac
                ;;
        esac
    done
}

# The tests' own words for a promise, as in `SKIPPED <test>: needs <words>`.
words_of() {
    case "$1" in
        root) echo 'needs (.*, )?root' ;;
        python3) echo '/usr/bin/python3' ;;
        x86-64) echo 'an x86-64 machine' ;;
        unshare) echo 'unshare of util-linux' ;;
        ia32) echo 'IA32 emulation' ;;
        clock) echo 'a machine whose clock may be set' ;;
        landlock=*) echo "Landlock ABI [1-${1#landlock=}]" ;;
        cgroup=*) echo '^skipped: .* needs' ;;
        *) echo '' ;;
    esac
}

check_skips() {
    local wanted words
    for wanted in ${promise//,/ }; do
        words=$(words_of "$wanted")
        if [ -n "$words" ] && grep -Eq "$words" "$work/skips"; then
            bad "promised $wanted, but tests were skipped for want of it"
        fi
    done
}

# Builds with cargo, here.
build() {
    command -v cargo > /dev/null || { echo "test.sh: no cargo; run vagrant/provision.sh first" >&2 && exit 2; }
    cargo test --no-run --locked --message-format=json > "$work/built"
    # The library's and the program's own tests have the same name: KIND behind it tells them apart.
    sed -n 's/.*"target":{"kind":\["\([a-z]*\)"\].*"name":"\([^"]*\)","src_path".*"test":true}.*"executable":"\([^"]*\)".*/\2-\1 \3/p' \
        "$work/built" | grep '/deps/' | sed 's/-test / /' > "$work/tests"
    tests=$work/tests
    server=$(sed -n 's/.*"executable":"\([^"]*\/cellblock\)".*/\1/p' "$work/built" | head -n 1)
}

# Runs one test program and counts. The totals are the harness's; a skipped test returns early, so the harness counts it
# as passed and the tests record it themselves.
run_program() {
    local name=$1 program=$2 before started=$SECONDS code=0 result p f
    local record
    record=$(dirname "$(dirname "$(dirname "$program")")")/tmp/skipped.txt
    echo
    echo "== $name"
    before=$(wc -l < "$work/skips")
    rm -f "$record"
    local options=()
    # These print what they skip and keep no record.
    case "$name" in cgroup_*) options=(--nocapture --test-threads=1) ;; esac
    local part=",$parts,"
    case "$part" in
        *,"$name":*)
            part=${part#*,"$name":} part=${part%%,*}
            mapfile -t options < <(tests/attacks --list "$name" && [ -z "$part" ] || printf '%s::\n' ${part//+/ })
            echo "a part of it: ${part:-what the table of attacks has}"
            # Without any name it would be all of it.
            [ "${#options[@]}" -gt 0 ] || return 0
            ;;
    esac
    # Shown as it comes, for the case that the machine never gets to the end; a passing test's line says nothing that
    # the totals don't.
    set +e
    timeout -k 30 "$limit" "$program" "${options[@]}" ${CELLBLOCK_TEST_FILTER:+"$CELLBLOCK_TEST_FILTER"} \
        < /dev/null 2>&1 | tee "$work/output" | grep --line-buffered -Ev '^(test .* \.\.\. ok)?$'
    code=${PIPESTATUS[0]}
    set -e
    { echo "== $name" && cat "$work/output"; } >> "$work/all"
    [ ! -s "$record" ] || cat "$record" >> "$work/skips"
    # Beside `test name ... ` on the same line, since nothing is captured.
    grep -o 'skipped: .* needs .*' "$work/output" >> "$work/skips" || true
    result=$(grep -E '^test result: ' "$work/output" | tail -n 1 || true)
    p=$(sed -n 's/.* \([0-9]*\) passed;.*/\1/p' <<< "$result")
    f=$(sed -n 's/.* \([0-9]*\) failed;.*/\1/p' <<< "$result")
    echo "== $name took $((SECONDS - started)) s"
    if [ -z "$result" ]; then
        bad "$name ended with code $code and no result (124: longer than $limit s)"
        return
    fi
    local new=$(($(wc -l < "$work/skips") - before))
    passed=$((passed + p - new)) skipped=$((skipped + new)) failed=$((failed + f))
    if [ "$code" -ne 0 ] && [ "$f" -eq 0 ]; then
        bad "$name: all its tests passed, but it ended with code $code"
    fi
}

summary() {
    echo
    if [ -s "$work/skips" ]; then
        echo "skipped:"
        sort "$work/skips" | uniq -c
    else
        echo "skipped: nothing"
    fi
    check_skips
    echo
    echo "boot=$name kernel=$(uname -r) cgroup=$(cgroup_mode) passed=$passed failed=$failed skipped=$skipped"
    [ "$failed" -eq 0 ]
}

# The table of SECURITY.md, out of what the tests printed: attack, defence, verdict. Only where all of it ran: tests of several
# programs stand behind one row.
attacks() {
    [ -z "${CELLBLOCK_TEST_FILTER:-}" ] && grep -q '^escape ' "$tests" && grep -q '^warden ' "$tests" || return 0
    echo
    echo "== attacks"
    tests/attacks --log "$work/all" || bad "the table of attacks"
}

check_promises
[ -n "$tests" ] || build
if promised refused; then
    # Too old a machine: what matters is that it says so.
    if said=$("$server" serve --listen 127.0.0.1:0 --data-dir "$work/data" 2>&1 < /dev/null); then
        bad "serve started on a machine that must be refused"
    elif grep -q 'is too old' <<< "$said"; then
        passed=$((passed + 1))
    else
        bad "serve refused without naming the kernel"
    fi
    echo "$said"
    summary
    exit
fi
echo
"$server" doctor || bad "doctor: something is missing"

if promised service || { [ -z "$promise" ] && [ -d /run/systemd/system ]; }; then
    echo
    echo "== service"
    if "$here/service.sh" "$server"; then
        passed=$((passed + 1))
    else
        bad "the packaged service"
    fi
fi
while read -r program path; do
    run_program "$program" "$path"
done < "$tests"
attacks
summary
