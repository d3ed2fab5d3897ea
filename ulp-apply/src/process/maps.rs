// SPDX-License-Identifier: GPL-2.0-or-later
//! `/proc/PID/maps` as values, and the search for free address space. Lines that cannot be parsed make the whole
//! map an error: half a map would make a taken range look free.

use super::error::Error;
use super::sys;
use ulp_arch::RemoteAddr;

/// One mapping.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Mapping {
    pub start: u64,
    pub end: u64,
    pub read: bool,
    pub write: bool,
    pub exec: bool,
    /// `MAP_SHARED`.
    pub shared: bool,
    /// Offset of `start` in the file.
    pub offset: u64,
    /// Device as the kernel prints it, and inode: together the file's identity. Inode 0: no file.
    pub device: String,
    pub inode: u64,
    /// Path, or `[stack]` and the like; for people, and to recognise the kernel's own mappings.
    pub name: String,
}

impl Mapping {
    /// Whether the address lies inside.
    pub fn contains(&self, addr: u64) -> bool {
        self.start <= addr && addr < self.end
    }

    fn parse(line: &str) -> Option<Self> {
        let (range, rest) = line.split_once(' ')?;
        let (perms, rest) = rest.split_once(' ')?;
        let (offset, rest) = rest.split_once(' ')?;
        let (device, rest) = rest.split_once(' ')?;
        let (inode, name) = rest.split_once(' ').unwrap_or((rest, ""));
        let (start, end) = range.split_once('-')?;
        let mut perms = perms.bytes();
        let mut next = |set: u8| Some(perms.next()? == set);
        Some(Self {
            start: u64::from_str_radix(start, 16).ok()?,
            end: u64::from_str_radix(end, 16).ok()?,
            read: next(b'r')?,
            write: next(b'w')?,
            exec: next(b'x')?,
            shared: next(b's')?,
            offset: u64::from_str_radix(offset, 16).ok()?,
            device: device.to_owned(),
            inode: inode.trim().parse().ok()?,
            name: name.trim_start().to_owned(),
        })
    }
}

/// All mappings of a process, sorted by address.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Maps {
    list: Vec<Mapping>,
    /// Where the heap begins to grow upwards, where known.
    pub(crate) start_brk: u64,
    /// Lowest address a mapping may have.
    pub(crate) min_addr: u64,
}

/// What kind of place is looked for.
#[derive(Clone, Debug)]
pub struct Wish {
    /// What the area must reach and be reached from: first and one past the last byte.
    pub near: (RemoteAddr, RemoteAddr),
    /// The part of it that is code.
    pub code: (RemoteAddr, RemoteAddr),
    /// Bytes needed; rounded up to pages.
    pub size: u64,
    /// Greatest distance between any byte of `near` and any byte of the area ([`ulp_arch::Arch::data_reach`]).
    pub reach: u64,
    /// Greatest distance between any byte of `code` and any byte of the area ([`ulp_arch::Arch::reach`]).
    pub code_reach: u64,
    /// The area must end at or below this address (absolute 32-bit relocations of a fixed-address executable).
    pub below: Option<RemoteAddr>,
}

/// Free bytes kept on either side of an area, where there is room for them.
const GUARD: u64 = 64 * 1024;
/// Distances are kept this much shorter than the hardware's reach, for addends.
const MARGIN: u64 = 64 * 1024;
/// The stack may grow down to its limit; this much below it is never used, whatever the limit is now.
const STACK_ROOM: u64 = 1 << 30;
/// More than any heap will grow by; the rest of a gap above a heap may be used.
const HEAP_ROOM: u64 = 1 << 40;

impl Maps {
    /// Parses the text of a maps file.
    pub fn parse(text: &str) -> Option<Self> {
        let list: Option<Vec<_>> = text.lines().map(Mapping::parse).collect();
        let list = list?;
        let sorted = list.iter().zip(list.iter().skip(1)).all(|(a, b)| a.end <= b.start);
        let sane = list.iter().all(|m| m.start < m.end);
        (sorted && sane).then_some(Self { list, start_brk: 0, min_addr: 65536 })
    }

