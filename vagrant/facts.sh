# Facts about the machine, printed first by provision.sh and test.sh, so that a report of theirs says where it was made.
# Read with `.`; works in bash on any distribution.

# v2: a pure version 2 tree; hybrid: version 1 controllers beside a version 2 tree; v1: no version 2 tree.
cgroup_mode() {
    local types
    types=$(awk '{ for (i = 1; i < NF; i++) if ($i == "-") print $(i + 1) }' /proc/self/mountinfo | sort -u)
    case "$(grep -cx cgroup <<< "$types")$(grep -cx cgroup2 <<< "$types")" in
        01) echo v2 ;;
        11) echo hybrid ;;
        10) echo v1 ;;
        *) echo none ;;
    esac
}

# Linux security modules, separated by commas; empty where securityfs is not mounted.
security_modules() {
    cat /sys/kernel/security/lsm 2> /dev/null || true
}

print_facts() {
    local name=unknown
    [ ! -r /etc/os-release ] || name=$(. /etc/os-release && echo "$PRETTY_NAME")
    echo "system:   $name"
    echo "kernel:   $(uname -r) $(uname -m)"
    echo "init:     $(cat /proc/1/comm) $(systemctl --version 2> /dev/null | head -n 1)"
    echo "cgroup:   $(cgroup_mode) $(cat /sys/fs/cgroup/cgroup.controllers 2> /dev/null || true)"
    echo "lsm:      $(security_modules)"
    echo "selinux:  $(getenforce 2> /dev/null || echo no)"
    echo "userns:   $(sysctl -n user.max_user_namespaces 2> /dev/null || echo unknown)," \
        "restricted by AppArmor: $(sysctl -n kernel.apparmor_restrict_unprivileged_userns 2> /dev/null || echo no)"
    echo "machine:  $(nproc) processors, $(awk '/MemTotal/ { print int($2 / 1024) }' /proc/meminfo) MiB," \
        "$(systemd-detect-virt 2> /dev/null || true)"
    echo "free:     $(df -Pm "${TMPDIR:-/tmp}" | awk 'NR == 2 { print $4 }') MiB in ${TMPDIR:-/tmp}"
}
