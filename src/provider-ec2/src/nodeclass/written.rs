//! A container that remembers whether it was written: Go tells an empty list or map from none, and so does the drift
//! hash.

use std::ops::{Deref, DerefMut};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A list or map with whether its field was there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Written<C> {
    content: C,
    present: bool,
}

impl<C> Written<C> {
    /// Whether the field was absent or null.
    #[must_use]
    pub const fn is_absent(&self) -> bool {
        !self.present
    }
    /// The content, if the field was there.
    #[must_use]
    pub const fn as_option(&self) -> Option<&C> {
        if self.present {
            Some(&self.content)
        } else {
            None
        }
    }
    /// The content, empty if the field was absent.
    #[must_use]
    pub fn into_inner(self) -> C {
        self.content
    }
}

impl<C> From<C> for Written<C> {
    fn from(content: C) -> Self {
        Self {
            content,
            present: true,
        }
    }
}

impl<C> Deref for Written<C> {
    type Target = C;
    fn deref(&self) -> &C {
        &self.content
    }
}

impl<C> DerefMut for Written<C> {
    /// What is changed is written.
    fn deref_mut(&mut self) -> &mut C {
        self.present = true;
        &mut self.content
    }
}

impl<'a, C> IntoIterator for &'a Written<C>
where
    &'a C: IntoIterator,
{
    type Item = <&'a C as IntoIterator>::Item;
    type IntoIter = <&'a C as IntoIterator>::IntoIter;
    fn into_iter(self) -> Self::IntoIter {
        self.content.into_iter()
    }
}

impl<C: Serialize> Serialize for Written<C> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.as_option().serialize(serializer)
    }
}

impl<'de, C: Deserialize<'de> + Default> Deserialize<'de> for Written<C> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Option::<C>::deserialize(deserializer)?.map_or_else(Self::default, Self::from))
    }
}
