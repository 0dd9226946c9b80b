//! Arrays, and objects of strings, read with a bound on their number: a list of empty strings takes many times the memory
//! of the JSON that it came in.

use serde::Deserializer;
use serde::de::{IgnoredAny, MapAccess, SeqAccess, Visitor};
use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fmt;
use std::marker::PhantomData;

/// Most items that are kept of an array or object. More is refused: the kernel takes no more arguments.
pub(super) const MAX_ITEMS: usize = 256 * 1024;

/// A bounded collection of strings.
pub(super) struct Items<T> {
    /// What was kept.
    pub items: T,
    /// There were more, which were not.
    pub too_many: bool,
    /// The first name of an object that came again.
    pub repeated: Option<String>,
}

impl<'de, T: serde::Deserialize<'de>> serde::Deserialize<'de> for Items<Vec<T>> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(ItemsVisitor(PhantomData::<Vec<T>>))
    }
}

impl<'de> serde::Deserialize<'de> for Items<BTreeMap<String, String>> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(ItemsVisitor(PhantomData::<BTreeMap<String, String>>))
    }
}

struct ItemsVisitor<T>(PhantomData<T>);

impl<'de, T: serde::Deserialize<'de>> Visitor<'de> for ItemsVisitor<Vec<T>> {
    type Value = Items<Vec<T>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let mut items = Vec::new();
        while items.len() < MAX_ITEMS {
            match seq.next_element()? {
                Some(item) => items.push(item),
                None => {
                    return Ok(Items {
                        items,
                        too_many: false,
                        repeated: None,
                    });
                }
            }
        }
        let too_many = seq.next_element::<IgnoredAny>()?.is_some();
        while seq.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Items {
            items,
            too_many,
            repeated: None,
        })
    }
}

impl<'de> Visitor<'de> for ItemsVisitor<BTreeMap<String, String>> {
    type Value = Items<BTreeMap<String, String>>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object whose values are strings")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut items: BTreeMap<String, String> = BTreeMap::new();
        let mut repeated = None;
        while let Some((key, value)) = map.next_entry()? {
            match items.entry(key) {
                Entry::Vacant(vacant) => {
                    vacant.insert(value);
                }
                Entry::Occupied(occupied) if repeated.is_none() => {
                    repeated = Some(occupied.key().clone());
                }
                Entry::Occupied(_) => {}
            }
            if items.len() > MAX_ITEMS {
                while map.next_entry::<IgnoredAny, IgnoredAny>()?.is_some() {}
                return Ok(Items {
                    items: BTreeMap::new(),
                    too_many: true,
                    repeated: None,
                });
            }
        }
        Ok(Items {
            items,
            too_many: false,
            repeated,
        })
    }
}
