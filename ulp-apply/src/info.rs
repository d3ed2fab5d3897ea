// SPDX-License-Identifier: GPL-2.0-or-later
//! `info`: what a package is, told to somebody who has never seen it.

use crate::report::SCHEMA;
use crate::snapshot::PackageFile;
use serde::Serialize;
use std::fmt::Write as _;
use ulp_format::{Identity, Kind, Manifest};

/// The JSON answer.
#[derive(Debug, Serialize)]
pub struct Info<'f> {
    pub schema: u32,
    pub file: String,
    pub digest: &'f str,
    pub signed: bool,
    pub manifest: &'f Manifest,
}

impl<'f> Info<'f> {
    pub fn new(file: &'f PackageFile) -> Self {
        Self {
            schema: SCHEMA,
            file: file.path.display().to_string(),
            digest: &file.digest,
            signed: false,
            manifest: &file.package.manifest,
        }
    }

    pub fn text(&self) -> String {
        let m = self.manifest;
        let mut text = String::new();
        let mut row = |key: &str, value: &str| {
            if !value.is_empty() {
                let _ = writeln!(text, "{key:<12} {value}");
            }
        };
        row("patch", &m.name);
        row("description", &m.description);
        row("fixes", &m.cves.join(" "));
        row("machine", &m.arch);
        row("made by", &format!("{}; {}", m.tool, m.compiler));
        row("digest", self.digest);
        row("signature", "none; packages are not signed yet, so trust the place you got it from");
        row("requires", &m.requires.join(" "));
        row("replaces", &m.replaces.join(" "));
        row(
            "revert",
            if m.escape {
                "keeps the patch's memory, because the program's data may point into it"
            } else {
                "gives the patch's memory back"
            },
        );
        if !m.atomic {
            row("switch", "not atomic if ulp-apply is killed between two entry jumps; the next ulp-apply tidies up");
        }
        if m.atomic && m.targets.iter().map(|t| t.functions.len()).sum::<usize>() > 1 {
            row("switch", "all functions at once, through gates, even if ulp-apply is killed");
        }
        for a in &m.accepted {
            let about = a.symbol.as_ref().map_or(String::new(), |s| format!(" for {s}"));
            row("accepted", &format!("{}{about}, overruled by the packager", a.code));
        }
        for w in &m.warnings {
            row("warning", w);
        }
        for t in &m.targets {
            let kind = match t.kind {
                Kind::Executable => "fixed-address executable",
                Kind::Pie => "position-independent executable",
                Kind::SharedLibrary => "shared library",
            };
            let identity = match t.identity {
                Identity::SameBuildId => "the rebuild has the same build-id",
                Identity::SameBytes => "the rebuild has the same loaded bytes",
                Identity::PerFunction => "proved function by function",
            };
            row("target", &format!("{}, {kind}", t.file));
            row("  build-id", &t.build_id);
            row("  identity", identity);
            for f in &t.functions {
                let source = f.source.as_ref().map_or(String::new(), |s| format!(" ({s})"));
                let probe = if f.probe_safe { "" } else { "; no uprobe may be set on its entry" };
                row("  function", &format!("{}{source} at {}{probe}", f.name, f.entry));
            }
        }
        text
    }
}