    /// The mappings, lowest first.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = &Mapping> {
        self.list.iter()
    }

    /// The mapping that holds `addr`.
    pub fn at(&self, addr: u64) -> Option<&Mapping> {
        let index = self.list.partition_point(|m| m.end <= addr);
        self.list.get(index).filter(|m| m.contains(addr))
    }

    /// Counts a free range as taken from now on, so that the next search finds another.
    pub fn take(&mut self, start: RemoteAddr, size: u64) {
        let end = start.0.saturating_add(size.next_multiple_of(sys::page()));
        let taken = Mapping { start: start.0, end, ..Mapping::default() };
        let index = self.list.partition_point(|m| m.start < start.0);
        self.list.insert(index, taken);
    }

    /// Whether every byte of the range is mapped with the given property.
    pub fn covers(&self, start: u64, end: u64, wanted: impl Fn(&Mapping) -> bool) -> bool {
        let mut at = start;
        while at < end {
            match self.at(at) {
                Some(m) if wanted(m) => at = m.end,
                _ => return false,
            }
        }
        true
    }

    /// Free ranges which may be used without getting in the way of a growing heap or stack.
    fn gaps(&self) -> Vec<(u64, u64)> {
        let page = sys::page();
        let heap = self.iter().filter(|m| m.name == "[heap]").map(|m| m.end).max();
        let heap_end = heap.unwrap_or(self.start_brk);
        let mut gaps = Vec::new();
        let mut add = |from: u64, to: u64| {
            let (from, to) = (from.saturating_add(page), to.saturating_sub(page));
            if from < to {
                gaps.push((from, to));
            }
        };
        let mut free_from = self.min_addr;
        for m in self.iter() {
            let (mut from, mut to) = (free_from, m.start);
            free_from = m.end;
            if m.name == "[stack]" {
                to = to.saturating_sub(STACK_ROOM);
            }
            // The heap grows upwards through the gap above its end.
            if heap_end != 0 && from <= heap_end && heap_end <= m.start {
                if heap.is_none() {
                    add(from, to.min(heap_end));
                }
                from = heap_end.saturating_add(HEAP_ROOM);
            }
            add(from, to);
        }
        gaps
    }

    /// Finds free address space: directly below `near` where that is possible, else as near as possible.
    pub fn find_gap(&self, wish: &Wish) -> Result<RemoteAddr, Error> {
        let (lo, hi) = (wish.near.0.0, wish.near.1.0);
        let refused = Error::NoRoom { size: wish.size, near: wish.near.0 };
        let page = sys::page();
        let Some(size) = wish.size.checked_next_multiple_of(page).filter(|s| *s > 0) else { return Err(refused) };
        let (reach, code_reach) = (wish.reach.saturating_sub(MARGIN), wish.code_reach.saturating_sub(MARGIN));
        // area_end - lo <= reach and hi - area_start <= reach, and likewise for the code
        let lowest = hi.saturating_sub(reach).max(wish.code.1.0.saturating_sub(code_reach));
        let highest = lo.saturating_add(reach).min(wish.code.0.0.saturating_add(code_reach));
        let highest = highest.min(wish.below.map_or(u64::MAX, |a| a.0));
        let mut best: Option<(bool, u64, u64)> = None;
        for (from, to) in self.gaps() {
            let (from, to) = (from.max(lowest).next_multiple_of(page), to.min(highest) / page * page);
            if to.checked_sub(from).is_none_or(|room| room < size) {
                continue;
            }
            // Keep a guard towards our neighbours, as far as the gap allows.
            let slack = (to - from - size) / 2;
            let guard = GUARD.min(slack / page * page);
            let above = from >= hi;
            let start = if above { from + guard } else { to - guard - size };
            let distance = if above { start - hi } else { lo.saturating_sub(start) };
            let candidate = (above, distance, start);
            if best.is_none_or(|b| candidate < b) {
                best = Some(candidate);
            }
        }
        best.map(|(_, _, start)| RemoteAddr(start)).ok_or(refused)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PIE: &str = "\
555555554000-555555555000 r--p 00000000 08:01 42 /usr/bin/with space (deleted)
555555555000-555555556000 r-xp 00001000 08:01 42 /usr/bin/with space (deleted)
555555570000-555555591000 rw-p 00000000 00:00 0 [heap]
7ffff7c00000-7ffff7c28000 r--p 00000000 08:01 43                         /lib/libc.so.6
7ffff7c28000-7ffff7dbd000 r-xp 00028000 08:01 43                         /lib/libc.so.6
7ffffffde000-7ffffffff000 rw-p 00000000 00:00 0                          [stack]
";

    fn maps(text: &str) -> Maps {
        Maps::parse(text).expect("the text is a map")
    }

    fn wish(lo: u64, hi: u64, size: u64) -> Wish {
        let near = (RemoteAddr(lo), RemoteAddr(hi));
        Wish { near, code: near, size, reach: 1 << 31, code_reach: 1 << 31, below: None }
    }

    #[test]
    fn a_jump_reaches_less_far_than_data() {
        // 64 MiB of code, then 256 MiB of data, and a neighbour 16 MiB below.
        let text = "10000000-2f000000 rw-p 00000000 00:00 0 \n30000000-34000000 r-xp 00000000 08:01 42 /x\n\
                    34000000-44000000 rw-p 00000000 08:01 42 /x\n7ffffffde000-7ffffffff000 rw-p 00000000 00:00 0 [stack]\n";
        let wide = wish(0x3000_0000, 0x4400_0000, 0x3000);
        let wish =
            Wish { code: (RemoteAddr(0x3000_0000), RemoteAddr(0x3400_0000)), code_reach: 1 << 27, ..wide.clone() };
        let at = maps(text).find_gap(&wish).expect("room");
        assert!(0x2f00_0000 <= at.0 && at.0 + 0x3000 <= 0x3000_0000, "{at}");
        // The whole of it is out of one jump's reach from everywhere.
        assert!(maps(text).find_gap(&Wish { code: wide.near, ..wish.clone() }).is_err());
        // And so is the code alone, once it is too long.
        assert!(maps(text).find_gap(&Wish { code_reach: 0x400_0000, ..wish }).is_err());
    }

    #[test]
    fn fields_are_read() {
        let maps = maps(PIE);
        let text = maps.at(0x5555_5555_5fff).expect("text");
        assert!(text.read && text.exec && !text.write && !text.shared);
        assert_eq!((text.offset, text.inode), (0x1000, 42));
        assert_eq!(text.name, "/usr/bin/with space (deleted)");
        assert!(maps.at(0x5555_5555_6000).is_none());
        assert_eq!(maps.at(0x7fff_f7c2_8000).map(|m| m.exec), Some(true));
    }

    #[test]
    fn nonsense_is_no_map() {
        for text in [
            "hello",
            "1000-zz r--p 0 0:0 0",
            "2000-1000 r--p 0 0:0 0 ",
            "1000-3000 r--p 0 0:0 0 \n2000-4000 r--p 0 0:0 0 ",
        ] {
            assert_eq!(Maps::parse(text), None, "{text}");
        }
    }

    #[test]
    fn a_pie_gets_room_below_itself() {
        let at = maps(PIE).find_gap(&wish(0x5555_5555_4000, 0x5555_5555_6000, 0x5000)).expect("room");
        assert!(at.0 + 0x5000 <= 0x5555_5555_4000 - GUARD, "{at}");
        assert!(0x5555_5555_6000 - at.0 < 1 << 31);
    }

    #[test]
    fn a_library_gets_room_near_itself() {
        let at = maps(PIE).find_gap(&wish(0x7fff_f7c0_0000, 0x7fff_f7db_d000, 0x5000)).expect("room");
        assert!(at.0 + 0x5000 <= 0x7fff_f7c0_0000 && 0x7fff_f7db_d000 - at.0 < 1 << 31, "{at}");
    }

    #[test]
    fn a_fixed_executable_gets_low_room() {
        let fixed = "400000-401000 r-xp 00000000 08:01 42 /x\n1c00000-1c21000 rw-p 00000000 00:00 0 [heap]\n\
                     7ffffffde000-7ffffffff000 rw-p 00000000 00:00 0 [stack]\n";
        let near = Wish { below: Some(RemoteAddr(1 << 31)), ..wish(0x40_0000, 0x40_1000, 0x3000) };
        let at = maps(fixed).find_gap(&near).expect("room");
        assert!(at.0 >= 65536 && at.0 + 0x3000 <= 0x40_0000, "{at}");
        // Nothing above the heap's end, however much is free there.
        let big = Wish { size: 0x500_0000, ..near };
        assert!(maps(fixed).find_gap(&big).is_err());
    }

    #[test]
    fn the_heap_that_has_not_begun_keeps_its_room() {
        let mut young =
            maps("400000-401000 r-xp 00000000 08:01 42 /x\n7ffffffde000-7ffffffff000 rw-p 00000000 00:00 0 [stack]\n");
        young.start_brk = 0x60_0000;
        let at = young.find_gap(&wish(0x40_0000, 0x40_1000, 0x3f_0000)).map(|a| a.0);
        assert!(at.is_err(), "{at:?}");
        let at = young.find_gap(&wish(0x40_0000, 0x40_1000, 0x10_0000)).expect("room");
        assert!(at.0 + 0x10_0000 <= 0x60_0000, "{at}");
    }

    #[test]
    fn a_taken_place_is_not_found_again() {
        let mut maps = maps(PIE);
        let wish = wish(0x5555_5555_4000, 0x5555_5555_6000, 0x5000);
        let first = maps.find_gap(&wish).expect("room");
        maps.take(first, wish.size);
        let second = maps.find_gap(&wish).expect("room");
        assert!(second.0 + wish.size <= first.0 || first.0 + wish.size <= second.0, "{first} {second}");
    }

    #[test]
    fn the_stack_keeps_its_room() {
        let only = "7fff00000000-7fff00001000 r-xp 00000000 08:01 42 /x\n7fff20000000-7fff20021000 rw-p 00000000 00:00 0 [stack]\n";
        let mut maps = maps(only);
        maps.min_addr = 0x7fff_0000_0000;
        assert!(maps.find_gap(&wish(0x7fff_0000_0000, 0x7fff_0000_1000, 0x1000)).is_err());
    }
}
