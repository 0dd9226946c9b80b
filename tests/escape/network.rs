//! Network mode none: a loopback device and nothing else.

use crate::needs;
use crate::support::probe::Probe;
use crate::support::{api, runtime, together};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};

#[test]
fn only_a_loopback_device_that_is_up() {
    needs!(Root);
    let _turn = together();
    let probe = Probe::in_runtime(runtime());
    probe.run(&["interfaces"]).assert_stdout("lo up\n");
    assert_eq!(probe.errno(&["loopback"]), 0);
}

#[test]
fn no_address_has_a_route() {
    needs!(Root);
    let _turn = together();
    let probe = Probe::in_runtime(runtime());
    for address in [
        "8.8.8.8:53",
        "10.0.0.1:80",
        "169.254.169.254:80",
        "[2001:4860:4860::8888]:53",
    ] {
        let errno = probe.errno(&["connect", address]);
        assert!(
            [libc::ENETUNREACH, libc::EADDRNOTAVAIL].contains(&errno),
            "{address}: {errno}"
        );
    }
}

#[test]
fn the_hosts_loopback_is_another() {
    needs!(Root);
    let _turn = together();
    let probe = Probe::in_runtime(runtime());
    let address = format!("127.0.0.1:{}", api().port);
    assert_eq!(
        probe.errno(&["connect", &address]),
        libc::ECONNREFUSED,
        "the server itself"
    );
}

#[test]
fn abstract_sockets_of_the_host_are_refused() {
    needs!(Root);
    let _turn = together();
    let name = format!("cellblock-test-{}", std::process::id());
    let address = SocketAddr::from_abstract_name(&name).expect("an abstract name");
    let _listener = UnixListener::bind_addr(&address).expect("listen");
    let outside = std::process::Command::new(crate::support::probe::path())
        .args(["abstract-connect", &name])
        .output()
        .expect("run the probe outside");
    assert_eq!(outside.stdout, b"0\n", "outside it can be reached");
    let inside = Probe::in_runtime(runtime()).errno(&["abstract-connect", &name]);
    assert_eq!(inside, libc::ECONNREFUSED);
}

#[test]
fn loopback_is_not_shared_between_execs() {
    needs!(Root, Python);
    let _turn = together();
    let runtime = runtime();
    let listen = "import socket,time\n\
        s=socket.create_server(('127.0.0.1',7777)); print('up',flush=True); time.sleep(3)";
    std::thread::scope(|scope| {
        let other = scope.spawn(|| runtime.python(listen));
        let probe = Probe::in_runtime(crate::support::runtime());
        assert_eq!(
            probe.errno(&["connect", "127.0.0.1:7777"]),
            libc::ECONNREFUSED
        );
        let same =
            runtime.python("import socket\nprint(socket.socket().connect_ex(('127.0.0.1',7777)))");
        same.assert_stdout(&format!("{}\n", libc::ECONNREFUSED));
        other.join().expect("no panic").assert_stdout("up\n");
    });
}
