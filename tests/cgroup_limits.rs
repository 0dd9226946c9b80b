//! Limits and counts against the running kernel: what is written, what happens at the limit, and
//! what is told afterwards. Needs root and writable cgroups. Every test runs on the hierarchies as
//! the host has them and, where the host has both versions, once more as if it had only version 1.

mod cgroup_support;

use std::time::{Duration, Instant};

use cellblock::cgroup::State;
use cellblock::resources::{CellResources, MIB, RuntimeResources};
use cgroup_support::{
    CELL, RUNTIME, ends, file_of, hosts, members, run, until_lines, wait_for_event,
};

#[test]
fn facilities_come_in_their_order_before_and_after_the_bases_are_made() {
    for host in hosts("facilities") {
        let names: Vec<_> = host
            .facilities()
            .iter()
            .map(|facility| facility.name)
            .collect();
        assert_eq!(
            names,
            [
                "memory", "swap", "pids", "cpu", "kill", "freeze", "oom", "usage"
            ]
        );
        for facility in host.prepared().facilities() {
            assert!(
                matches!(facility.state, State::Available(_)),
                "{facility:?}"
            );
        }
    }
}

#[test]
fn runtime_limits_are_what_was_asked_for_and_can_go_up_and_down() {
    for host in hosts("runtime-limits") {
        let runtime = host.prepared().runtime("r", &RUNTIME).unwrap();
        let dirs = runtime.directories();
        for n in [256, 512, 64] {
            let wanted = RuntimeResources {
                memory_bytes: n * MIB,
                pids: n,
                cpu_millis: n,
            };
            runtime.set(&wanted).unwrap();
            let bytes = (n * MIB).to_string();
            if let Some(now) = file_of(&dirs, "memory.max") {
                assert_eq!(now, bytes);
                assert!(file_of(&dirs, "memory.swap.max").is_none_or(|swap| swap == "0"));
            } else {
                assert_eq!(file_of(&dirs, "memory.limit_in_bytes").unwrap(), bytes);
                assert!(file_of(&dirs, "memory.memsw.limit_in_bytes").is_none_or(|b| b == bytes));
            }
            // 32 more for the cells' inits.
            assert_eq!(file_of(&dirs, "pids.max").unwrap(), (n + 32).to_string());
            let quota = n * 100;
            match file_of(&dirs, "cpu.max") {
                Some(now) => assert_eq!(now, format!("{quota} 100000")),
                None => {
                    assert_eq!(
                        file_of(&dirs, "cpu.cfs_quota_us").unwrap(),
                        quota.to_string()
                    );
                    assert_eq!(file_of(&dirs, "cpu.cfs_period_us").unwrap(), "100000");
                }
            }
        }
    }
}

#[test]
fn extreme_limits_become_the_nearest_that_the_kernel_knows() {
    for host in hosts("extreme-limits") {
        let most = RuntimeResources {
            memory_bytes: u64::MAX,
            pids: u64::MAX,
            cpu_millis: 1_000_000,
        };
        let runtime = host.prepared().runtime("r", &most).unwrap();
        let dirs = runtime.directories();
        assert_eq!(file_of(&dirs, "pids.max").unwrap(), "max");
        runtime
            .set(&RuntimeResources {
                cpu_millis: 0,
                ..RUNTIME
            })
            .unwrap();
        let quota = file_of(&dirs, "cpu.cfs_quota_us").or_else(|| file_of(&dirs, "cpu.max"));
        assert_eq!(quota.unwrap().split(' ').next(), Some("1000"));
    }
}

#[test]
fn cell_limits_leave_room_for_the_init() {
    for host in hosts("cell-limits") {
        let runtime = host.prepared().runtime("r", &RUNTIME).unwrap();
        let cell = runtime.cell("c", &CELL).unwrap();
        let bytes = CELL.memory_bytes.to_string();
        let dirs = cell.directories();
        let memory = file_of(dirs, "memory.max").or_else(|| file_of(dirs, "memory.limit_in_bytes"));
        assert_eq!(memory.unwrap(), bytes);
        assert!(file_of(dirs, "memory.memsw.limit_in_bytes").is_none_or(|sum| sum == bytes));
        assert!(file_of(dirs, "memory.oom.group").is_none_or(|group| group == "1"));
        assert_eq!(
            file_of(dirs, "pids.max").unwrap(),
            (CELL.pids + 1).to_string()
        );
    }
}

#[test]
fn room_for_inits_grows_with_the_cells() {
    for host in hosts("inits") {
        let runtime = host.prepared().runtime("r", &RUNTIME).unwrap();
        let allowed = || file_of(&runtime.directories(), "pids.max").unwrap();
        let cells: Vec<_> = (0..40)
            .map(|n| runtime.cell(&format!("c{n}"), &CELL).unwrap())
            .collect();
        assert_eq!(allowed(), (RUNTIME.pids + 64).to_string());
        assert!(cells.iter().all(|cell| cell.remove().unwrap()));
        // Twice is no error, and does not count twice.
        assert!(cells[0].remove().unwrap());
        runtime.set(&RUNTIME).unwrap();
        assert_eq!(allowed(), (RUNTIME.pids + 32).to_string());
    }
}

