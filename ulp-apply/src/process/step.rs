// SPDX-License-Identifier: GPL-2.0-or-later
//! Every system call that concerns a process is one step. Without the feature `steps`, which no release has, a step is
//! the call and nothing else. With it, tests number the steps and say what happens at one of them, by the environment:
//!
//! * `ULP_STEP_LOG=FILE` appends a line for each step before it is done: its number and its name;
//! * `ULP_STEP_KILL=N` ends this process, as `kill -9` does, right after step N;
//! * `ULP_STEP_FAIL=N:ERRNO:NAME` fails the N-th of the steps whose name begins so with that error, without doing it;
//! * `ULP_STEP_HOOK=N:FILE` makes the file before step N and waits until somebody has removed it;
//! * `ULP_STEP_HOOKS=N:NAME:FILE;...` does so before the N-th step whose name begins with NAME, for each of them.

#[cfg(not(feature = "steps"))]
mod call {
    use std::fmt::Arguments;
    use std::io;

    /// Makes a call.
    #[inline(always)]
    pub fn step<T>(_name: Arguments<'_>, call: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        call()
    }

    /// Makes a call which is a step only when it brought something.
    #[inline(always)]
    pub fn step_if<T>(
        _name: Arguments<'_>,
        call: impl FnOnce() -> io::Result<T>,
        _brought: impl FnOnce(&T) -> bool,
    ) -> io::Result<T> {
        call()
    }
}

#[cfg(feature = "steps")]
mod call {
    use std::fmt::Arguments;
    use std::fs::File;
    use std::io::{self, Write as _};
    use std::path::PathBuf;
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU64, Ordering};
    use std::time::{Duration, Instant};

    /// A test that forgets to answer must not leave us here.
    const LONGEST_HOOK: Duration = Duration::from_secs(20);

    /// What the environment asks for.
    struct Wish {
        log: Option<File>,
        kill: Option<u64>,
        fail: Option<(u64, (i32, String))>,
        hook: Option<(u64, PathBuf)>,
        hooks: Vec<Hook>,
        /// Steps done so far. They follow each other: whoever starts the tracing thread waits for it.
        done: AtomicU64,
        /// How many of them had the name of the one that is to fail.
        namesakes: AtomicU64,
    }

    /// A place to wait at, known by a step's name.
    struct Hook {
        left: AtomicU64,
        name: String,
        path: PathBuf,
    }

    impl Hook {
        fn parse(text: &str) -> Option<Self> {
            let (number, rest) = text.split_once(':')?;
            let (name, path) = rest.split_once(':')?;
            Some(Self { left: number.parse().ok().map(AtomicU64::new)?, name: name.into(), path: path.into() })
        }

        fn is_reached(&self, name: Arguments<'_>) -> bool {
            name.to_string().starts_with(&self.name) && self.left.fetch_sub(1, Ordering::SeqCst) == 1
        }
    }

    fn variable(name: &str) -> Option<String> {
        std::env::var(name).ok()
    }

    fn pair<T>(name: &str, second: impl FnOnce(&str) -> Option<T>) -> Option<(u64, T)> {
        let text = variable(name)?;
        let (number, rest) = text.split_once(':')?;
        Some((number.parse().ok()?, second(rest)?))
    }

    fn wish() -> &'static Wish {
        static WISH: OnceLock<Wish> = OnceLock::new();
        WISH.get_or_init(|| Wish {
            log: variable("ULP_STEP_LOG").and_then(|path| File::options().append(true).create(true).open(path).ok()),
            kill: variable("ULP_STEP_KILL").and_then(|n| n.parse().ok()),
            fail: pair("ULP_STEP_FAIL", |text| {
                let (errno, name) = text.split_once(':')?;
                Some((errno.parse().ok()?, name.to_owned()))
            }),
            hook: pair("ULP_STEP_HOOK", |path| Some(path.into())),
            hooks: variable("ULP_STEP_HOOKS").iter().flat_map(|all| all.split(';')).filter_map(Hook::parse).collect(),
            done: AtomicU64::new(0),
            namesakes: AtomicU64::new(0),
        })
    }

    /// Makes a call, unless it is to fail, and does afterwards what was asked for.
    pub fn step<T>(name: Arguments<'_>, call: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        let number = before(name);
        note(number, name);
        let result = make(name, call);
        after(number, name);
        result
    }

    /// Makes a call which is a step only when it brought something. One that has yet to bring it may fail all the same.
    pub fn step_if<T>(
        name: Arguments<'_>,
        call: impl FnOnce() -> io::Result<T>,
        brought: impl FnOnce(&T) -> bool,
    ) -> io::Result<T> {
        let number = before(name);
        let result = make(name, call);
        if result.as_ref().map_or(true, brought) {
            note(number, name);
            after(number, name);
        }
        result
    }

    /// The number of the step that begins.
    fn before(name: Arguments<'_>) -> u64 {
        let wish = wish();
        let number = wish.done.load(Ordering::SeqCst) + 1;
        if let Some((_, path)) = wish.hook.as_ref().filter(|(n, _)| *n == number) {
            static WAITED: AtomicU64 = AtomicU64::new(0);
            // A call that has brought nothing yet is made again and again under the same number.
            if WAITED.swap(1, Ordering::SeqCst) == 0 {
                wait_at(path);
            }
        }
        for hook in wish.hooks.iter().filter(|hook| hook.is_reached(name)) {
            wait_at(&hook.path);
        }
        number
    }

    fn note(number: u64, name: Arguments<'_>) {
        if let Some(mut log) = wish().log.as_ref() {
            // In one piece, so that our end leaves no half line.
            let _ = log.write_all(format!("{number} {name}\n").as_bytes());
        }
    }

    fn make<T>(name: Arguments<'_>, call: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
        match &wish().fail {
            Some((n, (errno, _))) if namesake(name) && wish().namesakes.load(Ordering::SeqCst) + 1 == *n => {
                Err(io::Error::from_raw_os_error(*errno))
            }
            _ => call(),
        }
    }

    /// Whether a step has the name of the one that is to fail.
    fn namesake(name: Arguments<'_>) -> bool {
        wish().fail.as_ref().is_some_and(|(_, (_, wanted))| name.to_string().starts_with(wanted))
    }

    fn after(number: u64, name: Arguments<'_>) {
        let wish = wish();
        wish.done.store(number, Ordering::SeqCst);
        if namesake(name) {
            wish.namesakes.fetch_add(1, Ordering::SeqCst);
        }
        if wish.kill == Some(number) {
            let _ = nix::sys::signal::raise(nix::sys::signal::Signal::SIGKILL);
        }
    }

    fn wait_at(path: &PathBuf) {
        if File::create(path).is_err() {
            return;
        }
        let give_up = Instant::now() + LONGEST_HOOK;
        while path.exists() && Instant::now() < give_up {
            std::thread::sleep(Duration::from_micros(200));
        }
    }
}

pub use call::{step, step_if};
