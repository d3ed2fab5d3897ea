// SPDX-License-Identifier: GPL-2.0-or-later
//! The search for what still leads into a patch's memory: words of the program's memory, and what the kernel keeps for the
//! program (signal handlers, timers, epoll). It can find every pointer that is stored as one, also as the C library
//! disguises it; what a program encodes in a way of its own is beyond it, so it is asked only after a person asked.

use crate::attempt::{Limits, borrow};
use crate::error::{Error, Result};
use crate::memory;
use crate::process::{Mapping, Process, Protection, Wish};
use std::ops::Range;
use std::time::Instant;
use ulp_arch::RemoteAddr;

/// Read at once; neighbouring pieces overlap by seven bytes, so that a word across their border is seen.
const PIECE: u64 = 1 << 20;
/// Larger mappings may be reserves of which little is used.
const LARGE: u64 = 8 << 20;

/// Where to look.
#[derive(Clone, Copy, Debug)]
pub enum Where<'a> {
    /// Memory that the program can write to, without the threads' stacks: what is live there a stop has looked at, the
    /// rest is what old calls left behind. Given the thread pointers; `None`: stacks too, because coroutines may have theirs
    /// in a thread's.
    Writable(Option<&'a [u64]>),
    /// Everything that can be read and may differ from its file.
    Everything,
}

/// What counts as leading there.
struct Wanted<'a> {
    areas: &'a [Range<u64>],
    low: u64,
    high: u64,
    /// The C library's pointer guard, and by how much it rotates what it has disguised with it.
    guard: Option<(u64, u32)>,
    /// The bits of an address that are no signature.
    keep: u64,
}

impl Wanted<'_> {
    fn holds(&self, value: u64) -> bool {
        self.low <= value && value < self.high && self.areas.iter().any(|a| a.contains(&value))
    }

    /// Where in the bytes a pointer into the areas stands. Plain ones at any place, as packed structures have them;
    /// disguised ones are the C library's own, and aligned.
    fn find(&self, bytes: &[u8]) -> Option<usize> {
        let value = |word: &[u8]| word.try_into().map_or(0, u64::from_le_bytes);
        bytes.windows(8).position(|word| self.holds(value(word) & self.keep)).or_else(|| {
            let (guard, rotation) = self.guard?;
            let plain = |word: &[u8]| value(word).rotate_right(rotation) ^ guard;
            Some(8 * bytes.chunks_exact(8).position(|word| self.holds(plain(word)))?)
        })
    }
}

/// The first place in the program's memory, our `own` apart, that holds an address in `areas`.
pub fn pointer(
    process: &Process,
    own: &[Range<u64>],
    areas: &[Range<u64>],
    place: Where<'_>,
    deadline: Instant,
) -> Result<Option<RemoteAddr>> {
    let wanted = Wanted {
        areas,
        low: areas.iter().map(|a| a.start).min().unwrap_or(0),
        high: areas.iter().map(|a| a.end).max().unwrap_or(0),
        guard: process.pointer_guard().map(|guard| (guard, process.arch().pointer_rotation())),
        // A stop has come before: what a signature is is known.
        keep: !process.unsigned().mask(),
    };
    for mapping in process.maps()?.iter().filter(|m| m.read) {
        for range in ranges(process, own, mapping, place, deadline) {
            let mut at = range.start;
            while at < range.end {
                if Instant::now() >= deadline {
                    return Err(Error::busy(
                        "the process has more memory than can be searched in the time",
                        "give it a longer --max-stop",
                    ));
                }
                let len = PIECE.min(range.end - at);
                let bytes = memory::bytes(process, RemoteAddr(at), (len + 7).min(range.end - at))?;
                if let Some(i) = wanted.find(&bytes) {
                    return Ok(Some(RemoteAddr(at).plus(i as u64)));
                }
                at += len;
            }
        }
    }
    Ok(None)
}

