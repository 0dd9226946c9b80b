//! What a policy is compiled for: an architecture and a kernel version.

use crate::profile::ProfileError;

/// An architecture that policies compile for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Arch {
    /// 64-bit x86.
    X86_64,
    /// 64-bit ARM.
    Aarch64,
}

/// A kernel's major and minor version, all that `minKernel` compares.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct KernelVersion(pub u32, pub u32);

/// The machine that a policy is compiled for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Target {
    /// Decides the numbers of system calls.
    pub arch: Arch,
    /// Decides which rules with `minKernel` are in force.
    pub kernel: KernelVersion,
}

impl Target {
    /// This machine. Fails on another architecture.
    pub fn running() -> Result<Self, ProfileError> {
        let arch = match std::env::consts::ARCH {
            "x86_64" => Arch::X86_64,
            "aarch64" => Arch::Aarch64,
            other => return Err(ProfileError::Arch(other)),
        };
        let (major, minor) = crate::sys::kernel().1;
        let kernel = KernelVersion(major, minor);
        Ok(Self { arch, kernel })
    }
}

impl KernelVersion {
    /// As [`crate::sys::kernel_version`].
    pub fn parse(release: &str) -> Option<Self> {
        let (major, minor) = crate::sys::kernel_version(release)?;
        Some(Self(major, minor))
    }
}

impl Arch {
    /// As in `architectures` of an OCI file.
    pub(super) fn oci_name(self) -> &'static str {
        match self {
            Self::X86_64 => "SCMP_ARCH_X86_64",
            Self::Aarch64 => "SCMP_ARCH_AARCH64",
        }
    }

    /// Its AUDIT_ARCH_* in linux/audit.h, which is what filters see.
    pub(super) fn audit(self) -> u32 {
        match self {
            Self::X86_64 => 0xc000_003e,
            Self::Aarch64 => 0xc000_00b7,
        }
    }

    /// As in `arches` of a Docker file.
    pub(super) fn docker_name(self) -> &'static str {
        match self {
            Self::X86_64 => "amd64",
            Self::Aarch64 => "arm64",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::KernelVersion;

    #[test]
    fn kernel_releases_compare_by_number_and_not_by_text() {
        let parse = |text| KernelVersion::parse(text).expect(text);
        assert_eq!(parse("6.18.44-fc-v669\n"), KernelVersion(6, 18));
        assert_eq!(parse("5.10-rc1"), KernelVersion(5, 10));
        assert!(parse("4.10") > parse("4.8"));
        assert!(parse("10.0") > parse("9.99"));
        for bad in ["", "6", "6.", "six.one", ".1", "6.x"] {
            assert_eq!(KernelVersion::parse(bad), None, "{bad:?}");
        }
    }
}
