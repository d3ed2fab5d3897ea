// SPDX-License-Identifier: GPL-2.0-or-later
//! The third grade of identity: production is another link of the same objects. Which object went where in it is found out
//! and proved, piece by piece and function by function, from the production file's own bytes: code is found by its content,
//! and everything else by what proved code refers to. Two sources that disagree about an address make it unusable.
//!
//! A piece is an input section of the link. The rebuilt file's link map says where it stands there; the outcome says where
//! it stands in production. Relocated fields are no part of the content: they are read back, in both files, and what they
//! mean must correspond.

mod pieces;
mod reading;

use crate::linkmap::LinkMap;
use crate::production::{DynamicSymbol, Elf, MODULE_BASE, Symbol, SymbolKind, TABLE};
use pieces::{Field, Goal, Piece, PieceKind, Pieces};
use rayon::prelude::*;
use reading::{Part, Reading};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use ulp_arch::{Arch, Formula, LinkAddr};

/// Where the pieces of the rebuilt file are in production, and how that is known.
#[derive(Clone, Debug)]
pub struct Proof {
    pieces: Pieces,
    outcomes: Vec<Outcome>,
    /// Functions, by start in the rebuilt file.
    functions: BTreeMap<LinkAddr, Verdict>,
}

/// What became of a piece.
#[derive(Clone, Debug, Default)]
struct Outcome {
    /// Where production has it.
    base: Option<LinkAddr>,
    /// Its code was found by content, and nowhere else.
    by_content: bool,
    /// Places of proved code and data that lead to it.
    read_back: usize,
    /// Why it has no base.
    why: Option<String>,
}

/// What became of a function.
#[derive(Clone, Debug)]
struct Verdict {
    size: u64,
    proved: Result<(), Doubt>,
}

/// Why a function is not proved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Doubt {
    /// A sentence without its end.
    pub why: String,
    /// Where production has it, and the first byte that is another, where it was found at all.
    pub at: Option<(LinkAddr, u64)>,
}

impl Doubt {
    fn new(why: impl Into<String>) -> Self {
        Self { why: why.into(), at: None }
    }
}

/// How an address was found, for the manifest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Evidence {
    pub by_content: bool,
    pub read_back: usize,
}

impl std::fmt::Display for Evidence {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (self.by_content, self.read_back) {
            (true, 0) => f.write_str("found by its content"),
            (true, n) => write!(f, "found by its content, and {n} places of production lead to it"),
            (false, n) => write!(f, "{n} places of production lead to it"),
        }
    }
}

/// How much was proved.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Share {
    pub proved: usize,
    pub functions: usize,
}

impl Proof {
    /// Compares the two files. `objects` are copies of what was linked, by the names that the link map has for them.
    pub fn of(
        arch: &'static dyn Arch,
        rebuilt: &Elf,
        production: &Elf,
        map: &LinkMap,
        objects: &BTreeMap<String, PathBuf>,
    ) -> Self {
        let pieces = Pieces::of(arch, rebuilt, map, objects);
        let mut search = Search { arch, rebuilt, production, pieces: &pieces, outcomes: Vec::new(), read: Vec::new() };
        search.by_content();
        search.by_export();
        search.by_reference();
        search.overlaps();
        let functions = search.verdicts();
        let outcomes = search.outcomes;
        Self { pieces, outcomes, functions }
    }

    /// How many functions were proved.
    pub fn share(&self) -> Share {
        let proved = self.functions.values().filter(|f| f.proved.is_ok()).count();
        Share { proved, functions: self.functions.len() }
    }

