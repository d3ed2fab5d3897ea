// SPDX-License-Identifier: GPL-2.0-or-later
//! One line for every apply and revert in the system's log: who changed which process with what. A machine without a log
//! socket loses nothing else.

use std::os::unix::net::UnixDatagram;
use std::time::Duration;

/// `LOG_AUTHPRIV | LOG_NOTICE`: who may do what belongs where logins are.
const PRIORITY: u8 = 10 << 3 | 5;
const SOCKET: &str = "/dev/log";

/// What happened.
#[derive(Clone, Copy, Debug)]
pub struct Event<'a> {
    pub verb: &'a str,
    pub pid: i32,
    pub command: &'a str,
    pub patch: &'a str,
    pub digest: &'a str,
    /// `done`, or the class of the error.
    pub result: &'a str,
    pub stop: Option<Duration>,
}

/// Sends the line; silently does nothing where nobody listens.
pub fn log(event: &Event<'_>) {
    let Ok(socket) = UnixDatagram::unbound() else { return };
    // A log daemon that is stuck must not hold up a patch.
    if socket.set_write_timeout(Some(Duration::from_millis(100))).is_ok() && socket.connect(SOCKET).is_ok() {
        let _ = socket.send(line(event, uid(), login().as_deref()).as_bytes());
    }
}

fn line(event: &Event<'_>, uid: u32, login: Option<&str>) -> String {
    let Event { verb, pid, command, patch, digest, result, stop } = event;
    // The command's name is the target's word; it must not be able to forge a second line.
    let command: String = command.chars().map(|c| if c.is_ascii_graphic() { c } else { '?' }).collect();
    let stop = stop.map_or(String::new(), |s| format!(" stop_us={}", s.as_micros()));
    let login = login.unwrap_or("unset");
    format!(
        "<{PRIORITY}>ulp-apply[{}]: {verb} patch={patch} digest={digest} pid={pid} command={command} uid={uid} loginuid={login} result={result}{stop}",
        std::process::id()
    )
}

fn uid() -> u32 {
    nix::unistd::getuid().as_raw()
}

fn login() -> Option<String> {
    let text = std::fs::read_to_string("/proc/self/loginuid").ok()?;
    // -1: nobody logged in, a daemon for instance.
    text.trim().parse::<u32>().ok().filter(|id| *id != u32::MAX).map(|id| id.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_event_is_one_line() {
        let event = Event {
            verb: "apply",
            pid: 7,
            command: "a\nb",
            patch: "fix",
            digest: "00ff",
            result: "done",
            stop: Some(Duration::from_micros(120)),
        };
        let line = line(&event, 5, Some("1000"));
        let rest = line.split_once(": ").expect("a tag").1;
        let expected = "apply patch=fix digest=00ff pid=7 command=a?b uid=5 loginuid=1000 result=done stop_us=120";
        assert_eq!(rest, expected);
        assert!(line.starts_with("<85>ulp-apply["));
    }
}
