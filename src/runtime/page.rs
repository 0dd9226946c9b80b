//! Paging through a list, by cursor and by offset.

use super::error::Invalid;
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};
use uuid::Uuid;

/// Most items on a page.
pub const MAX_LIMIT: u64 = 100;

/// Which list is paged through: a cursor is of use there and nowhere else.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Scope {
    /// Whose list it is.
    pub tenant: Uuid,
    /// What is listed.
    pub kind: &'static str,
}

/// What the items of a list are ordered by, as a cursor holds it.
pub trait Key: Ord + Sized {
    /// Its bytes.
    fn bytes(&self) -> &[u8];
    /// The key of these bytes.
    fn read(bytes: &[u8]) -> Option<Self>;
}

impl Key for Uuid {
    fn bytes(&self) -> &[u8] {
        self.as_bytes()
    }

    fn read(bytes: &[u8]) -> Option<Self> {
        Self::from_slice(bytes).ok()
    }
}

/// A name.
impl Key for String {
    fn bytes(&self) -> &[u8] {
        self.as_bytes()
    }

    fn read(bytes: &[u8]) -> Option<Self> {
        Self::from_utf8(bytes.to_vec()).ok()
    }
}

/// Which part of a list is wanted.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct PageRequest<K = Uuid> {
    /// Of which list.
    pub scope: Scope,
    /// Most items; none is all of them.
    pub limit: Option<usize>,
    /// How many items to leave out.
    pub offset: usize,
    /// Only items after this one.
    pub after: Option<K>,
}

impl<K: Key> PageRequest<K> {
    /// Reads the query parameters `limit`, `offset` and `after`.
    pub fn parse(
        limit: Option<&str>,
        offset: Option<&str>,
        after: Option<&str>,
        scope: Scope,
    ) -> Result<Self, Invalid> {
        let limit = match limit {
            None => None,
            Some(text) => match text.parse::<u64>() {
                Ok(limit) if (1..=MAX_LIMIT).contains(&limit) => Some(limit as usize),
                _ => {
                    let problem = format!("must be a whole number from 1 to {MAX_LIMIT}");
                    return Err(Invalid::new("limit", problem));
                }
            },
        };
        let offset = match offset {
            None => 0,
            Some(text) => text.parse::<u32>().map_err(|_| {
                Invalid::new("offset", "must be a whole number from 0 to 4294967295")
            })? as usize,
        };
        let after = after
            .map(|text| {
                scope.decode(text).ok_or_else(|| {
                    Invalid::new("after", "must be a `next_cursor` of a page before")
                })
            })
            .transpose()?;
        Ok(Self {
            scope,
            limit,
            offset,
            after,
        })
    }
}

/// A part of a list, and how to get the next.
#[derive(Debug, PartialEq, Eq)]
pub struct Page<T> {
    /// The items.
    pub items: Vec<T>,
    /// Continues after this page, where there is more.
    pub next_cursor: Option<String>,
    /// Most items on the page.
    pub limit: usize,
    /// Where in the whole list the page begins; beyond its end where that was asked for.
    pub offset: usize,
    /// Length of the whole list.
    pub total: usize,
}

impl<T> Page<T> {
    /// Cuts the page out of the whole list, which is in the order of its ids.
    pub fn cut<K: Key>(all: Vec<T>, request: &PageRequest<K>, id: impl Fn(&T) -> K) -> Self {
        let total = all.len();
        let start = match &request.after {
            // The item may be gone meanwhile; what follows it is still what follows.
            Some(after) => all.partition_point(|item| id(item) <= *after),
            None => 0,
        };
        let offset = start.saturating_add(request.offset);
        let rest = all.into_iter().skip(offset);
        let items: Vec<T> = rest.take(request.limit.unwrap_or(total)).collect();
        Self::of(items, offset, total, request, id)
    }

    /// The page of these items, which begin at `offset` of a list of `total`.
    pub fn of<K: Key>(
        items: Vec<T>,
        offset: usize,
        total: usize,
        request: &PageRequest<K>,
        id: impl Fn(&T) -> K,
    ) -> Self {
        let more = offset + items.len() < total;
        let next_cursor = items
            .last()
            .filter(|_| more)
            .map(|last| request.scope.encode(&id(last)));
        Self {
            items,
            next_cursor,
            limit: request.limit.unwrap_or(total.max(1)),
            offset,
            total,
        }
    }

