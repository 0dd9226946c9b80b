#!/usr/bin/env bash
# Turns a machine into one that builds, tests and serves Cellblock, as root: installs a compiler and Rust, builds, and
# starts the packaged service on all of the machine's addresses, so that a forwarded port reaches it. Any distribution
# with apt or dnf, virtual or not; may be run again.
#
#   --promise LIST   as for test.sh; with `refused` the service is built but not started
#   --listen ADDR    where to serve [0.0.0.0:8080]
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
checkout=$(dirname "$here")
. "$here/facts.sh"

promise='' listen=0.0.0.0:8080
while [ $# -gt 0 ]; do
    case "$1" in
        --promise) promise=$2 ;;
        --listen) listen=$2 ;;
        *)
            echo "provision.sh: unknown argument $1" >&2
            exit 2
            ;;
    esac
    shift 2
done
if [ "$(id -u)" -ne 0 ]; then
    echo "provision.sh: run this as root (sudo): it installs packages and a service" >&2
    exit 2
fi
print_facts

echo "== packages"
if command -v apt-get > /dev/null; then
    export DEBIAN_FRONTEND=noninteractive
    apt-get update -q
    apt-get install -qy --no-install-recommends build-essential e2fsprogs util-linux curl ca-certificates python3-minimal
elif command -v dnf > /dev/null; then
    dnf install -qy gcc make e2fsprogs util-linux python3 procps-ng
    # Some images bring curl-minimal, which conflicts with the whole one.
    command -v curl > /dev/null || dnf install -qy curl
else
    echo "provision.sh: neither apt-get nor dnf; install a C compiler, e2fsprogs, util-linux, curl, python3" >&2
    command -v cc > /dev/null || exit 1
fi

echo "== Rust"
export PATH="$PATH:/root/.cargo/bin"
if ! command -v cargo > /dev/null; then
    curl --proto '=https' -sSf https://sh.rustup.rs | sh -s -- -y --profile minimal --default-toolchain none
fi

echo "== build"
cd "$checkout"
cargo build --release --locked
built=$checkout/target/release/cellblock

echo "== doctor"
if ! "$built" doctor; then
    case ",$promise," in
        *,refused,*) echo "as expected here; nothing is served" && exit 0 ;;
    esac
    echo "provision.sh: this machine lacks what is named above" >&2
    exit 1
fi

if [ ! -d /run/systemd/system ]; then
    echo "no systemd here; serve by hand: $built serve --listen $listen"
    exit 0
fi
echo "== service"
install -m 755 "$built" /usr/bin/cellblock
# Where SELinux is on, a file keeps the label of where it was built unless told otherwise.
! command -v restorecon > /dev/null || restorecon /usr/bin/cellblock
install -m 644 packaging/cellblock.service /etc/systemd/system/cellblock.service
install -d -m 700 /etc/cellblock
echo "CELLBLOCK_LISTEN=$listen" > /etc/cellblock/environment
systemctl daemon-reload
systemctl enable cellblock.service
systemctl restart cellblock.service
port=${listen##*:}
for _ in $(seq 60); do
    if curl -sf -o /dev/null "http://127.0.0.1:$port/healthz"; then
        echo "serving on $listen; the admin token is in /var/lib/cellblock/admin-token"
        exit 0
    fi
    sleep 1
done
journalctl --no-pager -u cellblock.service | tail -n 30
echo "provision.sh: the service does not answer" >&2
exit 1
