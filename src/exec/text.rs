//! Output bytes as text: what the cap cut in half is dropped, what never was UTF-8 becomes U+FFFD.

use std::fmt;

/// `kept` without a character that the cap split. Only the end of a truncated output is looked at: bytes that could not
/// have become a character with more bytes are invalid wherever they stand, and stay.
pub fn cut(kept: &[u8], truncated: bool) -> &[u8] {
    if !truncated {
        return kept;
    }
    let Some(last) = kept.utf8_chunks().last() else {
        return kept;
    };
    let invalid = last.invalid();
    let could_continue = std::str::from_utf8(invalid)
        .is_err_and(|error| error.error_len().is_none() && error.valid_up_to() == 0);
    if could_continue {
        &kept[..kept.len() - invalid.len()]
    } else {
        kept
    }
}

/// Writes bytes as text, piece by piece: no copy of the output is made on its way into the JSON.
#[derive(Debug, Clone, Copy)]
pub struct Lossy<'a>(pub &'a [u8]);

impl fmt::Display for Lossy<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for chunk in self.0.utf8_chunks() {
            f.write_str(chunk.valid())?;
            if !chunk.invalid().is_empty() {
                f.write_str("\u{FFFD}")?;
            }
        }
        Ok(())
    }
}

impl serde::Serialize for Lossy<'_> {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn decode(bytes: &[u8], truncated: bool) -> String {
        Lossy(cut(bytes, truncated)).to_string()
    }

    #[test]
    fn only_a_split_character_is_dropped() {
        assert_eq!(decode("aé".as_bytes(), true), "aé");
        assert_eq!(decode(b"a\xc3", true), "a");
        assert_eq!(decode(b"a\xf0\x9f\x98", true), "a");
        // Written like that by the command itself:
        assert_eq!(decode(b"a\xc3", false), "a\u{FFFD}");
        // Can't become a character whatever follows:
        assert_eq!(decode(b"a\xff", true), "a\u{FFFD}");
        assert_eq!(decode(b"a\x80", true), "a\u{FFFD}");
        assert_eq!(decode(b"\xc3a", true), "\u{FFFD}a");
        assert_eq!(decode(b"", true), "");
    }

    proptest! {
        #[test]
        fn text_cut_anywhere_is_a_prefix_of_the_text(text in "\\PC{0,40}", at in 0usize..200) {
            let at = at.min(text.len());
            let decoded = decode(&text.as_bytes()[..at], at < text.len());
            prop_assert!(text.starts_with(&decoded), "{decoded:?}");
            prop_assert!(at - decoded.len() < 4);
        }

        #[test]
        fn whole_output_decodes_like_the_standard_library(bytes: Vec<u8>) {
            prop_assert_eq!(decode(&bytes, false), String::from_utf8_lossy(&bytes));
        }

        #[test]
        fn cutting_takes_at_most_three_bytes_off_the_end(bytes: Vec<u8>) {
            let rest = cut(&bytes, true);
            prop_assert!(bytes.starts_with(rest) && bytes.len() - rest.len() <= 3);
        }
    }
}