    /// Where the next page begins, where there is more.
    pub fn next_offset(&self) -> Option<usize> {
        self.next_cursor
            .as_ref()
            .map(|_| self.offset + self.items.len())
    }
}

/// Bytes of the digest in a cursor. It tells lists apart; to guess one of another tenant would gain nothing.
const DIGEST: usize = 8;

impl Scope {
    fn encode(&self, key: &impl Key) -> String {
        let key = key.bytes();
        BASE64_URL_SAFE_NO_PAD.encode([key, self.digest(key).as_slice()].concat())
    }

    fn decode<K: Key>(&self, text: &str) -> Option<K> {
        let bytes = BASE64_URL_SAFE_NO_PAD.decode(text).ok()?;
        let (key, digest) = bytes.split_at_checked(bytes.len().checked_sub(DIGEST)?)?;
        K::read(key).filter(|_| digest == self.digest(key))
    }

    fn digest(&self, key: &[u8]) -> [u8; DIGEST] {
        let all = Sha256::new()
            .chain_update(self.tenant)
            .chain_update(key)
            .chain_update(self.kind)
            .finalize();
        std::array::from_fn(|index| all[index])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn nonsense_names_its_parameter() {
        let scope = Scope::default();
        let field = |l, o, a| {
            PageRequest::<Uuid>::parse(l, o, a, scope)
                .unwrap_err()
                .field
        };
        for limit in ["0", "101", "-1", "x", "1.0", ""] {
            assert_eq!(field(Some(limit), None, None), "limit");
        }
        assert_eq!(field(None, Some("-1"), None), "offset");
        assert_eq!(field(None, None, Some("zzz")), "after");
    }

    proptest! {
        #[test]
        fn pages_together_are_the_list(count in 0usize..50, limit in 1usize..20, by_offset: bool) {
            let all: Vec<Uuid> = (0..count).map(|n| Uuid::from_u128(n as u128)).collect();
            let mut seen: Vec<Uuid> = Vec::new();
            let mut request = PageRequest { limit: Some(limit), ..PageRequest::default() };
            loop {
                let page = Page::cut(all.clone(), &request, |id| *id);
                prop_assert!(page.items.len() <= limit);
                prop_assert_eq!((page.total, page.offset), (count, seen.len()));
                seen.extend(&page.items);
                let Some(cursor) = page.next_cursor.clone() else { break };
                if by_offset {
                    request.offset = page.next_offset().unwrap();
                } else {
                    let limit = limit.to_string();
                    request = PageRequest::parse(Some(&limit), None, Some(&cursor), Scope::default()).unwrap();
                }
            }
            prop_assert_eq!(seen, all);
        }
    }

    #[test]
    fn beyond_the_end_is_where_it_was_asked_for() {
        let all: Vec<Uuid> = (0..3).map(Uuid::from_u128).collect();
        let request = PageRequest {
            offset: 1000,
            ..PageRequest::default()
        };
        let page = Page::cut(all, &request, |id| *id);
        assert_eq!((page.items.len(), page.offset, page.total), (0, 1000, 3));
        assert_eq!((page.next_offset(), page.next_cursor), (None, None));
    }

    #[test]
    fn without_a_limit_everything_comes() {
        let all: Vec<Uuid> = (0..300).map(Uuid::from_u128).collect();
        let page = Page::cut(all, &PageRequest::default(), |id| *id);
        assert_eq!((page.items.len(), page.next_cursor), (300, None));
    }

    #[test]
    fn a_cursor_is_of_use_in_its_own_list_only() {
        let scope = |tenant, kind| Scope {
            tenant: Uuid::from_u128(tenant),
            kind,
        };
        let id = Uuid::from_u128(7);
        let cursor = scope(1, "a").encode(&id);
        assert_eq!(scope(1, "a").decode(&cursor), Some(id));
        assert_eq!(scope(2, "a").decode::<Uuid>(&cursor), None);
        assert_eq!(scope(1, "b").decode::<Uuid>(&cursor), None);
        assert_eq!(scope(1, "a").decode::<Uuid>(&cursor[1..]), None);
        let bare = BASE64_URL_SAFE_NO_PAD.encode(id.as_bytes());
        assert_eq!(scope(1, "a").decode::<Uuid>(&bare), None);
        let name = "n".to_owned();
        assert_eq!(
            scope(1, "a").decode(&scope(1, "a").encode(&name)),
            Some(name)
        );
        assert_eq!(scope(1, "a").decode::<String>(""), None);
    }
}
