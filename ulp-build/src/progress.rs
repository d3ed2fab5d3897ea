// SPDX-License-Identifier: GPL-2.0-or-later
//! A line per stage on standard error, when that is a terminal; else silence.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use std::io::IsTerminal;
use std::sync::Mutex;
use std::time::Duration;

/// Shows how far we are.
pub struct Progress {
    bar: Mutex<ProgressBar>,
    terminal: bool,
    verbose: bool,
}

impl Progress {
    pub fn new(verbose: bool) -> Self {
        let terminal = std::io::stderr().is_terminal();
        Self { bar: Mutex::new(ProgressBar::hidden()), terminal, verbose }
    }

    /// A stage begins; the one before is done.
    pub fn stage(&self, what: &str) {
        self.begin(what, None);
    }

    /// A stage of so many steps begins.
    pub fn count(&self, what: &str, steps: usize) {
        self.begin(what, u64::try_from(steps).ok());
    }

    fn begin(&self, what: &str, steps: Option<u64>) {
        self.done();
        log::debug!("{what}");
        if !self.terminal {
            if self.verbose {
                eprintln!("{what}");
            }
            return;
        }
        // Both sides are compiled, hence twice the steps.
        let bar = match steps {
            Some(n) => ProgressBar::new(n.saturating_mul(2)),
            None => ProgressBar::new_spinner(),
        };
        bar.set_draw_target(ProgressDrawTarget::stderr());
        let plain = std::env::var_os("NO_COLOR").is_some_and(|v| !v.is_empty());
        let template = match (steps.is_some(), plain) {
            (true, true) => "{spinner} {msg} {pos}/{len} {elapsed}",
            (true, false) => "{spinner:.cyan} {msg} {pos}/{len} {elapsed:.dim}",
            (false, true) => "{spinner} {wide_msg} {elapsed}",
            (false, false) => "{spinner:.cyan} {wide_msg} {elapsed:.dim}",
        };
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        bar.set_message(what.lines().next().unwrap_or_default().to_string());
        bar.enable_steady_tick(Duration::from_millis(120));
        if let Ok(mut current) = self.bar.lock() {
            *current = bar;
        }
    }

    /// One step of a counted stage is done.
    pub fn step(&self) {
        if let Ok(bar) = self.bar.lock() {
            bar.inc(1);
        }
    }

    /// Something the user should know, that is neither an error nor a result.
    pub fn note(&self, text: &str) {
        if self.terminal || self.verbose {
            match self.bar.lock() {
                Ok(bar) => bar.suspend(|| eprintln!("note: {text}")),
                Err(_) => eprintln!("note: {text}"),
            }
        }
    }

    /// What the user asked to be told.
    pub fn say(&self, text: &str) {
        match self.bar.lock() {
            Ok(bar) => bar.suspend(|| eprintln!("{text}")),
            Err(_) => eprintln!("{text}"),
        }
    }

    /// The last stage is done: its line goes.
    pub fn done(&self) {
        if let Ok(bar) = self.bar.lock() {
            bar.finish_and_clear();
        }
    }
}
