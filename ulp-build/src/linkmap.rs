// SPDX-License-Identifier: GPL-2.0-or-later
//! Reads the map that GNU ld writes under `-Map`: which input section of which object was placed at which address.
//! It is the only record of this; a symbol table cannot tell two statics of the same name apart, and the order of its
//! file symbols is not the order of the link. Maps of other linkers have another shape and are refused.

use std::collections::{BTreeMap, BTreeSet};
use ulp_arch::LinkAddr;

/// A link map, by object and section name.
#[derive(Clone, Debug, Default)]
pub struct LinkMap {
    /// Object name to section name to what was placed, in the map's order.
    placed: BTreeMap<String, BTreeMap<String, Vec<Extent>>>,
    /// Input sections that were thrown away: unused ones, and members of COMDAT groups which another object won.
    dropped: BTreeMap<String, BTreeMap<String, usize>>,
    /// Alignment padding the linker put between input sections.
    fills: Vec<Extent>,
    /// Addresses of all symbols that are global within the link, hidden ones too.
    globals: BTreeSet<LinkAddr>,
}

/// Where something stands in the output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Extent {
    pub addr: LinkAddr,
    pub size: u64,
}

/// What became of one input section.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    Placed(Extent),
    Dropped,
    /// The map does not tell, or tells it for several sections at once.
    Unknown,
}

/// Why a text is not a link map.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MapError {
    #[error("this is not a link map of GNU ld (no line \"{}\")", HEADING)]
    NoHeading,
    #[error("the link map places nothing")]
    Empty,
}

const HEADING: &str = "Linker script and memory map";
const DROPPED: &str = "Discarded input sections";
const END: &str = "Cross Reference Table";

impl LinkMap {
    pub fn parse(text: &str) -> Result<Self, MapError> {
        let mut map = Self::default();
        let mut part = Part::Before;
        // A long section name stands on a line of its own, its place on the next.
        let mut pending: Option<&str> = None;
        for line in text.lines() {
            match line.trim_end() {
                DROPPED => part = Part::Dropped,
                HEADING => part = Part::Map,
                END if part == Part::Map => break,
                "" => pending = None,
                line if part != Part::Before => map.line(part, line, &mut pending),
                _ => {}
            }
        }
        match part {
            Part::Map if map.placed.is_empty() => Err(MapError::Empty),
            Part::Map => Ok(map),
            _ => Err(MapError::NoHeading),
        }
    }

