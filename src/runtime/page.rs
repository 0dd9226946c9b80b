//! Paging through a list, by cursor and by offset.

use super::error::Invalid;
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use uuid::Uuid;

/// Most items on a page.
pub const MAX_LIMIT: u64 = 100;

/// Which part of a list is wanted.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct PageRequest {
    /// Most items; none is all of them.
    pub limit: Option<usize>,
    /// How many items to leave out.
    pub offset: usize,
    /// Only items after this one.
    pub after: Option<Uuid>,
}

impl PageRequest {
    /// Reads the query parameters `limit`, `offset` and `after`.
    pub fn parse(
        limit: Option<&str>,
        offset: Option<&str>,
        after: Option<&str>,
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
                decode(text).ok_or_else(|| {
                    Invalid::new("after", "must be a `next_cursor` of a page before")
                })
            })
            .transpose()?;
        Ok(Self {
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
    /// Where in the whole list the page begins.
    pub offset: usize,
    /// Length of the whole list.
    pub total: usize,
}

impl<T> Page<T> {
    /// Cuts the page out of the whole list, which is in the order of its ids.
    pub fn cut(all: Vec<T>, request: &PageRequest, id: impl Fn(&T) -> Uuid) -> Self {
        let total = all.len();
        let start = match request.after {
            // The item may be gone meanwhile; what follows it is still what follows.
            Some(after) => all.partition_point(|item| id(item) <= after),
            None => 0,
        };
        let offset = start.saturating_add(request.offset).min(total);
        let limit = request.limit.unwrap_or(total.max(1));
        let items: Vec<T> = all.into_iter().skip(offset).take(limit).collect();
        Self::of(items, limit, offset, total, id)
    }

    /// The page of these items, which begin at `offset` of a list of `total`.
    pub fn of(
        items: Vec<T>,
        limit: usize,
        offset: usize,
        total: usize,
        id: impl Fn(&T) -> Uuid,
    ) -> Self {
        let more = offset + items.len() < total;
        let next_cursor = items.last().filter(|_| more).map(|last| encode(id(last)));
        Self {
            items,
            next_cursor,
            limit,
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

fn encode(id: Uuid) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(id.as_bytes())
}

fn decode(text: &str) -> Option<Uuid> {
    Uuid::from_slice(&BASE64_URL_SAFE_NO_PAD.decode(text).ok()?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn nonsense_names_its_parameter() {
        let field = |l, o, a| PageRequest::parse(l, o, a).unwrap_err().field;
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
                    request = PageRequest::parse(Some(&limit.to_string()), None, Some(&cursor)).unwrap();
                }
            }
            prop_assert_eq!(seen, all);
        }
    }

    #[test]
    fn without_a_limit_everything_comes() {
        let all: Vec<Uuid> = (0..300).map(Uuid::from_u128).collect();
        let page = Page::cut(all, &PageRequest::default(), |id| *id);
        assert_eq!((page.items.len(), page.next_cursor), (300, None));
    }
}
