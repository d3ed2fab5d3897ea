// SPDX-License-Identifier: GPL-2.0-or-later
//! Where each thread stood when an applier of a log of steps ended: whether its call may have failed with EINTR because nobody was
//! left who could cure it.

use std::collections::HashMap;

/// What a tracer has done with a thread.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Stands {
    /// It was told to stop: it leaves its call, and nobody has looked.
    Told,
    /// Its registers were read, and are still being looked at.
    Looked { memory: bool },
    /// It was cured, or there was nothing to cure.
    Held,
    /// It is in the stub or about to be there, which brings it back by itself.
    InStub,
    /// It goes on into its call, and stops at its entry once more: a tracer's end there ends the call.
    Going,
}

impl Stands {
    fn exposed(self) -> bool {
        matches!(self, Self::Told | Self::Looked { .. } | Self::Going)
    }
}

/// Whether an applier of this log ended between a thread's stop and the end of its cure. The last step may not have been done.
pub fn at_stop(log: &[String]) -> bool {
    let before = log.split_last().map_or(log, |(_, before)| before);
    any_exposed(log) || any_exposed(before)
}

fn any_exposed(log: &[String]) -> bool {
    let mut threads: HashMap<&str, Stands> = HashMap::new();
    // Whose registers the last step has set.
    let mut set = None;
    for step in log {
        let words: Vec<&str> = step.split(' ').collect();
        let of = |tid: &str| threads.get(tid).copied();
        let (tid, now) = match words[..] {
            ["ptrace", "SEIZE" | "DETACH", tid, ..] => (tid, None),
            ["ptrace", "INTERRUPT", tid, ..] if of(tid) != Some(Stands::InStub) => (tid, Some(Stands::Told)),
            ["ptrace", "GETREGSET", tid, _] if of(tid) == Some(Stands::Told) => {
                (tid, Some(Stands::Looked { memory: false }))
            }
            ["ptrace", "SETREGSET", tid, "0x1"] => (tid, Some(Stands::Held)),
            ["ptrace", "SYSCALL", tid, ..] if set == Some(tid) || of(tid) == Some(Stands::InStub) => {
                (tid, Some(Stands::InStub))
            }
            ["ptrace", "SYSCALL", tid, ..] => (tid, Some(Stands::Going)),
            ["ptrace", "CONT", tid, ..] if of(tid) != Some(Stands::InStub) => (tid, None),
            ["ptrace", _, tid, ..] => (tid, of(tid)),
            _ => ("", None),
        };
        for (other, stands) in &mut threads {
            if let Stands::Looked { memory } = stands {
                match words[..] {
                    ["process_vm_readv"] | ["pread", ..] if !*memory => *memory = true,
                    ["read", path] if path.ends_with(&format!("/task/{other}/syscall")) => {}
                    _ if tid == *other => {}
                    _ => *stands = Stands::Held,
                }
            }
        }
        match now {
            Some(now) => drop(threads.insert(tid, now)),
            None => drop(threads.remove(tid)),
        }
        set = matches!(words[..], ["ptrace", "SETREGSET", _, "0x1"]).then_some(tid);
    }
    threads.into_values().any(Stands::exposed)
}

#[cfg(test)]
mod tests {
    use super::at_stop;

    /// The number of steps after which an applier's end would leave somebody exposed.
    fn exposed(log: &str) -> Vec<usize> {
        let log: Vec<String> = log.split(", ").map(str::to_string).collect();
        (1..=log.len()).filter(|n| super::any_exposed(&log[..*n])).collect()
    }

    #[test]
    fn a_thread_is_exposed_from_its_stop_to_its_cure() {
        let log = "ptrace SEIZE 7 0x0, ptrace INTERRUPT 7 0x0, waitpid 7, ptrace GETREGSET 7 0x1, ptrace SETREGSET 7 0x1, \
                   process_vm_readv, ptrace DETACH 7 0x0";
        assert_eq!(exposed(log), [2, 3, 4]);
        // Nothing had to be cured: the look ends with what follows.
        let log = "ptrace INTERRUPT 7 0x0, ptrace INTERRUPT 8 0x0, ptrace GETREGSET 7 0x1, waitpid 8, ptrace GETREGSET 8 0x1, \
                   pread 8 bytes at 0x0, pread 8 bytes at 0x8, ptrace DETACH 8 0x0, ptrace DETACH 7 0x0";
        assert_eq!(exposed(log), [1, 2, 3, 4, 5, 6]);
    }

    #[test]
    fn where_the_kernel_has_decided_a_thread_is_exposed_until_it_is_in_its_call() {
        let log = "ptrace INTERRUPT 7 0x0, ptrace GETREGSET 7 0x1, pread 4 bytes at 0x0, ptrace SETREGSET 7 0x404, \
                   read /proc/5/task/7/syscall, ptrace SETREGSET 7 0x404, ptrace SETREGSET 7 0x1, ptrace GETREGSET 7 0x406, \
                   ptrace SYSCALL 7 0x0, waitpid 7, ptrace CONT 7 0x0, pwrite 8 bytes at 0x0";
        assert_eq!(exposed(log), [1, 2, 3, 4, 5, 6, 9, 10]);
    }

    #[test]
    fn the_stub_brings_a_thread_back() {
        let log = "ptrace INTERRUPT 7 0x0, ptrace GETREGSET 7 0x1, process_vm_readv, process_vm_readv, call mmap, \
                   ptrace SETREGSET 7 0x1, ptrace SYSCALL 7 0x0, waitpid 7, ptrace SYSCALL 7 0x0, waitpid 7, \
                   ptrace INTERRUPT 7 0x0, ptrace CONT 7 0x0, waitpid 7, ptrace SETREGSET 7 0x1, pwrite 8 bytes at 0x0, \
                   ptrace SYSCALL 7 0x0, waitpid 7, ptrace CONT 7 0x0";
        assert_eq!(exposed(log), [1, 2, 3, 16, 17]);
    }

    #[test]
    fn the_last_step_may_not_have_been_done() {
        let log = ["ptrace INTERRUPT 7 0x0", "ptrace GETREGSET 7 0x1", "ptrace SETREGSET 7 0x1"].map(str::to_string);
        assert!(at_stop(&log));
        assert!(!at_stop(&[&log[..], &["process_vm_readv".to_string()]].concat()));
    }
}
