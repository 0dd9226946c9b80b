//! What /proc tells and takes, and that there is no /sys.

use crate::needs;
use crate::support::{runtime, runtime_with, together};
use serde_json::json;

#[test]
fn knobs_of_the_kernel_cannot_be_turned() {
    needs!(Root);
    let _turn = together();
    let runtime = runtime();
    let knobs = [
        "sys/kernel/core_pattern",
        "sysrq-trigger",
        "sys/vm/overcommit_memory",
        "sys/vm/drop_caches",
        "sys/kernel/modprobe",
        "sys/kernel/hostname",
        "sys/kernel/randomize_va_space",
        "sys/net/ipv4/ip_forward",
        "sys/fs/binfmt_misc/register",
        "irq/default_smp_affinity",
        "1/oom_score_adj",
    ];
    for knob in knobs {
        let before = std::fs::read(format!("/proc/{knob}")).ok();
        runtime
            .sh(&format!("echo 1 > /proc/{knob}"))
            .assert_failed();
        // Reading a host's one-shot trigger may fail; where it can be read it must be as it was.
        assert_eq!(
            std::fs::read(format!("/proc/{knob}")).ok(),
            before,
            "{knob}"
        );
    }
    runtime
        .sh("echo -1000 > /proc/self/oom_score_adj")
        .assert_failed();
}

#[test]
fn what_tells_about_the_host_is_empty_or_refused() {
    needs!(Root);
    let _turn = together();
    let runtime = runtime();
    let told = [
        "kcore",
        "keys",
        "key-users",
        "config.gz",
        "modules",
        "ioports",
        "interrupts",
        "cmdline",
        "timer_list",
        "kallsyms",
        "kmsg",
        "latency_stats",
        "sched_debug",
        "timer_stats",
        "kpagecount",
        "kpageflags",
        "slabinfo",
        "vmallocinfo",
        "iomem",
        "buddyinfo",
        "zoneinfo",
        "consoles",
        "crypto",
        "devices",
        "diskstats",
        "locks",
        "misc",
        "partitions",
        "softirqs",
        "swaps",
    ];
    for file in told {
        let exec = runtime.sh(&format!("head -c 100 /proc/{file} | wc -c"));
        assert_eq!(
            exec.stdout().trim(),
            "0",
            "/proc/{file} tells something: {exec:?}"
        );
    }
    // The last but one would show the disks of other runtimes: which blocks of them are free.
    for dir in [
        "acpi", "scsi", "asound", "bus", "driver", "irq", "fs", "pressure",
    ] {
        let exec = runtime.sh(&format!("ls -A /proc/{dir} 2>/dev/null"));
        assert_eq!(exec.stdout(), "", "/proc/{dir}");
    }
}

#[test]
fn no_pressure_trigger_can_be_made() {
    needs!(Root);
    let _turn = together();
    // Each outlives SIGKILL by a grace period of the kernel's, one after the other.
    for profile in ["default", "strict"] {
        let runtime = runtime_with(json!({"profile": profile}));
        for of in ["cpu", "io", "memory"] {
            let line =
                format!("(echo 'some 150000 2000000' > /proc/pressure/{of}) 2>/dev/null; echo $?");
            assert_ne!(runtime.sh(&line).stdout(), "0\n", "{profile} {of}");
        }
    }
}

#[test]
fn there_is_no_sys() {
    needs!(Root);
    let _turn = together();
    let exec = runtime().sh("ls -A /sys 2>/dev/null; grep -c ' sysfs ' /proc/self/mountinfo");
    assert_eq!(exec.stdout(), "0\n", "{exec:?}");
}

#[test]
fn only_the_cells_own_processes_are_seen() {
    needs!(Root);
    let _turn = together();
    let runtime = runtime();
    let exec = runtime.exec(&json!({"command": "ls", "args": ["/proc"]}));
    let pids: Vec<&str> = exec
        .lines()
        .into_iter()
        .filter(|name| name.parse::<u32>().is_ok())
        .collect();
    assert!((1..=2).contains(&pids.len()), "init and ls, not {pids:?}");
    for pid in [std::process::id(), crate::support::server().pid] {
        runtime.sh(&format!("kill -0 {pid}")).assert_failed();
    }
}

#[test]
fn remounting_proc_is_refused() {
    needs!(Root);
    let _turn = together();
    let runtime = runtime();
    for line in [
        "mount -o remount,rw /proc/sys",
        "mount -t proc proc /tmp",
        "umount /proc/kcore",
        "umount -l /proc",
        "mount --bind /proc /tmp",
    ] {
        runtime.sh(line).assert_failed();
    }
}
