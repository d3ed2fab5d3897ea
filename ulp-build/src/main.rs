// SPDX-License-Identifier: GPL-2.0-or-later
//! Three programs in one file: the command, the stand-in for `cc1`, `as` and `ld` while a build is watched (told by the
//! name it is called as), and the entry into a mount namespace.
#![forbid(unsafe_code)]

use std::process::ExitCode;
use ulp_build::capture::shim;
use ulp_build::{cli, compile::place};

fn main() -> ExitCode {
    let mut arguments: Vec<_> = std::env::args_os().collect();
    if let Some(name) = arguments.first()
        && let Some(tool) = shim::called_as(name)
    {
        let name = arguments.remove(0);
        return ExitCode::from(shim::run(tool, &name, arguments));
    }
    if arguments.get(1).is_some_and(|a| a == place::HIDDEN) {
        let Err(error) = place::enter(arguments.get(2..).unwrap_or_default());
        eprintln!("{error:#}");
        return ExitCode::from(126);
    }
    cli::run(arguments)
}
