//! What stays between two execs, and what must not.

use crate::needs;
use crate::support::{runtime, runtime_with, together};
use serde_json::json;

#[test]
fn a_persistent_runtime_keeps_its_files() {
    needs!(Root);
    let _turn = together();
    let runtime = runtime();
    runtime.sh("echo 1 > /root/a; echo 2 > /tmp/b; mkdir -p /var/x; echo 3 > /var/x/c; echo 4 > /etc/d").assert_code(0);
    runtime
        .sh("cat /root/a /tmp/b /var/x/c /etc/d")
        .assert_stdout("1\n2\n3\n4\n");
    runtime.sh("stat -c %a /tmp").assert_stdout("1777\n");
}

#[test]
fn an_ephemeral_runtime_forgets_everything() {
    needs!(Root);
    let _turn = together();
    let runtime = runtime_with(json!({"filesystem": "ephemeral"}));
    let places = "/root /tmp /dev/shm /var /var/tmp /etc / /home";
    let mark = format!("for d in {places}; do mkdir -p $d; echo x > $d/mark && echo marked; done");
    let marked = runtime.sh(&mark).lines().len();
    assert!(marked >= 4, "{marked} directories could be written to");
    runtime.sh(&format!("for d in {places}; do ls $d/mark 2>/dev/null; done; find / -xdev -name mark 2>/dev/null"))
        .assert_stdout("");
}

#[test]
fn parallel_execs_of_an_ephemeral_runtime_don_t_see_each_other() {
    needs!(Root);
    let _turn = together();
    let runtime = runtime_with(json!({"filesystem": "ephemeral"}));
    std::thread::scope(|scope| {
        for n in 0..6 {
            let runtime = &runtime;
            scope.spawn(move || {
                let line = format!(
                    "echo {n} > /tmp/f{n}; echo {n} > /root/f{n}; sleep 0.5; ls /tmp /root | grep f"
                );
                runtime.sh(&line).assert_stdout(&format!("f{n}\nf{n}\n"));
            });
        }
    });
}

#[test]
fn parallel_execs_of_a_persistent_runtime_share_their_files() {
    needs!(Root);
    let _turn = together();
    let runtime = runtime();
    std::thread::scope(|scope| {
        let line = "i=0; while [ ! -e /root/flag ] && [ $i -lt 200 ]; do sleep 0.05; i=$((i+1)); done; cat /root/flag";
        let reader = scope.spawn(|| runtime.sh(line));
        runtime
            .sh("echo seen > /root/flag.tmp; mv /root/flag.tmp /root/flag")
            .assert_code(0);
        reader.join().expect("no panic").assert_stdout("seen\n");
    });
}

#[test]
fn variables_of_one_exec_don_t_reach_the_next() {
    needs!(Root);
    let _turn = together();
    let runtime = runtime();
    runtime
        .exec(&json!({"command": "env", "env": {"SECRET": "x"}}))
        .assert_code(0);
    let exec = runtime.exec(&json!({"command": "env"}));
    assert!(!exec.stdout().contains("SECRET"), "{exec:?}");
}

#[test]
fn a_new_runtime_of_the_same_name_has_none_of_the_old_files() {
    needs!(Root);
    let _turn = together();
    let body = json!({"name": "reborn"});
    runtime_with(body.clone())
        .sh("echo old > /root/old")
        .assert_code(0);
    runtime_with(body).sh("ls /root").assert_stdout("");
}
