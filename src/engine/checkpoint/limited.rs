//! Lists and maps of JSON that end where no checkpoint's do.
//!
//! **Architecture Invariant:** what is too much is refused while it is read, not after it has been kept.

use std::{collections::BTreeMap, fmt};

use serde::de::{Deserialize, Deserializer, Error, MapAccess, Visitor};

/// More than any model has tensors.
pub(super) const MAX_TENSORS: usize = 1 << 16;
/// Longer than any tensor's or file's name.
pub(super) const MAX_NAME_BYTES: usize = 1 << 10;

/// A map of texts, with no more entries than a model has tensors.
#[derive(Debug, Default)]
pub(super) struct Texts(pub(super) BTreeMap<String, String>);

/// Refuses an entry beyond those that there may be; `what` is their name in messages.
pub(super) fn check_count<E: Error>(n_entries: usize, what: &str) -> Result<(), E> {
    if n_entries < MAX_TENSORS {
        return Ok(());
    }
    Err(E::custom(format_args!("more than {MAX_TENSORS} {what}, at most that many are expected")))
}

/// Refuses a name that is none.
pub(super) fn check_name<E: Error>(name: &str) -> Result<(), E> {
    if name.len() <= MAX_NAME_BYTES {
        return Ok(());
    }
    Err(E::custom(format_args!("a name of {} bytes, at most {MAX_NAME_BYTES} are expected", name.len())))
}

impl<'de> Deserialize<'de> for Texts {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TextsVisitor;

        impl<'de> Visitor<'de> for TextsVisitor {
            type Value = Texts;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map of texts")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Texts, A::Error> {
                let mut texts = Texts::default();
                let mut n_entries = 0;
                while let Some((name, text)) = map.next_entry::<String, String>()? {
                    check_count(n_entries, "entries")?;
                    check_name(&name)?;
                    n_entries += 1;
                    texts.0.insert(name, text);
                }
                Ok(texts)
            }
        }

        deserializer.deserialize_map(TextsVisitor)
    }
}
