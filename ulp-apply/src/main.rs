// SPDX-License-Identifier: GPL-2.0-or-later
//! `ulp-apply`: everything is in the library, so that tests and other programs can use it.
fn main() -> std::process::ExitCode {
    ulp_apply::cli::run(std::env::args_os().collect()).into()
}
