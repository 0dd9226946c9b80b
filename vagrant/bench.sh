#!/usr/bin/env bash
# Runs a tenth of the benchmark on this machine, as root, with a program that `cargo bench --no-run` built: under emulation
# only its ratios say something. Ends with a line as test.sh does.
#
#   --name NAME   what to call the machine
#   PROGRAM ...   the benchmark and its arguments
set -euo pipefail
. "$(dirname "$0")/facts.sh"

[ "$1" = --name ] && name=$2 && shift 2
print_facts
failed=0
"$@" --bench --quick --out "$(mktemp)" < /dev/null 2>&1 || failed=1
echo "boot=$name kernel=$(uname -r) cgroup=$(cgroup_mode) passed=$((1 - failed)) failed=$failed skipped=0"
exit "$failed"
