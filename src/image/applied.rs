//! What of an image's configuration holds for a runtime: the warden decides it once, when the runtime is made, and both
//! sides keep it: the warden who commands are, the api process what they find.

use crate::cell::identity::Ids;
use crate::image::content::{Content, ImageConfig};
use crate::image::import::Platform;
use crate::resources::INIT_ID;

/// The largest configuration that is handed over, in bytes of JSON.
pub const MAX_CONFIG: u64 = 256 * 1024;

/// Longest path in bytes: PATH_MAX of limits.h without the NUL.
const MAX_PATH: usize = 4095;

/// The part of an image's configuration that holds where commands would be `profile` without it. A user other than root
/// wins; root does only where the profile's commands are root as well.
///
/// # Errors
/// Why no command can run in the image, in words for a client.
pub fn applied(content: &Content, profile: Ids) -> Result<ImageConfig, String> {
    let ours = Platform::here().architecture;
    if content.architecture != ours {
        let theirs: String = content.architecture.chars().take(40).collect();
        return Err(format!(
            "it is for {}, and this machine is {ours}",
            theirs.escape_debug()
        ));
    }
    let mut config = content.config.clone();
    config
        .user
        .take_if(|user| user.uid == 0 && profile.uid != 0);
    check(&config)?;
    let size = serde_json::to_vec(&config).map_or(u64::MAX, |json| json.len() as u64);
    match size > MAX_CONFIG {
        true => Err(format!(
            "its configuration is larger than {MAX_CONFIG} bytes"
        )),
        false => Ok(config),
    }
}

/// Who commands are, where the image says it.
pub fn ids(config: &ImageConfig) -> Option<Ids> {
    config.user.as_ref().map(|user| Ids {
        uid: user.uid,
        gid: user.gid,
    })
}

/// Import wrote what can be used; this is what cells rely on.
fn check(config: &ImageConfig) -> Result<(), String> {
    let path = |what: &str, path: &str| {
        let fits = path.starts_with('/') && path.len() <= MAX_PATH && !path.contains('\0');
        fits.then_some(())
            .ok_or_else(|| format!("its {what} is no absolute path"))
    };
    if let Some(user) = &config.user {
        if user.uid >= INIT_ID || user.gid >= INIT_ID {
            return Err(format!("its user's ids are not below {INIT_ID}"));
        }
        path("user's home", &user.home)?;
        if user.name.contains('\0') {
            return Err("its user's name holds a NUL".to_owned());
        }
    }
    if let Some(directory) = &config.working_dir {
        path("working directory", directory)?;
    }
    let wrong = |(name, value): (&String, &String)| {
        name.is_empty() || name.contains(['=', '\0']) || value.contains('\0')
    };
    match config.env.iter().any(wrong) {
        true => Err("its environment holds what is none".to_owned()),
        false => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::image::content::ImageUser;
    use crate::image::digest::Digest;
    use std::collections::BTreeMap;

    const ROOT: Ids = Ids { uid: 0, gid: 0 };
    const USER: Ids = Ids {
        uid: 1000,
        gid: 1000,
    };

    fn content(user: Option<(u32, u32)>) -> Content {
        let user = user.map(|(uid, gid)| ImageUser {
            uid,
            gid,
            name: "app".into(),
            home: "/app".into(),
        });
        Content {
            id: Digest::of(b"id"),
            architecture: Platform::here().architecture,
            created: None,
            layers: Vec::new(),
            bytes: 0,
            config: ImageConfig {
                env: BTreeMap::from([("A".into(), "b".into())]),
                user,
                working_dir: Some("/srv".into()),
            },
        }
    }

    #[test]
    fn a_user_wins_and_root_only_where_root_is_meant_anyway() {
        let of = |user, profile| applied(&content(user), profile).map(|config| ids(&config));
        let app = Ids { uid: 33, gid: 0 };
        assert_eq!(of(Some((33, 0)), ROOT), Ok(Some(app)));
        assert_eq!(of(Some((33, 0)), USER), Ok(Some(app)));
        assert_eq!(of(Some((0, 5)), ROOT), Ok(Some(Ids { uid: 0, gid: 5 })));
        assert_eq!(of(Some((0, 0)), USER), Ok(None));
        assert_eq!(of(None, USER), Ok(None));
    }

    #[test]
    fn what_no_cell_could_use_is_refused() {
        let refused = |change: fn(&mut Content)| {
            let mut content = content(Some((1, 1)));
            change(&mut content);
            applied(&content, ROOT).expect_err("it was taken")
        };
        let other = refused(|content| content.architecture = "riscv64".into());
        assert!(other.contains("riscv64"), "{other}");
        fn user(content: &mut Content) -> &mut ImageUser {
            content.config.user.as_mut().expect("a user")
        }
        refused(|content| user(content).uid = INIT_ID);
        refused(|content| user(content).gid = u32::MAX);
        refused(|content| user(content).home = "app".into());
        refused(|content| content.config.working_dir = Some("srv".into()));
        refused(|content| drop(content.config.env.insert("A=B".into(), String::new())));
        refused(|content| drop(content.config.env.insert("A".into(), "\0".into())));
        refused(|content| drop(content.config.env.insert("A".into(), "x".repeat(300_000))));
    }
}
