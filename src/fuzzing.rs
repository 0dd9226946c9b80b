//! Where fuzzing enters, in builds for it (`fuzz/`) and in tests alone: each function takes any bytes to one of the places
//! that read what strangers wrote, and panics where more is wrong than the bytes.
//!
//! The functions stand beside what they try, in modules of the same name, so that nothing has to be public for their sake.
//! `cargo test` runs all of them on the seeds, so that what was found once stays mended without a fuzzer.

pub use crate::api::fuzzing::{cursor, exec};
pub use crate::api::websocket;
pub use crate::config::fuzzing::config;
pub use crate::image::import::fuzzing::import;
pub use crate::image::pull::fuzzing::registry;
pub use crate::image::unpack::fuzzing::unpack;
pub use crate::profile::fuzzing::profile;
pub use crate::profile::seccomp::fuzzing::seccomp;
pub use crate::warden::server::fuzzing::warden;

use nix::sys::memfd::{MFdFlags, memfd_create};
use std::fs::File;
use std::os::unix::fs::FileExt;

/// A file in memory, for what reads nothing else.
pub(crate) fn file(bytes: &[u8]) -> File {
    let fd = memfd_create(c"fuzzing", MFdFlags::MFD_CLOEXEC).expect("a memfd");
    let file = File::from(fd);
    file.write_all_at(bytes, 0).expect("write to memory");
    file
}

/// Makes the checksum of each block right that has the mark of a tar header: bytes alone seldom get past it.
pub(crate) fn with_checksums(bytes: &[u8]) -> Vec<u8> {
    const BLOCK: usize = 512;
    let mut bytes = bytes.to_vec();
    for block in bytes.chunks_exact_mut(BLOCK) {
        if &block[257..262] == b"ustar" {
            block[148..156].fill(b' ');
            let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
            block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
        }
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    type Target = fn(&[u8]);

    const TARGETS: [(&str, Target); 10] = [
        ("config", config),
        ("cursor", cursor),
        ("exec", exec),
        ("import", import),
        ("profile", profile),
        ("registry", registry),
        ("seccomp", seccomp),
        ("unpack", unpack),
        ("warden", warden),
        ("websocket", websocket),
    ];

    #[test]
    fn every_seed_passes() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz");
        let targets = std::fs::read_dir(root.join("fuzz_targets")).expect("the targets");
        assert_eq!(targets.count(), TARGETS.len(), "one is not tried here");
        for (name, target) in TARGETS {
            let seeds = std::fs::read_dir(root.join("seeds").join(name)).expect(name);
            let paths: Vec<_> = seeds.map(|seed| seed.expect(name).path()).collect();
            assert!(!paths.is_empty(), "{name} has no seed");
            for path in paths {
                println!("{}", path.display());
                target(&std::fs::read(&path).expect("a seed"));
            }
        }
    }
}
