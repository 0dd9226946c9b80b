//! What must be there before the children start, made by root: the data directory, its lock, its short name, the state
//! directory of the api process, the admin token.

use crate::config::Config;
use nix::fcntl::{Flock, FlockArg};
use std::fs::{self, DirBuilder, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

type Error = Box<dyn std::error::Error>;

/// The environment variable that an operator may give the admin token in.
pub const TOKEN_VARIABLE: &str = "CELLBLOCK_ADMIN_TOKEN";

/// How long an earlier server of the same data directory may take to end.
const LOCK_WAIT: Duration = Duration::from_secs(10);

/// The prepared data directory.
#[derive(Debug)]
pub struct Home {
    data_dir: PathBuf,
    /// Eight hexadecimal digits that name this data directory's cgroups.
    pub instance: String,
    /// Held by every process of the service.
    pub lock: OwnedFd,
}

/// Makes what is missing and locks the directory.
pub fn prepare(config: &Config) -> Result<Home, Error> {
    if !nix::unistd::geteuid().is_root() {
        return Err("`serve` makes namespaces, mounts and cgroups: run it as root".into());
    }
    if let Some(refusal) = crate::doctor::refusal(config) {
        return Err(refusal.into());
    }
    let data_dir = config.data_dir.clone();
    create(&data_dir)?;
    check_ours(&data_dir)?;
    let lock = lock(&data_dir.join("lock"))?;
    own(&data_dir, 0)?;
    let state = data_dir.join("state");
    create(&state)?;
    own(&state, config.api_uid)?;
    let instance = instance(&data_dir.join("instance"))?;
    let home = Home {
        data_dir,
        instance,
        lock,
    };
    home.check_state()?;
    home.ensure_token(&state)?;
    Ok(home)
}

fn named<'a>(path: &'a Path) -> impl Fn(io::Error) -> String + 'a {
    move |error| format!("data directory {}: {}", path.display(), remedied(&error))
}

/// An error, with what helps where that is known.
fn remedied(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ReadOnlyFilesystem => {
            format!("{error}: mount it writable, or choose another --data-dir")
        }
        io::ErrorKind::StorageFull => format!("{error}: make room, or choose another --data-dir"),
        _ => error.to_string(),
    }
}

fn create(path: &Path) -> Result<(), Error> {
    let mut builder = DirBuilder::new();
    builder.recursive(true).mode(0o700);
    Ok(builder.create(path).map_err(named(path))?)
}

/// A directory becomes root's alone, so one that holds anything that is not ours is not taken.
fn check_ours(path: &Path) -> Result<(), Error> {
    // What an interrupted first start or `image add` may have made, and what mkfs makes in a new file system.
    const OURS: [&str; 7] = [
        "instance",
        "lock",
        "state",
        "admin-token",
        "images",
        "runtimes",
        "lost+found",
    ];
    if path.join("instance").exists() {
        return Ok(());
    }
    for entry in fs::read_dir(path).map_err(named(path))? {
        let name = entry.map_err(named(path))?.file_name();
        if !OURS.iter().any(|ours| name == *ours) {
            let (path, name) = (path.display(), name.to_string_lossy());
            return Err(format!(
                "data directory {path}: holds {name:?}, which is not Cellblock's: choose an empty \
                 or new directory as --data-dir"
            )
            .into());
        }
    }
    Ok(())
}

fn own(path: &Path, owner: u32) -> Result<(), Error> {
    fs::set_permissions(path, Permissions::from_mode(0o700)).map_err(named(path))?;
    chown(path, Some(owner), Some(owner)).map_err(named(path))?;
    Ok(())
}

fn lock(path: &Path) -> Result<OwnedFd, Error> {
    let deadline = Instant::now() + LOCK_WAIT;
    let mut file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .mode(0o600)
        .open(path)
        .map_err(|error| format!("lock {}: {}", path.display(), remedied(&error)))?;
    loop {
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            // The lock is the open file's, shared with the children; it must not be undone when this value goes.
            Ok(locked) => return Ok(std::mem::ManuallyDrop::new(locked).try_clone()?.into()),
            Err((back, nix::errno::Errno::EWOULDBLOCK)) if Instant::now() < deadline => {
                file = back;
                std::thread::sleep(Duration::from_millis(50));
            }
            Err((_, errno)) => {
                let path = path.display();
                return Err(format!(
                    "lock {path}: {errno}; another cellblock serves this data directory: stop it \
                     or choose another --data-dir"
                )
                .into());
            }
        }
    }
}

