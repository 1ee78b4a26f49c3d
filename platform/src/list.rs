//! Lists and texts of fixed capacity: there is no heap before the firmware has read the device tree.

use core::fmt;
use core::ops::Deref;

/// What an insertion finds when there is no room left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Full;

/// A list of at most `N` items, used as a slice.
#[derive(Clone, Copy)]
pub struct List<T, const N: usize> {
    items: [T; N],
    count: usize,
}

impl<T: Copy + Default, const N: usize> Default for List<T, N> {
    fn default() -> Self {
        Self { items: [T::default(); N], count: 0 }
    }
}

impl<T: Copy + Default, const N: usize> List<T, N> {
    /// Inserts an item before the one at `index`; an index past the end appends.
    pub fn insert(&mut self, index: usize, item: T) -> Result<(), Full> {
        if self.count == N {
            return Err(Full);
        }
        let index = index.min(self.count);
        self.items.copy_within(index..self.count, index + 1);
        self.items[index] = item;
        self.count += 1;
        Ok(())
    }

    /// Appends an item.
    pub fn push(&mut self, item: T) -> Result<(), Full> {
        self.insert(self.count, item)
    }

    /// Takes out the item at `index`, which must exist.
    pub fn remove(&mut self, index: usize) {
        assert!(index < self.count);
        self.items.copy_within(index + 1..self.count, index);
        self.count -= 1;
    }
}

impl<T, const N: usize> Deref for List<T, N> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        &self.items[..self.count]
    }
}

impl<T: fmt::Debug, const N: usize> fmt::Debug for List<T, N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

/// A text of at most `N` bytes, used as a `str`.
#[derive(Clone, Copy)]
pub struct Text<const N: usize> {
    bytes: [u8; N],
    count: usize,
}

impl<const N: usize> Default for Text<N> {
    fn default() -> Self {
        Self { bytes: [0; N], count: 0 }
    }
}

impl<const N: usize> Text<N> {
    /// Copies a text.
    pub fn new(text: &str) -> Result<Self, Full> {
        let mut copy = Self::default();
        copy.bytes.get_mut(..text.len()).ok_or(Full)?.copy_from_slice(text.as_bytes());
        copy.count = text.len();
        Ok(copy)
    }
}

impl<const N: usize> Deref for Text<N> {
    type Target = str;

    fn deref(&self) -> &str {
        // The bytes are a copy of a `str`, so the default is never taken.
        core::str::from_utf8(&self.bytes[..self.count]).unwrap_or_default()
    }
}

impl<const N: usize> fmt::Debug for Text<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_list_refuses_and_stays_as_it_was() {
        let mut list = List::<u8, 2>::default();
        list.push(1).unwrap();
        list.insert(0, 2).unwrap();
        assert_eq!(list.push(3), Err(Full));
        assert_eq!(*list, [2, 1]);
        list.remove(0);
        assert_eq!(*list, [1]);
    }

    #[test]
    fn a_text_that_is_too_long_is_refused_not_cut() {
        assert_eq!(&*Text::<4>::new("root").unwrap(), "root");
        assert_eq!(Text::<4>::new("roots").err(), Some(Full));
    }
}