/// What of a mapping is to be searched.
fn ranges(
    process: &Process,
    own: &[Range<u64>],
    mapping: &Mapping,
    place: Where<'_>,
    deadline: Instant,
) -> Vec<Range<u64>> {
    let mut start = mapping.start;
    match place {
        Where::Writable(_) if !mapping.write => return Vec::new(),
        Where::Writable(None) => {}
        Where::Writable(Some(_)) if mapping.name == "[stack]" => return Vec::new(),
        Where::Writable(Some(stacks)) => {
            // The C libraries keep a thread's descriptor at the top of its stack.
            let inside = |tp: &&u64| mapping.name.is_empty() && mapping.contains(**tp);
            start = stacks.iter().filter(inside).max().map_or(start, |tp| tp & !7);
        }
        // What the kernel wrote, and files that others share as they are.
        Where::Everything if mapping.name.starts_with("[v") || mapping.shared && !mapping.write => return Vec::new(),
        Where::Everything => {}
    }
    let file = mapping.inode != 0;
    // Of a private mapping only the pages that are there can hold anything, of a file's only those that differ from it.
    let pick = !mapping.shared && (file && !mapping.write || mapping.end - mapping.start > LARGE);
    let found = pick.then(|| process.resident(start..mapping.end, file, deadline)).flatten();
    // The kernel may have made one mapping of a patch's data and its neighbour.
    let whole = start..mapping.end;
    own.iter().fold(found.unwrap_or_else(|| Vec::from([whole])), |all, area| {
        let apart = |r: Range<u64>| [r.start..r.end.min(area.start), r.start.max(area.end)..r.end];
        all.into_iter().flat_map(apart).filter(|r| r.start < r.end).collect()
    })
}

/// Proves that the kernel keeps no address in `areas` for the program: no signal handler, no value of a timer or of epoll.
pub fn kernel(process: &Process, areas: &[Range<u64>], limits: &Limits) -> Result<()> {
    let inside = |value: u64| areas.iter().any(|a| a.contains(&value));
    let held = |what: String| {
        Error::busy(
            format!("the kernel keeps an address in the patch's memory for the program: {what}"),
            "nothing was changed; the memory does no harm, purge it another time",
        )
    };
    if let Some((what, _)) = process.kept_words()?.into_iter().find(|(_, value)| inside(*value)) {
        return Err(held(what));
    }
    let signals = process.caught_signals()?;
    let Some(near) = areas.first().filter(|_| !signals.is_empty()) else { return Ok(()) };
    // The process has to be asked for its handlers, and needs a place for the answers.
    let room = process.page();
    let (near, anywhere) = ((RemoteAddr(near.start), RemoteAddr(near.end)), u64::MAX >> 1);
    let wish = Wish { near, code: near, size: room, reach: anywhere, code_reach: anywhere, below: None };
    let place = process.maps()?.find_gap(&wish)?;
    let handlers = borrow(process, limits, |remote| {
        remote.map(place, room, Protection::ReadWrite)?;
        let handlers: std::result::Result<Vec<_>, _> =
            signals.iter().map(|signal| Ok((*signal, remote.handler(*signal, place)?))).collect();
        remote.unmap(place, room)?;
        handlers
    })?;
    match handlers.into_iter().find(|(_, handler)| inside(handler.0)) {
        Some((signal, handler)) => Err(held(format!("{handler} handles signal {signal}"))),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pointers_are_found_wherever_and_however_they_stand() {
        let areas = [0x5000..0x6000, 0x9000..0xa000];
        let wanted = |guard| Wanted { areas: &areas, low: 0x5000, high: 0xa000, guard, keep: !(0x7f << 48) };
        let guard = 0x1234_5678_9abc_de00;
        let place = |value: u64, at: usize| {
            let mut bytes = vec![0u8; 64];
            bytes[at..at + 8].copy_from_slice(&value.to_le_bytes());
            bytes
        };
        let disguised = |value: u64| (value ^ guard).rotate_left(17);
        for (value, at, guarded, found) in [
            (0x5000, 16, false, Some(16)),
            (0x5fff, 13, false, Some(13)),
            (0x5fff | 0x3a << 48, 16, false, Some(16)),
            (0x6000, 16, false, None),
            (0x9123, 56, false, Some(56)),
            (0x8fff, 16, false, None),
            (disguised(0x5010), 24, true, Some(24)),
            (disguised(0x5010), 24, false, None),
            (disguised(0x6010), 24, true, None),
        ] {
            let wanted = wanted(guarded.then_some((guard, 17)));
            assert_eq!(wanted.find(&place(value, at)), found, "{value:#x} at {at}");
        }
    }
}