fn instance(path: &Path) -> Result<String, Error> {
    let named = |error: io::Error| format!("{}: {error}", path.display());
    match fs::read_to_string(path) {
        Ok(text) => {
            let text = text.trim();
            if text.len() == 8 && text.chars().all(|c| c.is_ascii_hexdigit()) {
                return Ok(text.to_owned());
            }
            Err(format!(
                "{}: not eight hexadecimal digits; remove it",
                path.display()
            )
            .into())
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let text = hex(&random::<4>()?);
            fs::write(path, &text).map_err(named)?;
            Ok(text)
        }
        Err(error) => Err(named(error).into()),
    }
}

impl Home {
    fn token_path(&self) -> PathBuf {
        self.data_dir.join("admin-token")
    }

    /// What is on disk and in no database counts as left by an interrupted operation, and is removed. So a database that
    /// is gone must not be taken for a first start.
    pub fn check_state(&self) -> Result<(), Error> {
        let database = self.data_dir.join("state").join(crate::roles::DATABASE);
        // A disk that fails is no disk without a database.
        match database.try_exists() {
            Ok(true) => return Ok(()),
            Ok(false) => {}
            Err(error) => return Err(format!("{}: {error}", database.display()).into()),
        }
        for kind in ["runtimes", "checkpoints"] {
            let path = self.data_dir.join(kind);
            let any = fs::read_dir(&path).is_ok_and(|mut entries| entries.next().is_some());
            if any {
                let (database, path) = (database.display(), path.display());
                return Err(format!(
                    "the database {database} is gone, but there are {kind} in {path}, which would be removed: \
                     put it back, or remove {path} to begin anew"
                )
                .into());
            }
        }
        Ok(())
    }

    /// On the first start without a token of the operator's, makes one. With one, an earlier one that was made goes: it is
    /// replaced for good, not until the variable is gone.
    fn ensure_token(&self, state: &Path) -> Result<(), Error> {
        let path = self.token_path();
        if std::env::var_os(TOKEN_VARIABLE).is_some() {
            self.admin_token()?;
            return match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    Err(format!("{}: {error}", path.display()).into())
                }
                _ => Ok(()),
            };
        }
        let first_start = !state.join(crate::roles::DATABASE).exists();
        if path.exists() || !first_start {
            return Ok(());
        }
        let token = format!("cb_{}", hex(&random::<32>()?));
        let mut options = OpenOptions::new();
        let file = options.write(true).create_new(true).mode(0o600).open(&path);
        let written = file.and_then(|mut file| {
            file.write_all(token.as_bytes())?;
            file.sync_all()
        });
        written.map_err(|error| format!("{}: {error}", path.display()))?;
        Ok(())
    }

    /// The token that the api process is to accept: the operator's, or the generated one; none when only its hash is
    /// left. Read anew at each start and not kept.
    pub fn admin_token(&self) -> Result<Option<String>, Error> {
        if let Some(token) = std::env::var_os(TOKEN_VARIABLE) {
            let token = token.into_string().unwrap_or_default();
            return accepted(token, TOKEN_VARIABLE).map(Some);
        }
        match fs::read_to_string(self.token_path()) {
            Ok(token) => {
                let path = self.token_path().display().to_string();
                accepted(token.trim().to_owned(), &path).map(Some)
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(format!("{}: {error}", self.token_path().display()).into()),
        }
    }

    /// A shell word that reads the token: for the line that a stranger pastes.
    pub fn token_source(&self) -> String {
        if std::env::var_os(TOKEN_VARIABLE).is_none() && self.token_path().exists() {
            format!("$(cat '{}')", self.token_path().display())
        } else {
            format!("${TOKEN_VARIABLE}")
        }
    }
}

fn accepted(token: String, source: &str) -> Result<String, Error> {
    if crate::tenant::acceptable(&token) {
        Ok(token)
    } else {
        Err(format!("{source}: an admin token is 32 or more visible ASCII characters").into())
    }
}

fn random<const N: usize>() -> Result<[u8; N], Error> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|error| error.to_string())?;
    Ok(bytes)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