    /// Where production has what the rebuilt file has at `addr`.
    pub fn place(&self, addr: LinkAddr, thread: bool) -> Result<LinkAddr, Doubt> {
        let doubt = || Doubt::new("it belongs to no object of the build, so that it cannot be proved");
        let index = self.pieces.holding(addr, thread).ok_or_else(doubt)?;
        let (piece, outcome) = (&self.pieces.all[index], &self.outcomes[index]);
        let offset = addr.0 - piece.at.addr.0;
        let Some(base) = outcome.base else {
            let why = outcome.why.as_deref().unwrap_or("nothing that was proved refers to it");
            return Err(Doubt::new(format!("{} could not be found in production: {why}", piece.label())));
        };
        if piece.kind == PieceKind::Code {
            let holding = self.functions.range(..=addr).next_back().filter(|(start, v)| addr.0 - start.0 < v.size);
            let (_, verdict) = holding.ok_or_else(|| Doubt::new("no function with a size holds it"))?;
            verdict.proved.clone()?;
        }
        Ok(base.plus(offset))
    }

    /// Where the function that begins at `addr` was found to be other code, or whether it was proved.
    pub fn function(&self, addr: LinkAddr) -> Option<Result<(), &Doubt>> {
        self.functions.get(&addr).map(|f| match &f.proved {
            Ok(()) => Ok(()),
            Err(doubt) => Err(doubt),
        })
    }

    pub fn evidence(&self, addr: LinkAddr, thread: bool) -> Option<Evidence> {
        let outcome = &self.outcomes[self.pieces.holding(addr, thread)?];
        Some(Evidence { by_content: outcome.by_content, read_back: outcome.read_back })
    }

    /// Likewise, by an address of production.
    pub fn evidence_at(&self, addr: LinkAddr) -> Option<Evidence> {
        let holds = |(piece, outcome): &(&Piece, &Outcome)| {
            outcome.base.is_some_and(|base| base <= addr && addr.0 - base.0 < piece.at.size) && !piece.thread
        };
        let (_, outcome) = self.pieces.all.iter().zip(&self.outcomes).find(holds)?;
        Some(Evidence { by_content: outcome.by_content, read_back: outcome.read_back })
    }

    /// The rebuilt file's symbols where production has them, and those that were not proved, with the reason.
    pub fn symbols(&self, rebuilt: &Elf, production: &Elf) -> (Vec<Symbol>, BTreeMap<String, String>) {
        let (mut moved, mut unproved) = (Vec::new(), BTreeMap::new());
        for symbol in &rebuilt.symbols {
            let thread = symbol.kind == SymbolKind::Tls;
            let start = if thread { rebuilt.tls.map_or(0, |t| t.addr.0) } else { 0 };
            match self.place(LinkAddr(start.wrapping_add(symbol.addr.0)), thread) {
                Ok(addr) => {
                    let start = if thread { production.tls.map_or(0, |t| t.addr.0) } else { 0 };
                    moved.push(Symbol { addr: LinkAddr(addr.0.wrapping_sub(start)), ..symbol.clone() });
                }
                Err(doubt) => {
                    unproved.entry(symbol.name.clone()).or_insert(doubt.why);
                }
            }
        }
        (moved, unproved)
    }
}

struct Search<'a> {
    arch: &'static dyn Arch,
    rebuilt: &'a Elf,
    production: &'a Elf,
    pieces: &'a Pieces,
    outcomes: Vec<Outcome>,
    /// Pieces whose fields were read.
    read: Vec<bool>,
}

/// Where a field leads, in both files: a piece, an offset in it, and the address in production.
struct Lead {
    piece: usize,
    offset: u64,
    addr: LinkAddr,
}

/// What was found out about a piece: its functions, what its functions and data dispute, and what they confirm.
struct Judgement {
    functions: Vec<(LinkAddr, Verdict)>,
    disputed: Vec<usize>,
    led: Vec<usize>,
}

/// Shorter runs of code are found in too many places.
const RUN: usize = 12;

/// Functions of a piece that are searched for.
const SAMPLES: usize = 6;

