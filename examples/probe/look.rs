//! What can be learnt of the machine from where this runs: everything below /proc that can be read or opened for writing,
//! odd files anywhere, and what the kernel says when asked.

use std::ffi::CStr;
use std::fs::{self, OpenOptions};
use std::io::Read;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

/// What of a file is read.
const MOST: u64 = 16 << 10;

/// Prints lines `kind<TAB>what<TAB>detail`; the texts of files follow as lines of kind `text`.
pub fn around() {
    proc(Path::new("/proc"));
    for pid in ["self", "1"] {
        proc(&Path::new("/proc").join(pid));
    }
    odd_files(Path::new("/"));
    for place in PLACES {
        // Images may have the directory, with nothing in it.
        let empty = fs::read_dir(place).is_ok_and(|mut entries| entries.next().is_none());
        if fs::symlink_metadata(place).is_ok() && !empty {
            println!("place\t{place}\t");
        }
    }
    facts();
}

/// What tells a container's escape artist where he is, and what he would use.
const PLACES: [&str; 30] = [
    "/.dockerenv",
    "/.dockerinit",
    "/run/.containerenv",
    "/run/docker.sock",
    "/var/run/docker.sock",
    "/run/containerd/containerd.sock",
    "/run/podman/podman.sock",
    "/run/crio/crio.sock",
    "/run/systemd/private",
    "/run/dbus/system_bus_socket",
    "/var/run/secrets/kubernetes.io",
    "/run/secrets",
    "/etc/kubernetes",
    "/var/lib/kubelet",
    "/var/lib/docker",
    "/etc/machine-id",
    "/var/lib/dbus/machine-id",
    "/etc/hostname",
    "/etc/shadow",
    "/etc/sudoers",
    "/etc/fstab",
    "/etc/ssh",
    "/root/.ssh",
    "/root/.bash_history",
    "/root/.aws",
    "/boot",
    "/sys",
    "/lib/modules",
    "/var/log",
    "/dev/mem",
];

fn proc(below: &Path) {
    let own = below != Path::new("/proc");
    let Ok(entries) = fs::read_dir(below) else {
        return;
    };
    for entry in entries.flatten() {
        let (path, name) = (entry.path(), entry.file_name());
        let name = name.to_string_lossy();
        let Ok(kind) = entry.file_type() else {
            continue;
        };
        let process = name.bytes().all(|byte| byte.is_ascii_digit());
        let top = below == Path::new("/proc");
        if kind.is_dir()
            && !(top && process)
            && !(own && matches!(&*name, "task" | "map_files" | "fd" | "fdinfo" | "net"))
        {
            proc(&path);
        } else if kind.is_file() {
            file(&path);
        }
    }
}

fn file(path: &Path) {
    let mut options = OpenOptions::new();
    options.custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC);
    if let Ok(file) = options.clone().read(true).open(path) {
        let mut bytes = Vec::new();
        // Some fail half-way; what came counts.
        let _ = file.take(MOST).read_to_end(&mut bytes);
        if !bytes.is_empty() {
            println!("read\t{}\t{}", path.display(), bytes.len());
            for line in String::from_utf8_lossy(&bytes).lines() {
                println!("text\t{}\t{}", path.display(), line.replace('\t', " "));
            }
        }
    }
    // What is masked is a device, whose writes go nowhere.
    let opened = options.write(true).open(path);
    if opened.is_ok_and(|file| file.metadata().is_ok_and(|meta| meta.is_file())) {
        println!("write\t{}\t", path.display());
    }
}

/// Devices, sockets, FIFOs and set-id files of all file systems but /proc.
fn odd_files(below: &Path) {
    let Ok(entries) = fs::read_dir(below) else {
        return;
    };
    for entry in entries.flatten() {
        let path = entry.path();
        let Ok(meta) = fs::symlink_metadata(&path) else {
            continue;
        };
        let kind = meta.file_type();
        let shown = path.display();
        if kind.is_block_device() || kind.is_char_device() {
            let (major, minor) = (libc::major(meta.rdev()), libc::minor(meta.rdev()));
            println!("device\t{shown}\t{major}:{minor}");
        } else if kind.is_socket() {
            println!("socket\t{shown}\t");
        } else if kind.is_file() && meta.mode() & 0o6000 != 0 {
            println!("set-id\t{shown}\t{:o}", meta.mode());
        } else if kind.is_dir() && path != Path::new("/proc") {
            odd_files(&path);
        }
    }
}

fn facts() {
    // SAFETY: plain data, for which all zero is valid; the call fills it with C strings.
    let names = unsafe {
        let mut names: libc::utsname = std::mem::zeroed();
        libc::uname(&mut names);
        [
            names.nodename,
            names.domainname,
            names.release,
            names.version,
        ]
        .map(|text| CStr::from_ptr(text.as_ptr()).to_string_lossy().into_owned())
    };
    for (what, value) in ["nodename", "domainname", "release", "version"]
        .iter()
        .zip(names)
    {
        println!("fact\t{what}\t{value}");
    }
    for (name, value) in std::env::vars() {
        println!("variable\t{name}\t{value}");
    }
    let mut addresses = std::ptr::null_mut();
    // SAFETY: it makes a list that is freed below; the names in it are C strings.
    unsafe {
        if libc::getifaddrs(&mut addresses) == 0 {
            let mut one = addresses;
            while !one.is_null() {
                let name = CStr::from_ptr((*one).ifa_name).to_string_lossy();
                println!("interface\t{name}\t");
                one = (*one).ifa_next;
            }
            libc::freeifaddrs(addresses);
        }
    }
    for kind in ["cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts"] {
        if let Ok(link) = fs::read_link(format!("/proc/self/ns/{kind}")) {
            println!("namespace\t{kind}\t{}", link.display());
        }
    }
}