    fn line<'t>(&mut self, part: Part, line: &'t str, pending: &mut Option<&'t str>) {
        let carried = pending.take();
        let Some(rest) = line.strip_prefix(' ') else { return };
        if !rest.starts_with(' ') {
            // ` name  0xaddr  0xsize object`, or ` name` alone.
            let (name, rest) = match rest.split_once(' ') {
                Some((name, rest)) => (name, rest.trim_start()),
                None => (rest, ""),
            };
            if rest.is_empty() {
                *pending = Some(name);
            } else if let Some((extent, object)) = place(rest) {
                self.record(part, name, extent, object);
            }
        } else if let (Some(name), Some((extent, object))) = (carried, place(rest.trim_start())) {
            self.record(part, name, extent, object);
        } else if part == Part::Map {
            // `                0xaddr                name`
            let mut words = rest.split_whitespace();
            let (addr, name) = (words.next().and_then(hex), words.next());
            if let (Some(addr), Some(name)) = (addr, name)
                && hex(name).is_none()
            {
                self.globals.insert(LinkAddr(addr));
            }
        }
    }

    fn record(&mut self, part: Part, section: &str, extent: Extent, object: &str) {
        if section == "*fill*" {
            if part == Part::Map {
                self.fills.push(extent);
            }
            return;
        }
        if object.is_empty() {
            return;
        }
        match part {
            Part::Map => {
                self.placed.entry(object.to_owned()).or_default().entry(section.to_owned()).or_default().push(extent)
            }
            _ => {
                let sections = self.dropped.entry(object.to_owned()).or_default();
                *sections.entry(section.to_owned()).or_default() += 1;
            }
        }
    }

    /// Whether anything of this object went into the output.
    pub fn has_object(&self, object: &str) -> bool {
        self.placed.contains_key(object)
    }

    /// What became of the `nth` of `sizes.len()` sections called `section` in `object`. Sections of one name are told
    /// apart only when all of them were placed, in the object's order and size.
    pub fn fate(&self, object: &str, section: &str, sizes: &[u64], nth: usize) -> Fate {
        let empty = Vec::new();
        let placed = self.placed.get(object).and_then(|s| s.get(section)).unwrap_or(&empty);
        let dropped = self.dropped.get(object).and_then(|s| s.get(section)).copied().unwrap_or(0);
        if placed.is_empty() {
            return if dropped >= sizes.len() && dropped > 0 { Fate::Dropped } else { Fate::Unknown };
        }
        let agree = dropped == 0 && placed.len() == sizes.len() && placed.iter().zip(sizes).all(|(p, s)| p.size == *s);
        match placed.get(nth) {
            Some(extent) if agree => Fate::Placed(*extent),
            _ => Fate::Unknown,
        }
    }

    /// Where a section of code went that the linker may have shortened: it has at most the object's size. Sections of one name are
    /// told apart likewise.
    pub fn shortened(&self, object: &str, section: &str, sizes: &[u64], nth: usize) -> Option<Extent> {
        let placed = self.placed.get(object)?.get(section)?;
        let dropped = self.dropped.get(object).and_then(|s| s.get(section)).copied().unwrap_or(0);
        let agree = dropped == 0 && placed.len() == sizes.len() && placed.iter().zip(sizes).all(|(p, s)| p.size <= *s);
        placed.get(nth).copied().filter(|_| agree)
    }

    /// Takes the objects of a partial link (`ld -r`) in, whose output went into this one as `object`: each gets the name
    /// `object:inner`. A partial link keeps the names of sections and lays those of one name behind each other.
    pub fn take_in(&mut self, object: &str, partial: &Self) {
        let Some(sections) = self.placed.get(object).cloned() else { return };
        // Where the linker has shortened a section since, what was in it has moved.
        let mut ends: BTreeMap<&str, u64> = BTreeMap::new();
        for (name, extents) in partial.placed.values().flatten() {
            let end = ends.entry(name).or_default();
            extents.iter().for_each(|e| *end = (*end).max(e.addr.0.saturating_add(e.size)));
        }
        for (inner, placed) in &partial.placed {
            let mut moved: BTreeMap<String, Vec<Extent>> = BTreeMap::new();
            for (name, extents) in placed {
                // Several sections of one name, as groups have them, cannot be told apart.
                let Some([whole]) = sections.get(name).map(Vec::as_slice) else { continue };
                if ends.get(name.as_str()).is_some_and(|end| *end <= whole.size) {
                    let places = extents.iter().map(|e| Extent { addr: whole.addr.plus(e.addr.0), size: e.size });
                    moved.insert(name.clone(), places.collect());
                }
            }
            self.placed.insert(inner_name(object, inner), moved);
        }
    }

    /// The same link with every address moved; what has no new place is left out of fills and globals. The places of
    /// sections stay as they are.
    pub fn moved(&self, to: impl Fn(LinkAddr) -> Option<LinkAddr>) -> Self {
        // A fill is known by what stands around it: both neighbours must have moved by the same distance.
        let fill = |f: &Extent| {
            let (before, after) = (to(LinkAddr(f.addr.0.checked_sub(1)?))?, to(f.addr.plus(f.size))?);
            let start = before.plus(1);
            (after == start.plus(f.size)).then_some(Extent { addr: start, size: f.size })
        };
        Self {
            fills: self.fills.iter().filter_map(fill).collect(),
            globals: self.globals.iter().filter_map(|a| to(*a)).collect(),
            ..self.clone()
        }
    }

    /// Whether `addr` is where the link has a symbol that more than one object may see.
    pub fn is_global(&self, addr: LinkAddr) -> bool {
        self.globals.contains(&addr)
    }

    /// How many bytes of alignment padding the linker put at `addr`.
    pub fn fill_at(&self, addr: LinkAddr) -> u64 {
        self.fills.iter().find(|f| f.addr == addr).map_or(0, |f| f.size)
    }
}

