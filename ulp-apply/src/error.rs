// SPDX-License-Identifier: GPL-2.0-or-later
//! Why something was not done. An error carries what a person reads (what happened, what to do next), the class that
//! decides the exit code, and, for refusals that people look up, a stable code. Whoever returns one has left the
//! process as it was; the few places where that is not so say it in the message.

use crate::report::Blocker;
use std::fmt;

/// Classes of error; each is one exit code (docs/design.md).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    /// It was tried and failed; nothing changed.
    Failed = 1,
    /// The command line asks for something that makes no sense.
    Usage = 2,
    /// No process matches.
    NoProcess = 3,
    /// Threads are inside, or another applier is at work: worth trying again later.
    Busy = 4,
    /// It cannot be done safely, or is not permitted.
    Refused = 5,
    /// The file is not a package, is damaged, or is of a newer format.
    BadPackage = 7,
}

impl Class {
    /// The exit code.
    pub fn exit_code(self) -> u8 {
        self as u8
    }

    /// The word that JSON output uses.
    pub fn word(self) -> &'static str {
        match self {
            Self::Failed => "failed",
            Self::Usage => "usage",
            Self::NoProcess => "no-process",
            Self::Busy => "busy",
            Self::Refused => "refused",
            Self::BadPackage => "bad-package",
        }
    }
}

/// An error with the next step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    pub class: Class,
    /// Stable code, `E-...`, of a refusal that has one.
    pub code: Option<&'static str>,
    /// What happened, with names and numbers.
    pub message: String,
    /// What to do next; may be empty.
    pub advice: String,
    /// Who was in the way, when that is what happened.
    pub blockers: Vec<Blocker>,
}

impl Error {
    pub fn new(class: Class, message: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { class, code: None, message: message.into(), advice: advice.into(), blockers: Vec::new() }
    }
    pub fn refused(message: impl Into<String>, advice: impl Into<String>) -> Self {
        Self::new(Class::Refused, message, advice)
    }
    pub fn failed(message: impl Into<String>, advice: impl Into<String>) -> Self {
        Self::new(Class::Failed, message, advice)
    }
    pub fn busy(message: impl Into<String>, advice: impl Into<String>) -> Self {
        Self::new(Class::Busy, message, advice)
    }
    pub fn code(mut self, code: &'static str) -> Self {
        self.code = Some(code);
        self
    }
    /// Says what was being attempted, in front of what went wrong.
    pub fn while_trying(mut self, to: impl fmt::Display) -> Self {
        self.message = format!("{to}: {}", self.message);
        self
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        if let Some(code) = self.code {
            write!(f, " ({code})")?;
        }
        if !self.advice.is_empty() {
            write!(f, "\n  {}", self.advice)?;
        }
        Ok(())
    }
}

impl std::error::Error for Error {}

pub type Result<T> = std::result::Result<T, Error>;

impl From<crate::process::Error> for Error {
    fn from(error: crate::process::Error) -> Self {
        use crate::process::ErrorKind;
        let class = match error.kind() {
            ErrorKind::NoProcess => Class::NoProcess,
            ErrorKind::Busy => Class::Busy,
            ErrorKind::Refused => Class::Refused,
            ErrorKind::Failed => Class::Failed,
        };
        let text = error.to_string();
        // The engine's sentences say what happened, then, behind a semicolon, what to do.
        let (message, advice) = text.split_once("; ").unwrap_or((&text, ""));
        Self::new(class, message, advice)
    }
}

impl From<ulp_format::ReadError> for Error {
    fn from(error: ulp_format::ReadError) -> Self {
        let advice = match error {
            ulp_format::ReadError::NotAPackage(_) => "give a file that ulp-build wrote",
            ulp_format::ReadError::Damaged(_) => "copy the file again, or build the patch again",
            ulp_format::ReadError::Newer { .. } => "use a newer ulp-apply",
        };
        Self::new(Class::BadPackage, error.to_string(), advice)
    }
}
