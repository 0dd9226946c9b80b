//! The system call filter, asked from inside.

use crate::needs;
use crate::support::probe::Probe;
use crate::support::{runtime, runtime_with, together};
use serde_json::json;

fn probe() -> Probe {
    Probe::in_runtime(runtime())
}

#[test]
fn a_filter_is_on_and_privileges_cannot_be_gained() {
    needs!(Root);
    let _turn = together();
    let status = runtime().sh("cat /proc/self/status");
    let value = |key: &str| crate::support::procs::status_value(status.stdout(), key);
    assert_eq!(value("Seccomp").as_deref(), Some("2"));
    assert_eq!(value("NoNewPrivs").as_deref(), Some("1"));
}

#[test]
fn system_calls_that_need_privilege_are_refused() {
    needs!(Root, X86);
    let _turn = together();
    let exec = probe().run(&["refused"]);
    exec.assert_code(0);
    assert!(exec.lines().len() > 50, "{exec:?}");
    let refused = [libc::EPERM, libc::ENOSYS];
    let through = |line: &&str| {
        let errno: i32 = line
            .rsplit('\t')
            .next()
            .and_then(|n| n.parse().ok())
            .expect("an errno");
        !refused.contains(&errno)
    };
    let through: Vec<&str> = exec.lines().into_iter().filter(through).collect();
    assert!(through.is_empty(), "let through: {through:?}");
}

#[test]
fn the_strict_profile_refuses_no_less() {
    needs!(Root, X86);
    let _turn = together();
    let probe = Probe::in_runtime(runtime_with(json!({"profile": "strict"})));
    let exec = probe.run(&["refused"]);
    exec.assert_code(0);
    assert!(exec.lines().len() > 50, "{exec:?}");
    for line in exec.lines() {
        assert!(line.ends_with("\t1") || line.ends_with("\t38"), "{line}");
    }
}

#[test]
fn only_four_socket_families_can_be_opened() {
    needs!(Root);
    let _turn = together();
    let exec = probe().run(&["families"]);
    exec.assert_code(0);
    let mut opened: Vec<u64> = Vec::new();
    for line in exec.lines() {
        let numbers: Vec<u64> = line.split(' ').filter_map(|n| n.parse().ok()).collect();
        let [family, _, errno] = numbers.try_into().expect("family, type, errno");
        if errno == 0 {
            opened.push(family);
        }
        // AF_ALG, AF_VSOCK, AF_PACKET, and AF_ALG behind a high bit: refused by us, not for want of a module.
        if [38, 40, 17, 1 << 32 | 38].contains(&family) {
            let errno = errno as i32;
            assert!(
                [libc::EPERM, libc::EACCES].contains(&errno),
                "family {family}: errno {errno}"
            );
        }
    }
    opened.dedup();
    assert_eq!(opened, [1, 2, 10, 16], "UNIX, INET, INET6 and NETLINK");
}

#[test]
fn only_the_routing_protocol_of_netlink_can_be_opened() {
    needs!(Root);
    let _turn = together();
    let exec = probe().run(&["netlink"]);
    let opened: Vec<&str> = exec
        .lines()
        .into_iter()
        .filter(|line| line.ends_with(" 0"))
        .collect();
    assert_eq!(opened, ["0 0"], "{exec:?}");
}

#[test]
fn new_user_namespaces_are_refused_whichever_way_they_are_asked_for() {
    needs!(Root);
    let _turn = together();
    let probe = probe();
    let unshare = probe
        .runtime
        .exec(&json!({"command": "unshare", "args": ["-U", "true"]}));
    unshare.assert_failed();
    assert!(
        unshare.stderr().contains("Operation not permitted"),
        "{unshare:?}"
    );
    assert_eq!(probe.errno(&["new-user-namespace"]), libc::EPERM);
    assert_eq!(probe.errno(&["syscall", "435"]), libc::ENOSYS, "clone3");
}

#[test]
fn threads_still_work() {
    needs!(Root);
    let _turn = together();
    probe().run(&["threads", "16"]).assert_stdout("16\n");
}

#[test]
fn input_cannot_be_pushed_into_a_terminal() {
    needs!(Root, X86);
    let _turn = together();
    let probe = probe();
    // TIOCSTI and TIOCLINUX, plain and with high bits, which the kernel cuts off.
    for request in [
        "0x5412",
        "0x541c",
        "0x100005412",
        "0xffffffff00005412",
        "0x10000541c",
    ] {
        assert_eq!(
            probe.errno(&["ioctl", "0", request]),
            libc::EPERM,
            "{request} on stdin"
        );
        assert_eq!(
            probe.errno(&["pty-ioctl", request]),
            libc::EPERM,
            "{request} on a terminal"
        );
    }
    // TIOCGWINSZ: the filter is about those two, not about ioctl.
    assert_ne!(probe.errno(&["ioctl", "0", "0x5413"]), libc::EPERM);
}

#[test]
fn the_32_bit_entry_is_closed() {
    needs!(Root, Ia32);
    let _turn = together();
    let exec = probe().run(&["i386"]);
    assert_eq!(
        (exec.code(), exec.outcome()),
        (128 + 31, "signaled"),
        "{exec:?}"
    );
    assert_eq!(exec.data["signal"], "SYS");
}

#[test]
fn the_x32_entry_is_closed() {
    needs!(Root, X86);
    let _turn = together();
    // getpid, open, execve (520 on x32), ptrace (521 on x32).
    for nr in ["39", "2", "520", "521"] {
        let exec = probe().run(&["x32", nr]);
        let refused = exec.data["signal"] == "SYS" || matches!(exec.stdout().trim(), "1" | "38");
        assert!(refused, "x32 {nr}: {exec:?}");
    }
}

#[test]
fn what_ordinary_programs_need_is_let_through() {
    needs!(Root, Python);
    let _turn = together();
    let code = "import subprocess,threading,socket,select,mmap,tempfile,os,signal,time\n\
        a,b=socket.socketpair(); a.send(b'x'); assert b.recv(1)==b'x'\n\
        e=select.epoll(); e.register(b,select.EPOLLIN)\n\
        m=mmap.mmap(-1,4096); m[0]=1\n\
        t=tempfile.NamedTemporaryFile(); os.fsync(t.fileno()); os.statvfs('/')\n\
        assert subprocess.check_output(['echo','hi'])==b'hi\\n'\n\
        os.setpriority(os.PRIO_PROCESS,0,5); os.sched_getaffinity(0)\n\
        signal.setitimer(signal.ITIMER_REAL,0); time.sleep(0.01)\n\
        f=os.memfd_create('x'); os.write(f,b'y'); os.close(f)\n\
        print('fine')";
    runtime().python(code).assert_stdout("fine\n");
}
