//! How a profile has `/proc` mounted.

use serde::Deserialize;

/// Mount options of `/proc`, proc(5).
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ProcOptions {
    /// Whose processes can be seen.
    pub hidepid: HidePid,
    /// Which part of `/proc` exists; none is all of it.
    pub subset: Option<ProcSubset>,
}

/// The option `hidepid`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum HidePid {
    /// Everybody sees all processes of the PID namespace.
    #[default]
    Off,
    /// Foreign processes are listed, but their directories can't be entered.
    Noaccess,
    /// Foreign processes are not even listed.
    Invisible,
}

/// The option `subset` (Linux 5.8).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ProcSubset {
    /// Only the directories of processes.
    Pid,
}

impl ProcOptions {
    /// As the kernel takes them, key and value, for fsconfig(2). `hidepid` is a number, which
    /// kernels before 5.8 know as well.
    pub fn mount_options(&self) -> Vec<(&'static str, &'static str)> {
        let mut options = Vec::new();
        match self.hidepid {
            HidePid::Off => {}
            HidePid::Noaccess => options.push(("hidepid", "1")),
            HidePid::Invisible => options.push(("hidepid", "2")),
        }
        if let Some(ProcSubset::Pid) = self.subset {
            options.push(("subset", "pid"));
        }
        options
    }
}