#[test]
fn out_of_memory_wakes_and_is_counted_in_the_cell_alone() {
    for host in hosts("oom") {
        let runtime = host.prepared().runtime("r", &RUNTIME).unwrap();
        let small = CellResources {
            memory_bytes: 8 * MIB,
            ..CELL
        };
        let (cell, other) = (
            runtime.cell("c", &small).unwrap(),
            runtime.cell("o", &CELL).unwrap(),
        );
        assert!(
            !wait_for_event(&cell, Duration::ZERO),
            "an event before anything happened"
        );
        let mut child = run(&cell, "tail /dev/zero >/dev/null");
        // Before the count is asked for, which takes a waiting event back.
        let deadline = Instant::now() + Duration::from_secs(20);
        assert!(
            wait_for_event(&cell, Duration::from_secs(20)),
            "no event within 20 s"
        );
        // Version 2 wakes for less than a kill too, version 1 just before it: ask until it is
        // counted.
        while cell.oom_kills().unwrap() == 0 {
            let left = deadline.saturating_duration_since(Instant::now());
            assert!(!left.is_zero(), "nobody was killed");
            wait_for_event(&cell, left.min(Duration::from_millis(100)));
        }
        cell.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(other.oom_kills().unwrap(), 0);
        let peak = cell.usage().unwrap().peak_memory_bytes;
        assert!((4 * MIB..=8 * MIB).contains(&peak), "{peak}");
    }
}

#[test]
fn out_of_memory_in_the_runtime_is_counted_in_the_cell_that_was_killed() {
    for host in hosts("oom-runtime") {
        let small = RuntimeResources {
            memory_bytes: 8 * MIB,
            ..RUNTIME
        };
        let runtime = host.prepared().runtime("r", &small).unwrap();
        let (cell, other) = (
            runtime.cell("c", &CELL).unwrap(),
            runtime.cell("o", &CELL).unwrap(),
        );
        let mut child = run(&cell, "exec tail /dev/zero >/dev/null");
        child.wait().unwrap();
        // Where the whole group is killed, the victim counts twice.
        assert!(cell.oom_kills().unwrap() >= 1);
        assert_eq!(other.oom_kills().unwrap(), 0);
    }
}

#[test]
fn a_group_that_is_gone_needs_no_lowering() {
    for host in hosts("lowering-gone") {
        let runtime = host.prepared().runtime("r", &RUNTIME).unwrap();
        let cell = runtime.cell("c", &CELL).unwrap();
        let lowering = cell.lowering(8 * MIB).unwrap().expect("it is lower");
        assert!(cell.remove().unwrap());
        lowering.run().unwrap();
    }
}

#[test]
fn a_cell_cannot_have_more_processes_than_allowed() {
    for host in hosts("pids") {
        let runtime = host.prepared().runtime("r", &RUNTIME).unwrap();
        let cell = runtime
            .cell("c", &CellResources { pids: 3, ..CELL })
            .unwrap();
        // The shell is in the init's place, so three more fit. Some shells end over the fourth,
        // some go on.
        let script = "for i in 1 2 3 4 5; do sleep 1000 & echo $i; done 2>/dev/null; echo; echo";
        let mut child = run(&cell, script);
        until_lines(&mut child, 3);
        child.wait().unwrap();
        assert_eq!(members(&cell), 3);
        assert!(cell.usage().unwrap().peak_pids.is_none_or(|peak| peak == 3));
        cell.kill().unwrap();
        assert!(ends(&mut child));
    }
}

#[test]
fn usage_tells_cpu_time_and_peaks_after_the_end() {
    for host in hosts("usage") {
        let runtime = host.prepared().runtime("r", &RUNTIME).unwrap();
        let cell = runtime.cell("c", &CELL).unwrap();
        let mut child = run(
            &cell,
            "i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done; sleep 0 & wait",
        );
        assert!(child.wait().unwrap().success());
        let usage = cell.usage().unwrap();
        assert!((10_000..60_000_000).contains(&usage.cpu_us), "{usage:?}");
        let parts = usage.user_us + usage.system_us;
        assert!(parts.abs_diff(usage.cpu_us) < 1_000, "{usage:?}");
        assert!(usage.user_us > usage.cpu_us / 2, "{usage:?}");
        assert_eq!(cell.cpu_us().unwrap(), usage.cpu_us);
        assert!(
            (4096..64 * MIB).contains(&usage.peak_memory_bytes),
            "{usage:?}"
        );
        assert!(usage.peak_pids.is_none_or(|peak| peak == 1), "{usage:?}");
    }
}

#[test]
fn the_runtime_gets_no_more_cpu_than_its_quota() {
    for host in hosts("cpu") {
        let fifth = RuntimeResources {
            cpu_millis: 200,
            ..RUNTIME
        };
        let runtime = host.prepared().runtime("r", &fifth).unwrap();
        let cell = runtime.cell("c", &CELL).unwrap();
        let mut child = run(&cell, "echo on; while :; do :; done & while :; do :; done");
        until_lines(&mut child, 1);
        let (start, before) = (Instant::now(), cell.cpu_us().unwrap());
        std::thread::sleep(Duration::from_secs(1));
        let used = cell.cpu_us().unwrap() - before;
        let wall = u64::try_from(start.elapsed().as_micros()).unwrap();
        cell.kill().unwrap();
        child.wait().unwrap();
        // One window more than its share may fall into the second, and slices overrun a little.
        assert!(used < wall * 2 / 5, "{used} of {wall} µs");
    }
}