impl Search<'_> {
    /// Finds code whose bytes stand at one place of production only.
    fn by_content(&mut self) {
        let code: Vec<(LinkAddr, &[u8])> = (self.production.sections.iter())
            .filter(|s| s.executable)
            .filter_map(|s| Some((s.addr, self.production.bytes(s.addr, s.size)?)))
            .collect();
        let this = &*self;
        self.outcomes = this.pieces.all.par_iter().map(|piece| this.search(piece, &code)).collect();
        self.read = vec![false; self.outcomes.len()];
    }

    fn search(&self, piece: &Piece, code: &[(LinkAddr, &[u8])]) -> Outcome {
        if piece.kind != PieceKind::Code {
            return Outcome::default();
        }
        let mut largest: Vec<_> = piece.functions.iter().collect();
        largest.sort_by_key(|f| std::cmp::Reverse(f.size));
        let mut bases = BTreeSet::new();
        for function in largest.iter().take(SAMPLES) {
            let Some(bytes) = self.rebuilt.bytes(piece.at.addr.plus(function.offset), function.size) else { continue };
            let mask = piece.mask(self.arch, function.offset, bytes);
            let Some(run) = longest_run(&mask).filter(|r| r.len() >= RUN) else { continue };
            let Some(needle) = bytes.get(run.clone()) else { continue };
            let mut found = BTreeSet::new();
            for (start, haystack) in code {
                for at in memchr::memmem::find_iter(haystack, needle) {
                    let Some(entry) = at.checked_sub(run.start) else { continue };
                    let same = haystack
                        .get(entry..entry + bytes.len())
                        .is_some_and(|other| first_difference(bytes, other, &mask).is_none());
                    let base = (start.0 + entry as u64).checked_sub(function.offset);
                    // Instructions that a linker has moved away are looked at where that is all that differs.
                    let same = same
                        || base.is_some_and(|base| {
                            self.code_difference(piece, LinkAddr(base), function.offset, function.size).is_none()
                        });
                    if let Some(base) = base.filter(|b| same && b % piece.align == 0) {
                        found.insert(LinkAddr(base));
                    }
                }
            }
            // What stands in several places says nothing; others of its piece may.
            if let [only] = *found.iter().copied().collect::<Vec<_>>() {
                bases.insert(only);
            }
        }
        match bases.iter().copied().collect::<Vec<_>>()[..] {
            [] => Outcome::default(),
            [only] => Outcome { base: Some(only), by_content: true, ..Outcome::default() },
            _ => {
                let why = "its functions stand at other distances from each other there".to_owned();
                Outcome { why: Some(why), ..Outcome::default() }
            }
        }
    }

    /// What both files export under one name is one thing: each exported symbol's piece, and the place that it gives it.
    fn exports(&self) -> Vec<(usize, LinkAddr)> {
        let key = |s: &DynamicSymbol| (s.name.clone(), s.version.clone());
        let defined = |s: &&DynamicSymbol| s.defined && s.kind != SymbolKind::Tls;
        let theirs: BTreeMap<_, LinkAddr> =
            self.production.dynamic.iter().filter(defined).map(|s| (key(s), s.addr)).collect();
        let lead = |s: &DynamicSymbol| {
            let index = self.pieces.holding(s.addr, false)?;
            let offset = s.addr.0 - self.pieces.all[index].at.addr.0;
            Some((index, LinkAddr(theirs.get(&key(s))?.0.wrapping_sub(offset))))
        };
        self.rebuilt.dynamic.iter().filter(defined).filter_map(lead).collect()
    }

    fn by_export(&mut self) {
        let mut votes: BTreeMap<usize, BTreeSet<LinkAddr>> = BTreeMap::new();
        for (index, base) in self.exports() {
            votes.entry(index).or_default().insert(base);
        }
        self.choose(votes);
    }

    /// Finds what proved code and data lead to, until nothing new is found.
    fn by_reference(&mut self) {
        loop {
            let mut votes: BTreeMap<usize, BTreeSet<LinkAddr>> = BTreeMap::new();
            let fresh: Vec<usize> =
                (0..self.read.len()).filter(|i| !self.read[*i] && self.outcomes[*i].base.is_some()).collect();
            if fresh.is_empty() {
                return;
            }
            let this = &*self;
            let leads: Vec<Lead> = fresh.par_iter().flat_map_iter(|i| this.leads_of(*i)).collect();
            for index in fresh {
                self.read[index] = true;
            }
            for lead in leads {
                if let Some(base) = lead.addr.0.checked_sub(lead.offset) {
                    votes.entry(lead.piece).or_default().insert(LinkAddr(base));
                }
            }
            self.choose(votes);
        }
    }

    /// Gives pieces the place that all votes of this round say, where their content allows it.
    fn choose(&mut self, votes: BTreeMap<usize, BTreeSet<LinkAddr>>) {
        for (index, bases) in votes {
            let outcome = &self.outcomes[index];
            if outcome.base.is_some() || outcome.why.is_some() {
                continue;
            }
            let piece = &self.pieces.all[index];
            let fits: Vec<LinkAddr> =
                bases.iter().copied().filter(|b| b.0.is_multiple_of(piece.align) && self.fits(piece, *b)).collect();
            let outcome = &mut self.outcomes[index];
            match fits[..] {
                [only] => outcome.base = Some(only),
                [] => outcome.why = Some("what is there in production is something else".into()),
                _ => outcome.why = Some("code of production leads to several places that it could be".into()),
            }
        }
    }

    /// Whether production has the piece's content at `base`. Code is judged function by function later.
    fn fits(&self, piece: &Piece, base: LinkAddr) -> bool {
        match piece.kind {
            PieceKind::Zero => {
                self.production.bytes(base, 1).is_none() && self.production.section_of(base).is_some() || piece.thread
            }
            PieceKind::Merged { .. } => false,
            PieceKind::Code => {
                piece.functions.iter().any(|f| self.code_difference(piece, base, f.offset, f.size).is_none())
            }
            PieceKind::Data => self.data_difference(piece, base).is_none(),
        }
    }

    fn code_difference(&self, piece: &Piece, base: LinkAddr, offset: u64, size: u64) -> Option<u64> {
        let content = |elf: &'_ Elf, start: LinkAddr| match piece.kind {
            PieceKind::Code => elf.code(start.plus(offset), size).map(|code| code.into_owned()),
            _ => elf.bytes(start.plus(offset), size).map(<[u8]>::to_vec),
        };
        let Some(ours) = content(self.rebuilt, piece.at.addr) else { return Some(0) };
        let Some(theirs) = content(self.production, base) else { return Some(0) };
        first_difference(&ours, &theirs, &piece.mask(self.arch, offset, &ours))
    }

    fn data_difference(&self, piece: &Piece, base: LinkAddr) -> Option<u64> {
        self.code_difference(piece, base, 0, piece.at.size)
    }

    /// What the fields of a piece lead to: for code, those of its functions that are the same.
    fn leads_of(&self, index: usize) -> Vec<Lead> {
        let piece = &self.pieces.all[index];
        let Some(base) = self.outcomes[index].base else { return Vec::new() };
        let follow = |fields: &[Field]| -> Vec<Lead> {
            fields.iter().filter_map(|f| self.follow(piece, base, f).ok().flatten()).collect()
        };
        match piece.kind {
            PieceKind::Code => (piece.functions.iter())
                .filter(|f| self.code_difference(piece, base, f.offset, f.size).is_none())
                .flat_map(|f| follow(piece.fields_in(f.offset, f.offset + f.size)))
                .collect(),
            PieceKind::Data => follow(&piece.fields),
            PieceKind::Zero | PieceKind::Merged { .. } => Vec::new(),
        }
    }

    /// Reads a field in both files. `None`: it means the same, and leads to no piece.
    fn follow(&self, piece: &Piece, base: LinkAddr, field: &Field) -> Result<Option<Lead>, String> {
        let row = field.row.ok_or("it has a relocation that is not known")?;
        let partner = piece.partner(field).and_then(|p| Some((p.row?, p.offset)));
        let read = |elf, start: LinkAddr| {
            let part = |row, offset| Part { row, place: start.plus(offset) };
            let partner = partner.map(|(row, offset)| part(row, offset));
            reading::read(self.arch, elf, part(row, field.offset), partner, field.addend)
        };
        if field.goal == Goal::Name(TABLE.into()) {
            let part = |start: LinkAddr| Part { row, place: start.plus(field.offset) };
            let ours = reading::takes_table(self.arch, self.rebuilt, part(piece.at.addr));
            let same = ours && reading::takes_table(self.arch, self.production, part(base));
            return if same { Ok(None) } else { Err("it takes another page for that of the table of slots".into()) };
        }
        let unreadable = || format!("what {} stands for cannot be read back", row.name);
        let (ours, theirs) = (read(self.rebuilt, piece.at.addr), read(self.production, base));
        let (ours, theirs) = (ours.ok_or_else(unreadable)?, theirs.ok_or_else(unreadable)?);
        if field.goal == Goal::Name(MODULE_BASE.into()) {
            // A descriptor's call stands for no address of its own.
            let nothing = ours == Reading::Nothing && theirs == Reading::Nothing;
            let same = nothing
                || reading::is_module_base(self.rebuilt, &ours) && reading::is_module_base(self.production, &theirs);
            return if same { Ok(None) } else { Err("it counts thread-local variables from another point".into()) };
        }
        let (ours, theirs, thread) = match (ours, theirs) {
            (Reading::Nothing, Reading::Nothing) => return Ok(None),
            (Reading::Named(a, x), Reading::Named(b, y)) if a == b && x == y => return Ok(None),
            (Reading::Named(a, _), Reading::Named(b, _)) => return Err(format!("it refers to {b} instead of {a}")),
            (Reading::At(a), Reading::At(b)) | (Reading::Through(a), Reading::Through(b)) => (a, b, false),
            (Reading::Thread(a), Reading::Thread(b)) | (Reading::ThroughThread(a), Reading::ThroughThread(b)) => {
                (a, b, true)
            }
            _ => return Err("a reference of it is of another kind".into()),
        };
        let (target, offset) = match &field.goal {
            Goal::Section(section, offset) => {
                let key = (piece.object.clone(), *section);
                let target = self.pieces.by_section.get(&key).copied().ok_or("it refers to a section without place")?;
                (target, *offset)
            }
            Goal::Name(name) => {
                let start = if thread { self.rebuilt.tls.map_or(0, |t| t.addr.0) } else { 0 };
                if !self.rebuilt.named(name).any(|s| s.addr.0.wrapping_add(start) == ours.0) {
                    return Err(format!("where {name} is cannot be told"));
                }
                match self.pieces.holding(ours, thread) {
                    Some(target) => (target, ours.0 - self.pieces.all[target].at.addr.0),
                    // What the linker or the system's start files define.
                    None => return self.outside(name, ours, theirs).map(|()| None),
                }
            }
            Goal::Nothing => return Err("a reference of it has no symbol".into()),
        };
        let there = &self.pieces.all[target];
        if let PieceKind::Merged { size } = there.kind {
            // The linker has moved each constant on its own: with a section for a symbol only the addend tells which.
            let within = match (field.by_section, row.formula) {
                (false, _) => 0,
                (true, Formula::Absolute | Formula::PagePcRelative | Formula::PageOffset | Formula::PcPages(_)) => {
                    field.addend as u64
                }
                (true, _) => return Err("which constant it uses cannot be told".into()),
            };
            let at = |addr: LinkAddr| addr.plus(within);
            return self.same_constant(at(ours), at(theirs), size).map(|()| None);
        }
        if there.at.addr.plus(offset) != ours {
            return Err(format!("where {} is cannot be told", there.label()));
        }
        Ok(Some(Lead { piece: target, offset, addr: theirs }))
    }

    /// A symbol that no object of the build defines: the same only when production exports it there too.
    fn outside(&self, name: &str, ours: LinkAddr, theirs: LinkAddr) -> Result<(), String> {
        let exported = |elf: &Elf, addr: LinkAddr| elf.dynamic.iter().any(|s| s.name == name && s.addr == addr);
        match exported(self.rebuilt, ours) && exported(self.production, theirs) {
            true => Ok(()),
            false => Err(format!("{name}, which it refers to, belongs to no object of the build")),
        }
    }

    fn same_constant(&self, ours: LinkAddr, theirs: LinkAddr, size: u64) -> Result<(), String> {
        let content = |elf: &'_ Elf, addr: LinkAddr| -> Option<Vec<u8>> {
            if size > 0 {
                return elf.bytes(addr, size).map(<[u8]>::to_vec);
            }
            let section = elf.section_of(addr)?;
            let rest = elf.bytes(addr, section.addr.0 + section.size - addr.0)?;
            Some(rest.get(..=rest.iter().position(|b| *b == 0)?)?.to_vec())
        };
        let (a, b) = (content(self.rebuilt, ours), content(self.production, theirs));
        if a.is_some() && a == b {
            return Ok(());
        }
        let show = |c: &Option<Vec<u8>>| match c {
            Some(text) if size == 0 => {
                format!("{:?}", String::from_utf8_lossy(text.strip_suffix(b"\0").unwrap_or(text)))
            }
            Some(bytes) => ulp_format::hex::encode(bytes),
            None => "nothing".into(),
        };
        Err(format!("it uses {} in production and {} here", show(&b), show(&a)))
    }

    /// No byte of production can be two pieces.
    fn overlaps(&mut self) {
        for thread in [false, true] {
            let mut placed: Vec<(LinkAddr, u64, usize)> = (self.pieces.all.iter().enumerate())
                .filter(|(_, p)| p.thread == thread)
                .filter_map(|(i, p)| Some((self.outcomes[i].base?, p.at.size, i)))
                .collect();
            placed.sort_unstable();
            let mut reach: Option<(u64, usize)> = None;
            for (base, size, index) in placed {
                if let Some((end, before)) = reach.filter(|(end, _)| *end > base.0) {
                    for i in [before, index] {
                        let outcome = &mut self.outcomes[i];
                        outcome.base = None;
                        outcome.why = Some("it would share its place with something else".into());
                    }
                    reach = Some((end.max(base.0 + size), index));
                } else {
                    reach = Some((base.0 + size, index));
                }
            }
        }
    }

    /// Judges every function: its bytes, and that every field leads to where the piece it names was found. Where functions
    /// disagree about a place without content, nobody knows who is right, and it has none.
    fn verdicts(&mut self) -> BTreeMap<LinkAddr, Verdict> {
        let exports = self.exports();
        loop {
            let this = &*self;
            let judged: Vec<Judgement> = (0..this.pieces.all.len()).into_par_iter().map(|i| this.judge(i)).collect();
            let mut disputed: BTreeSet<usize> = judged.iter().flat_map(|j| &j.disputed).copied().collect();
            let elsewhere = |(i, base): &&(usize, LinkAddr)| this.outcomes[*i].base.is_some_and(|b| b != *base);
            disputed.extend(exports.iter().filter(elsewhere).map(|(i, _)| *i));
            if disputed.is_empty() {
                for j in &judged {
                    j.led.iter().for_each(|i| self.outcomes[*i].read_back += 1);
                }
                return judged.into_iter().flat_map(|j| j.functions).collect();
            }
            for index in disputed {
                let outcome = &mut self.outcomes[index];
                outcome.base = None;
                outcome.why = Some("two places of production disagree about its address".into());
            }
        }
    }

    /// Why a piece has no place.
    fn lost(&self, piece: usize) -> &str {
        self.outcomes[piece].why.as_deref().unwrap_or("nothing that was proved refers to it")
    }

    fn judge(&self, index: usize) -> Judgement {
        let (mut functions, mut disputed, mut led) = (Vec::new(), Vec::new(), Vec::new());
        let piece = &self.pieces.all[index];
        let base = self.outcomes[index].base;
        let mut check = |fields: &[Field], base: LinkAddr, start: u64| -> Result<(), Doubt> {
            let mut all = Vec::new();
            for field in fields {
                let at = field.offset - start;
                let lead = self.follow(piece, base, field);
                let lead =
                    lead.map_err(|why| Doubt { why: format!("at +{at:#x} {why}"), at: Some((base.plus(start), at)) })?;
                let Some(lead) = lead else { continue };
                let there = &self.pieces.all[lead.piece];
                let Some(target) = self.outcomes[lead.piece].base else {
                    // Data that is not the same makes other code of the same bytes. For the rest, a place that is not
                    // known is no fault of who refers to it; it is no help either.
                    if there.kind == PieceKind::Data {
                        let why = format!("at +{at:#x} it refers to {}, and {}", there.label(), self.lost(lead.piece));
                        return Err(Doubt { why, at: Some((base.plus(start), at)) });
                    }
                    continue;
                };
                if target.plus(lead.offset) != lead.addr {
                    let why = format!("at +{at:#x} it refers to {} instead of {}", lead.addr, there.label());
                    if there.kind == PieceKind::Zero {
                        disputed.push(lead.piece);
                    }
                    return Err(Doubt { why, at: Some((base.plus(start), at)) });
                }
                all.push(lead.piece);
            }
            led.append(&mut all);
            Ok(())
        };
        match (piece.kind, base) {
            (PieceKind::Code, base) => {
                for f in &piece.functions {
                    let proved = match base {
                        None => {
                            let why = self.outcomes[index].why.as_deref();
                            Err(Doubt::new(
                                why.unwrap_or("its code is not in production, or in several places that it could be"),
                            ))
                        }
                        Some(base) => match self.code_difference(piece, base, f.offset, f.size) {
                            Some(at) => {
                                let why = format!("production has other code from +{at:#x} on");
                                Err(Doubt { why, at: Some((base.plus(f.offset), at)) })
                            }
                            None => check(piece.fields_in(f.offset, f.offset + f.size), base, f.offset),
                        },
                    };
                    let verdict = Verdict { size: f.size, proved };
                    functions.push((piece.at.addr.plus(f.offset), verdict));
                }
            }
            // Data that leads elsewhere than it should is no longer the same data.
            (PieceKind::Data, Some(base)) if check(&piece.fields, base, 0).is_err() => disputed.push(index),
            _ => {}
        }
        Judgement { functions, disputed, led }
    }
}

fn longest_run(mask: &[u8]) -> Option<std::ops::Range<usize>> {
    let mut best: Option<std::ops::Range<usize>> = None;
    let mut start = 0;
    for end in 0..=mask.len() {
        if mask.get(end).is_none_or(|bits| *bits != 0) {
            if best.as_ref().is_none_or(|b| end - start > b.len()) {
                best = Some(start..end);
            }
            start = end + 1;
        }
    }
    best.filter(|b| !b.is_empty())
}

fn first_difference(ours: &[u8], theirs: &[u8], mask: &[u8]) -> Option<u64> {
    let other = |(i, bits): (usize, &u8)| match (ours.get(i), theirs.get(i)) {
        (Some(a), Some(b)) => (a ^ b) & !bits != 0,
        (a, b) => a != b,
    };
    mask.iter().enumerate().position(other).map(|i| i as u64)
}
