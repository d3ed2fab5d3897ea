// SPDX-License-Identifier: GPL-2.0-or-later
//! Reading a process's memory, as the parts that only compute see it. The process behind it is a stranger: every length
//! is bounded, every address may be wrong, and a wrong one is an error and never a panic.

use crate::error::{Error, Result};
use ulp_arch::RemoteAddr;

/// The smallest pages of any machine that ulp knows; larger ones are multiples of it.
pub const SMALLEST_PAGE: u64 = 4096;

/// Memory that can be read.
pub trait Memory {
    /// Fills `buf` from `at`, wholly or not at all.
    fn read(&self, at: RemoteAddr, buf: &mut [u8]) -> std::io::Result<()>;

    /// The size of its pages: mappings begin and end at multiples of it.
    fn page(&self) -> u64;
}

impl Memory for crate::process::Process {
    fn read(&self, at: RemoteAddr, buf: &mut [u8]) -> std::io::Result<()> {
        Self::read(self, at, buf).map_err(std::io::Error::other)
    }

    fn page(&self) -> u64 {
        Self::page(self)
    }
}

/// More than any structure read from a process needs; a larger length is a lie.
pub const LARGEST: u64 = 64 << 20;

/// Reads `len` bytes.
pub fn bytes(memory: &dyn Memory, at: RemoteAddr, len: u64) -> Result<Vec<u8>> {
    if len > LARGEST {
        return Err(unreadable(at, len, "the length makes no sense"));
    }
    let mut buf = vec![0; usize::try_from(len).map_err(|_| unreadable(at, len, "the length makes no sense"))?];
    memory.read(at, &mut buf).map_err(|e| unreadable(at, len, e))?;
    Ok(buf)
}

/// Reads `N` bytes.
pub fn array<const N: usize>(memory: &dyn Memory, at: RemoteAddr) -> Result<[u8; N]> {
    let mut buf = [0; N];
    memory.read(at, &mut buf).map_err(|e| unreadable(at, N as u64, e))?;
    Ok(buf)
}

/// Reads a little-endian 64-bit word.
pub fn word(memory: &dyn Memory, at: RemoteAddr) -> Result<u64> {
    array(memory, at).map(u64::from_le_bytes)
}

/// Reads a NUL-terminated string of at most `limit` bytes, page by page so that a string at the end of a mapping is found.
pub fn string(memory: &dyn Memory, at: RemoteAddr, limit: usize) -> Result<Vec<u8>> {
    const CHUNK: u64 = 64;
    let mut text = Vec::new();
    let mut place = at;
    while text.len() < limit {
        // Chunks end at multiples of their own size, so that none crosses into a page that may not be there.
        let len = CHUNK - place.0 % CHUNK;
        let chunk = bytes(memory, place, len)?;
        if let Some(end) = chunk.iter().position(|b| *b == 0) {
            text.extend_from_slice(&chunk[..end]);
            return Ok(text);
        }
        text.extend_from_slice(&chunk);
        place = place.plus(len);
    }
    Err(unreadable(at, limit as u64, "the string does not end"))
}

fn unreadable(at: RemoteAddr, len: u64, why: impl std::fmt::Display) -> Error {
    Error::failed(
        format!("cannot read {len} bytes at {at} of the process: {why}"),
        "the process may have ended or changed its memory meanwhile; run the command again",
    )
}

#[cfg(test)]
pub(crate) mod test {
    use super::*;
    use std::collections::BTreeMap;

    /// Memory typed into a test: pieces at addresses.
    #[derive(Default)]
    pub struct Pieces(pub BTreeMap<u64, Vec<u8>>);

    impl Pieces {
        pub fn put(&mut self, at: u64, bytes: impl Into<Vec<u8>>) {
            self.0.insert(at, bytes.into());
        }
    }

    impl Memory for Pieces {
        fn read(&self, at: RemoteAddr, buf: &mut [u8]) -> std::io::Result<()> {
            let fault = || std::io::Error::from_raw_os_error(libc::EFAULT);
            let (start, piece) = self.0.range(..=at.0).next_back().ok_or_else(fault)?;
            let offset = usize::try_from(at.0 - start).map_err(|_| fault())?;
            let end = offset.checked_add(buf.len()).ok_or_else(fault)?;
            buf.copy_from_slice(piece.get(offset..end).ok_or_else(fault)?);
            Ok(())
        }

        fn page(&self) -> u64 {
            SMALLEST_PAGE
        }
    }

    #[test]
    fn strings_end_at_the_end_of_memory_or_are_refused() {
        let mut memory = Pieces::default();
        let mut page = vec![b'x'; 128];
        page.extend(b"end\0");
        page.resize(192, b'y');
        memory.put(0x1000, page);
        assert_eq!(string(&memory, RemoteAddr(0x1000 + 120), 4096).unwrap(), b"xxxxxxxxend");
        assert!(string(&memory, RemoteAddr(0x1000 + 132), 4096).is_err(), "runs off the end of memory");
        assert!(string(&memory, RemoteAddr(0x1000), 64).is_err(), "longer than its limit");
        assert!(bytes(&memory, RemoteAddr(0x1000), u64::MAX).is_err());
    }
}
