//! Sets of page numbers: what a check expects to find in a log.

/// At most `N` page numbers, in ascending order, each once.
#[derive(Clone, Debug)]
pub struct PageSet<const N: usize> {
    pages: [u64; N],
    len: usize,
}

impl<const N: usize> PageSet<N> {
    /// The empty set.
    #[must_use]
    pub const fn new() -> Self {
        Self { pages: [0; N], len: 0 }
    }

    /// Adds `page`; `false` where the set is full and `page` not in it.
    pub fn insert(&mut self, page: u64) -> bool {
        match self.as_slice().binary_search(&page) {
            Ok(_) => true,
            Err(_) if self.len == N => false,
            Err(at) => {
                self.pages.copy_within(at..self.len, at + 1);
                self.pages[at] = page;
                self.len += 1;
                true
            }
        }
    }

    /// The pages, ascending.
    #[must_use]
    pub fn as_slice(&self) -> &[u64] {
        &self.pages[..self.len]
    }

    /// Whether `page` is in it.
    #[must_use]
    pub fn contains(&self, page: u64) -> bool {
        self.as_slice().binary_search(&page).is_ok()
    }

    /// How many pages there are.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.len as u64
    }

    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }
}

impl<const N: usize> Default for PageSet<N> {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_are_kept_in_order_and_once() {
        let mut set = PageSet::<4>::new();
        for page in [9, 3, 9, 5] {
            assert!(set.insert(page));
        }
        assert_eq!(set.as_slice(), [3, 5, 9]);
        assert!(set.contains(5) && !set.contains(4));
    }

    #[test]
    fn a_full_set_takes_no_new_page() {
        let mut set = PageSet::<2>::new();
        assert!(set.insert(1) && set.insert(2));
        assert!(!set.insert(0));
        assert!(set.insert(2));
        assert_eq!(set.as_slice(), [1, 2]);
    }
}
