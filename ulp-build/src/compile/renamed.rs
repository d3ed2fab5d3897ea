// SPDX-License-Identifier: GPL-2.0-or-later
//! Source files that got another name. Units of two builds are paired by the name of their source; a file that was
//! renamed leaves one unit that is gone and one that is new, which define the same symbols. One of each is a pair.
//! Anything less clear, a file split in two or a function moved to another file, is refused: its functions would
//! otherwise look gone here and new there, and the running program would keep the old ones without a word.

use super::Pair;
use crate::capture::Store;
use crate::model::{Code, Refusal, Stop};
use anyhow::{Context, Result, anyhow};
use object::{Object, ObjectSymbol};
use std::collections::BTreeSet;
use std::fs;

type Names = BTreeSet<String>;

/// Joins the pairs of renamed files.
pub(super) fn pair_up<'a>(pairs: Vec<Pair<'a>>, orig: &Store, fix: &Store) -> Result<Vec<Pair<'a>>, Stop> {
    let (mut gone, mut new, mut kept) = (Vec::new(), Vec::new(), Vec::new());
    for pair in pairs {
        match (pair.orig, pair.fix) {
            (Some(unit), None) => gone.push((defined(orig, &unit.digest)?, pair)),
            (None, Some(unit)) => new.push((defined(fix, &unit.digest)?, pair)),
            _ => kept.push(pair),
        }
    }
    for (names, mut pair) in gone {
        let mut heirs = new.extract_if(.., |(other, _)| !names.is_disjoint(other)).collect::<Vec<_>>();
        match (heirs.pop(), heirs.is_empty()) {
            (None, _) => {}
            (Some((_, heir)), true) => pair.fix = heir.fix,
            (Some(_), false) => return Err(moved(&pair).into()),
        }
        kept.push(pair);
    }
    // What a renamed or changed file lost to another one.
    for (names, pair) in &new {
        let rivals = kept.iter().filter_map(|p| p.orig);
        for unit in rivals {
            if !defined(orig, &unit.digest)?.is_disjoint(names) {
                return Err(moved(pair).into());
            }
        }
    }
    kept.extend(new.into_iter().map(|(_, pair)| pair));
    Ok(kept)
}

fn moved(pair: &Pair<'_>) -> Refusal {
    let unit = pair.orig.or(pair.fix);
    let source = unit.map(|u| u.source.display().to_string()).unwrap_or_default();
    Refusal::new(
        Code::Ambiguous,
        format!("the functions of {source} stand in more or other files than before"),
        "leave functions in their files: a patch cannot tell a moved function from a new one",
    )
    .about(source)
}

/// The symbols that other units of a link can see.
fn defined(store: &Store, digest: &str) -> Result<Names> {
    let path = store.object(digest);
    let bytes = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let file = object::File::parse(&*bytes).map_err(|e| anyhow!("{}: {e}", path.display()))?;
    let visible = file.symbols().filter(|s| s.is_global() && s.is_definition());
    Ok(visible.filter_map(|s| s.name().ok().map(str::to_owned)).collect())
}