/// How an object is called that went in as a part of another one.
pub fn inner_name(object: &str, inner: &str) -> String {
    format!("{object}:{inner}")
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Part {
    Before,
    Dropped,
    Map,
}

/// `0xaddr 0xsize object`: the object's name is the rest of the line, spaces and all.
fn place(text: &str) -> Option<(Extent, &str)> {
    let (addr, rest) = text.split_once(' ')?;
    let rest = rest.trim_start();
    let (size, object) = rest.split_once(' ').unwrap_or((rest, ""));
    Some((Extent { addr: LinkAddr(hex(addr)?), size: hex(size)? }, object.trim()))
}

fn hex(word: &str) -> Option<u64> {
    u64::from_str_radix(word.strip_prefix("0x")?, 16).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MAP: &str = "\
Discarded input sections

 .text          0x0000000000000000        0x0 lib/libb.a(b.o)
 .text.gone_with_a_long_name
                0x0000000000000000        0x6 lib/libb.a(b.o)

Memory Configuration

Name             Origin             Length             Attributes

Linker script and memory map

LOAD a.o
.text           0x0000000000001070      0x1b1
 *(.text.unlikely .text.*_unlikely .text.unlikely.*)
 .text.unlikely.work
                0x0000000000001070        0x6 a.o
 *fill*         0x0000000000001076        0xa 
 .text          0x0000000000001080       0x3f my dir/a.o
                0x0000000000001080                main
                0x0000000000001090                operator new(unsigned long)
 .eh_frame      0x0000000000002060       0x30 a.o
                                         0x2c (size before relaxing)
 .rodata.x      0x0000000000003000        0x8 a.o
 .rodata.x      0x0000000000003008        0x4 a.o
 COMMON         0x0000000000004000        0x8 a.o
                0x0000000000004000                shared
                0x0000000000004008                . = ALIGN (0x8)
OUTPUT(app elf64-x86-64)
";

    fn placed(addr: u64, size: u64) -> Fate {
        Fate::Placed(Extent { addr: LinkAddr(addr), size })
    }

    #[test]
    fn finds_sections() {
        let map = LinkMap::parse(MAP).expect("a map");
        let rows: [(&str, &str, &[u64], usize, Fate); 9] = [
            ("a.o", ".text.unlikely.work", &[6], 0, placed(0x1070, 6)),
            ("my dir/a.o", ".text", &[0x3f], 0, placed(0x1080, 0x3f)),
            ("a.o", ".rodata.x", &[8, 4], 1, placed(0x3008, 4)),
            ("a.o", ".rodata.x", &[4, 8], 1, Fate::Unknown),
            ("a.o", ".rodata.x", &[8], 0, Fate::Unknown),
            ("a.o", ".data", &[8], 0, Fate::Unknown),
            ("lib/libb.a(b.o)", ".text.gone_with_a_long_name", &[6], 0, Fate::Dropped),
            ("lib/libb.a(b.o)", ".text.gone_with_a_long_name", &[6, 6], 0, Fate::Unknown),
            ("c.o", ".text", &[1], 0, Fate::Unknown),
        ];
        for (object, section, sizes, nth, want) in rows {
            assert_eq!(map.fate(object, section, sizes, nth), want, "{object} {section} {nth}");
        }
        assert!(map.has_object("a.o") && !map.has_object("lib/libb.a(b.o)"));
        assert_eq!(map.fill_at(LinkAddr(0x1076)), 10);
        assert_eq!(map.fill_at(LinkAddr(0x1077)), 0);
        for (addr, want) in [(0x1080, true), (0x1090, true), (0x4000, true), (0x1070, false), (0x2060, false)] {
            assert_eq!(map.is_global(LinkAddr(addr)), want, "{addr:#x}");
        }
    }

    #[test]
    fn finds_sections_that_became_shorter() {
        let map = LinkMap::parse(MAP).expect("a map");
        let at = |addr, size| Some(Extent { addr: LinkAddr(addr), size });
        type Row<'r> = (&'r str, &'r str, &'r [u64], usize, Option<Extent>);
        let rows: [Row<'_>; 6] = [
            ("my dir/a.o", ".text", &[0x50], 0, at(0x1080, 0x3f)),
            ("my dir/a.o", ".text", &[0x3f], 0, at(0x1080, 0x3f)),
            ("my dir/a.o", ".text", &[0x30], 0, None),
            ("a.o", ".rodata.x", &[8, 6], 1, at(0x3008, 4)),
            ("a.o", ".rodata.x", &[8], 0, None),
            ("lib/libb.a(b.o)", ".text.gone_with_a_long_name", &[6], 0, None),
        ];
        for (object, section, sizes, nth, want) in rows {
            assert_eq!(map.shortened(object, section, sizes, nth), want, "{object} {section} {sizes:?}");
        }
    }

    #[test]
    fn what_a_partial_link_laid_out_is_lost_where_it_became_shorter() {
        let partial = |sizes: [u64; 2]| {
            let text = format!(
                "Linker script and memory map\n\n .text  0x0  {:#x} one.o\n .text  {:#x}  {:#x} two.o\n",
                sizes[0], sizes[0], sizes[1]
            );
            LinkMap::parse(&text).expect("a map")
        };
        for (sizes, taken) in [([0x30, 0xf], true), ([0x30, 0x10], false)] {
            let mut map = LinkMap::parse(MAP).expect("a map");
            map.take_in("my dir/a.o", &partial(sizes));
            // The first one too: nobody knows whether the bytes are gone from it or from the second.
            let fates = [("one.o", 0), ("two.o", 1)]
                .map(|(inner, i)| map.fate(&inner_name("my dir/a.o", inner), ".text", &[sizes[i]], 0) != Fate::Unknown);
            assert_eq!(fates, [taken; 2], "{sizes:x?}");
        }
    }

    #[test]
    fn refuses_other_texts() {
        for text in ["", "VMA LMA Size Align Out In Symbol\n", "Discarded input sections\n .text 0x0 0x0 a.o\n"] {
            assert_eq!(LinkMap::parse(text).unwrap_err(), MapError::NoHeading, "{text:?}");
        }
        assert_eq!(LinkMap::parse("Linker script and memory map\n").unwrap_err(), MapError::Empty);
    }
}
