//! The real thing: Debian's registry, an image pushed into it by another project's tool, pulled by us.

use crate::image::{MANIFEST, Place, architecture, descriptor};
use crate::needs;
use crate::support::{Runtime, api, bound, eventually, server, together};
use cellblock::image::digest::Digest;
use serde_json::{Value, json};
use std::fs;
use std::net::TcpStream;
use std::os::unix::fs::symlink;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// Whom the registry knows.
const USER: &str = "mallory:hunter2";

/// The same as htpasswd(1) writes it, with the least cost.
const HTPASSWD: &str = "mallory:$2y$04$abcdefghijklmnopqrstuuV3duMsC0HpUex6N9qapiuOHHWkwRXVm\n";

/// A registry of Debian's on a port of its own, which wants a password. Ends when this is dropped.
struct DockerRegistry {
    child: Child,
    address: String,
}

impl DockerRegistry {
    fn start(directory: &Path) -> DockerRegistry {
        let port = crate::support::server::free_port();
        let address = format!("127.0.0.1:{port}");
        let passwords = directory.join("htpasswd");
        fs::write(&passwords, HTPASSWD).expect("write the passwords");
        let config = format!(
            "version: 0.1\nstorage:\n  filesystem:\n    rootdirectory: {}\nhttp:\n  addr: {address}\n\
             auth:\n  htpasswd:\n    realm: test\n    path: {}\n",
            directory.join("registry").display(),
            passwords.display(),
        );
        let file = directory.join("registry.yml");
        fs::write(&file, config).expect("write the configuration");
        let mut command = Command::new("docker-registry");
        command.arg("serve").arg(file);
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        // SAFETY: between fork and exec only prctl(2) is called, which is async-signal-safe. The test's thread lives as
        // long as the guard.
        unsafe {
            command.pre_exec(|| {
                libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL);
                Ok(())
            });
        }
        let child = command.spawn().expect("start docker-registry");
        let registry = DockerRegistry { child, address };
        let answers = || TcpStream::connect(&registry.address).is_ok();
        assert!(
            eventually(bound(20_000), answers),
            "docker-registry does not answer"
        );
        registry
    }
}

impl Drop for DockerRegistry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// An OCI layout with one image: busybox, a user, a variable and a working directory.
fn layout(directory: &Path) -> Digest {
    let rootfs = directory.join("rootfs");
    for name in ["bin", "dev", "etc", "proc", "tmp", "srv/app"] {
        fs::create_dir_all(rootfs.join(name)).expect("make the rootfs");
    }
    fs::copy("/bin/busybox", rootfs.join("bin/busybox")).expect("copy busybox");
    for name in ["sh", "id", "pwd", "echo", "cat"] {
        symlink("busybox", rootfs.join("bin").join(name)).expect("link");
    }
    fs::write(
        rootfs.join("etc/passwd"),
        "app:x:1234:1234::/srv/app:/bin/sh\n",
    )
    .expect("passwd");
    fs::write(rootfs.join("srv/app/greeting"), "hello from the registry\n").expect("write");
    let archive = directory.join("layer.tar");
    let mut tar = Command::new("tar");
    tar.args(["--owner=0", "--group=0", "-cf"])
        .arg(&archive)
        .arg("-C")
        .arg(&rootfs)
        .arg(".");
    run(&mut tar);
    let diff_id = Digest::of(&fs::read(&archive).expect("read the layer"));
    run(Command::new("gzip").arg("-n").arg(&archive));
    let layer = fs::read(directory.join("layer.tar.gz")).expect("read the layer");

    let blobs = directory.join("layout/blobs/sha256");
    fs::create_dir_all(&blobs).expect("make the layout");
    let put = |media_type: &str, bytes: &[u8]| -> Value {
        fs::write(blobs.join(Digest::of(bytes).hex()), bytes).expect("write a blob");
        descriptor(media_type, bytes)
    };
    let config = json!({
        "architecture": architecture(), "os": "linux",
        "config": {"Env": ["PATH=/bin", "GREETING=hello"], "User": "app", "WorkingDir": "/srv/app"},
        "rootfs": {"type": "layers", "diff_ids": [diff_id]},
    });
    let config = config.to_string().into_bytes();
    let manifest = json!({
        "schemaVersion": 2, "mediaType": MANIFEST,
        "config": put("application/vnd.oci.image.config.v1+json", &config),
        "layers": [put("application/vnd.oci.image.layer.v1.tar+gzip", &layer)],
    });
    let index = json!({
        "schemaVersion": 2,
        "manifests": [put(MANIFEST, manifest.to_string().as_bytes())],
    });
    let root = directory.join("layout");
    fs::write(root.join("index.json"), index.to_string()).expect("write the index");
    fs::write(root.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).expect("write");
    Digest::of(&config)
}

fn run(command: &mut Command) {
    let output = command.stdin(Stdio::null()).output().expect("run a tool");
    assert!(output.status.success(), "{command:?}: {output:?}");
}

/// Pushes the layout as this.
fn push(directory: &Path, to: &str) {
    let mut skopeo = Command::new("skopeo");
    skopeo.args([
        "--insecure-policy",
        "copy",
        "--quiet",
        "--dest-tls-verify=false",
        "--dest-creds",
        USER,
    ]);
    skopeo.arg(format!("oci:{}", directory.join("layout").display()));
    skopeo.arg(format!("docker://{to}"));
    run(&mut skopeo);
}

#[test]
fn an_image_that_skopeo_pushed_to_debians_registry_is_pulled_and_run() {
    needs!(Root, DockerRegistry, Skopeo, Busybox);
    let _turn = together();
    let work = Place::new();
    let id = layout(work.path());
    let registry = DockerRegistry::start(work.path());
    let reference = format!("{}/team/app:1.0", registry.address);
    push(work.path(), &reference);

    let data = server().data_dir();
    let user = [
        ("CELLBLOCK_REGISTRY_USERNAME", "mallory"),
        ("CELLBLOCK_REGISTRY_PASSWORD", "hunter2"),
        ("CELLBLOCK_DATA_DIR", data.to_str().expect("UTF-8")),
    ];
    let said = work.pull_with(&reference, &[], &user).succeeded();
    assert!(said.starts_with(&format!("pulled app-1.0: {id}")), "{said}");
    // The service runs all the while and finds the image.
    let runtime = Runtime::create(api(), &json!({"image": "app-1.0"}));
    assert_eq!(runtime.object["image_id"], json!(id));
    let exec = runtime.sh("id -u; pwd; cat greeting; echo $GREETING");
    let lines = ["1234", "/srv/app", "hello from the registry", "hello"];
    assert_eq!(exec.lines(), lines);
    work.pull(&format!("{}/team/app:1.1", registry.address), &[])
        .refused(&["wants credentials"]);
    let missing = format!("{}/team/app:2", registry.address);
    work.pull_with(&missing, &[], &user)
        .refused(&["manifest 2", "not found", "MANIFEST_UNKNOWN"]);
}
