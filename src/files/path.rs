//! Paths as clients name them.

use crate::runtime::Invalid;
use std::ffi::{CStr, CString};

/// PATH_MAX of limits.h, with the NUL at the end.
const MAX_PATH: usize = 4096;

/// An absolute path inside a runtime. It may hold any bytes, and lead anywhere: it is only ever followed in there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FilePath(CString);

impl FilePath {
    /// Checks what can be checked without looking. A relative path begins in `home`.
    pub fn parse(bytes: &[u8], home: &str) -> Result<Self, Invalid> {
        if bytes.is_empty() {
            return Err(Invalid::new("path", "must not be empty"));
        }
        let path = match bytes.starts_with(b"/") {
            true => bytes.to_vec(),
            false => [home.trim_end_matches('/').as_bytes(), b"/", bytes].concat(),
        };
        if path.len() >= MAX_PATH {
            let most = MAX_PATH - 1;
            return Err(Invalid::new(
                "path",
                format!("must be at most {most} bytes long"),
            ));
        }
        CString::new(path)
            .map(Self)
            .map_err(|_| Invalid::new("path", "must not contain NUL"))
    }

    /// For the cell.
    pub(super) fn as_c_str(&self) -> &CStr {
        &self.0
    }

    /// Fit for a message.
    pub fn shown(&self) -> String {
        let text = self.0.to_string_lossy();
        text.chars()
            .take(200)
            .flat_map(char::escape_debug)
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_relative_path_begins_at_home() {
        let parse = |path: &str, home| FilePath::parse(path.as_bytes(), home).unwrap().shown();
        assert_eq!(parse("a/b", "/root"), "/root/a/b");
        assert_eq!(parse("a", "/"), "/a");
        assert_eq!(parse("/a", "/root"), "/a");
        assert_eq!(parse("../a\n", "/root"), "/root/../a\\n");
    }

    #[test]
    fn what_no_file_can_be_called_is_refused() {
        let problem = |path: &[u8]| FilePath::parse(path, "/root").unwrap_err().to_string();
        assert!(problem(b"").contains("`path` must not be empty"));
        assert!(problem(b"/a\0b").contains("NUL"));
        assert!(problem(&[b'a'; 4091]).contains("4095"));
        assert!(FilePath::parse(&[b'a'; 4089], "/root").is_ok());
        assert!(FilePath::parse(b"/\xff", "/root").is_ok());
    }
}
