//! Numbers that look random and are the same each time (splitmix64), for tests that try thousands of things; and how many they try.

use std::ops::Range;

/// A row of such numbers.
pub(crate) struct Numbers(pub(crate) u64);

impl Numbers {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// One below `end`; 0 if there is none.
    pub(crate) fn below(&mut self, end: usize) -> usize {
        usize::try_from(self.next() % u64::try_from(end.max(1)).unwrap()).unwrap()
    }

    /// Whether it is one time in so many.
    pub(crate) fn is_one_in(&mut self, many: usize) -> bool {
        self.below(many) == 0
    }

    /// One of these.
    pub(crate) fn of<'a, T>(&mut self, all: &'a [T]) -> &'a T {
        &all[self.below(all.len())]
    }

    /// So many characters of these, the first of `first`.
    pub(crate) fn text(&mut self, first: &[u8], rest: &[u8], length: usize) -> String {
        (0..length).map(|at| char::from(*self.of(if at == 0 { first } else { rest }))).collect()
    }
}

/// Which of the many things are tried: the usual ones, or `COUNT` or `FROM..TO` as the environment says.
pub(crate) fn wanted(variable: &str, usual: Range<u64>) -> Range<u64> {
    match std::env::var(variable) {
        Ok(text) => match text.split_once("..") {
            Some((from, to)) => number(from)..number(to),
            None => 0..number(&text),
        },
        Err(_) => usual,
    }
}

/// A number that somebody wrote.
pub(crate) fn number(text: &str) -> u64 {
    text.parse().unwrap_or_else(|_| panic!("{text:?} is no number"))
}
