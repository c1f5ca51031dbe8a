//! A reader that hashes what is read of it, so that an export is verified, told of and named by its hash in one go.
#![deny(clippy::arithmetic_side_effects, clippy::wildcard_enum_match_arm)]

use std::io::{self, BufRead, Read};

use sha2::{Digest as _, Sha256};

use crate::audit::tree::Hash;

/// A reader, and the SHA-256 of what was read of it.
#[derive(Debug)]
pub struct Hashed<R> {
    inner: R,
    hash: Sha256,
}

impl<R: BufRead> Hashed<R> {
    /// Nothing is read yet.
    pub fn new(inner: R) -> Self {
        Self { inner, hash: Sha256::new() }
    }

    /// The hash of what was read.
    #[must_use]
    pub fn finish(self) -> Hash {
        self.hash.finalize().into()
    }
}

impl<R: BufRead> Read for Hashed<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.fill_buf()?.read(buffer)?;
        self.consume(read);
        Ok(read)
    }
}

impl<R: BufRead> BufRead for Hashed<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.inner.fill_buf()
    }

    fn consume(&mut self, amount: usize) {
        // At the end there is nothing in the buffer, and a terminal would be asked for more.
        if amount == 0 {
            return;
        }
        if let Some(read) = self.inner.fill_buf().ok().and_then(|buffer| buffer.get(..amount)) {
            self.hash.update(read);
        }
        self.inner.consume(amount);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_that_of_all_that_was_read_however_it_was_read() {
        let bytes = b"line\n".repeat(1000);
        let mut reader = Hashed::new(io::BufReader::with_capacity(7, bytes.as_slice()));
        let mut line = Vec::new();
        reader.read_until(b'\n', &mut line).unwrap();
        let mut rest = Vec::new();
        reader.read_to_end(&mut rest).unwrap();
        assert_eq!([line, rest].concat(), bytes);
        assert_eq!(reader.finish(), <Hash>::from(Sha256::digest(&bytes)));
    }
}
