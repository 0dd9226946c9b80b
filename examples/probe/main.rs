//! The attacker's hands: the tests carry this program into a runtime and let it do what no shell line can. One subcommand
//! per trick; it prints errno numbers (0: the call succeeded) and judges nothing.

mod attack;
mod buffers;
mod landlock;
mod look;
mod powers;
mod race;
mod reach;
mod syscalls;

use std::process::ExitCode;

const USAGE: &str = "probe SUBCOMMAND: syscall NR [ARG…] | refused | families | netlink | fds | ioctl FD REQUEST | \
pty-ioctl REQUEST | i386 | x32 NR | new-user-namespace | fork-bomb | eat MIB | threads N | vfork-storm | \
abstract-connect NAME | connect ADDRESS | loopback | interfaces | sysv-make KEY | sysv-find KEY | signals | write-exec N | \
landlock-layers | landlock-self PATH | bind ADDRESS | message-queue | \
powers | into PID | walk | exchange SECONDS A B… | look | netlink-sockets PROCESSES | datagrams SOCKETS LIMIT | \
orphans CONNECTIONS | socket-filters | terminals";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["syscall", nr, rest @ ..] => {
            let rest: Vec<u64> = rest.iter().map(|word| number(word)).collect();
            println!("{}", syscalls::errno_of(number(nr), &rest));
        }
        ["refused"] => syscalls::refused(),
        ["families"] => syscalls::families(),
        ["netlink"] => syscalls::netlink(),
        ["fds"] => attack::fds(),
        ["ioctl", fd, request] => {
            println!("{}", syscalls::ioctl(number(fd), number(request)));
        }
        ["pty-ioctl", request] => println!("{}", syscalls::pty_ioctl(number(request))),
        ["i386"] => println!("{}", syscalls::i386_getpid()),
        ["x32", nr] => println!("{}", syscalls::errno_of(0x4000_0000 | number(nr), &[])),
        ["new-user-namespace"] => println!("{}", syscalls::clone_new_user()),
        ["fork-bomb"] => attack::fork_bomb(),
        ["eat", mib] => attack::eat(number(mib) as usize),
        ["threads", n] => attack::threads(number(n) as usize),
        ["vfork-storm"] => attack::vfork_storm(),
        ["abstract-connect", name] => println!("{}", attack::abstract_connect(name)),
        ["connect", address] => println!("{}", attack::connect(address)),
        ["loopback"] => println!("{}", attack::loopback()),
        ["interfaces"] => attack::interfaces(),
        ["sysv-make", key] => println!("{}", attack::sysv(number(key), true)),
        ["sysv-find", key] => println!("{}", attack::sysv(number(key), false)),
        ["signals"] => attack::signals(),
        ["write-exec", n] => attack::write_and_execute(number(n) as usize),
        ["landlock-layers"] => landlock::layers(),
        ["landlock-self", path] => landlock::restrict_self(path),
        ["bind", address] => println!("{}", landlock::bind(address)),
        ["message-queue"] => println!("{}", landlock::message_queue()),
        ["powers"] => powers::powers(),
        ["into", pid] => reach::into_process(number(pid) as i32),
        ["walk"] => reach::walk(),
        ["exchange", seconds, names @ ..] => race::exchange(number(seconds), names),
        ["look"] => look::around(),
        ["netlink-sockets", n] => buffers::netlink_sockets(number(n) as usize),
        ["datagrams", n, limit] => buffers::datagrams(number(n) as usize, number(limit)),
        ["orphans", n] => buffers::orphans(number(n) as usize),
        ["socket-filters"] => buffers::socket_filters(),
        ["terminals"] => buffers::terminals(),
        _ => {
            eprintln!("{USAGE}");
            return ExitCode::from(2);
        }
    }
    ExitCode::SUCCESS
}

/// A decimal or 0x number; negative ones wrap, as they would in C.
fn number(word: &str) -> u64 {
    let parsed = match word.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16).ok(),
        None => word.parse::<i64>().map(|n| n as u64).ok(),
    };
    parsed.unwrap_or_else(|| panic!("{word} is no number"))
}
