// SPDX-License-Identifier: GPL-2.0-or-later
//! Reads the command lines of `cc1`, `as` and `ld` as their drivers write them.

use std::path::{Path, PathBuf};

/// Options of `cc1` whose value is the next argument.
const CC1_VALUES: [&str; 32] = [
    "-o",
    "-I",
    "-D",
    "-U",
    "-A",
    "-MF",
    "-MT",
    "-MQ",
    "-MD",
    "-MMD",
    "-include",
    "-imacros",
    "-isystem",
    "-idirafter",
    "-iquote",
    "-iprefix",
    "-iwithprefix",
    "-iwithprefixbefore",
    "-isysroot",
    "-imultilib",
    "-imultiarch",
    "-dumpbase",
    "-dumpbase-ext",
    "-dumpdir",
    "-auxbase",
    "-auxbase-strip",
    "-aux-info",
    "--param",
    "-T",
    "-G",
    "-F",
    "-cxx-isystem",
];

/// Options of `as` whose value is the next argument.
const AS_VALUES: [&str; 5] = ["-o", "-I", "--MD", "--defsym", "--debug-prefix-map"];

/// Where a call reads and writes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InOut {
    /// Index of the main input among the arguments.
    pub input: Option<usize>,
    /// Index of the output's name among the arguments.
    pub output: Option<usize>,
}

/// The main input and the output of a `cc1` call.
pub fn of_cc1(args: &[String]) -> InOut {
    with_values(args, &CC1_VALUES)
}

/// The main input and the output of an `as` call.
pub fn of_as(args: &[String]) -> InOut {
    with_values(args, &AS_VALUES)
}

fn with_values(args: &[String], values: &[&str]) -> InOut {
    let mut found = InOut::default();
    let mut i = 0;
    while let Some(arg) = args.get(i) {
        if values.contains(&arg.as_str()) {
            if arg == "-o" {
                found.output = Some(i + 1).filter(|o| *o < args.len());
            }
            i += 2;
            continue;
        }
        if !arg.starts_with('-') || arg == "-" {
            found.input.get_or_insert(i);
        }
        i += 1;
    }
    found
}

/// How a `cc1` call writes its list of dependencies.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Dependencies {
    /// It does not: the environment may ask for one.
    None,
    /// Into this file; `user` leaves system headers out.
    File { path: PathBuf, user: bool },
    /// In some way that we leave alone.
    Other,
}

/// What the `-M` options of a `cc1` call ask for.
pub fn dependencies(args: &[String]) -> Dependencies {
    let mut found = Dependencies::None;
    let mut explicit: Option<&String> = None;
    let mut i = 0;
    while let Some(arg) = args.get(i) {
        match arg.as_str() {
            "-MD" | "-MMD" => match args.get(i + 1) {
                Some(path) => found = Dependencies::File { path: path.into(), user: arg == "-MMD" },
                None => return Dependencies::Other,
            },
            "-MF" => explicit = args.get(i + 1),
            "-M" | "-MM" => return Dependencies::Other,
            _ => {}
        }
        i += if CC1_VALUES.contains(&arg.as_str()) { 2 } else { 1 };
    }
    match (&mut found, explicit) {
        // The last word is -MF's.
        (Dependencies::File { path, .. }, Some(file)) => *path = file.into(),
        (Dependencies::None, Some(_)) => return Dependencies::Other,
        _ => {}
    }
    found
}

/// The `cc1` arguments without the options that write dependency lists.
pub fn without_dependencies(args: &[String]) -> Vec<String> {
    let mut kept = Vec::with_capacity(args.len());
    let mut i = 0;
    while let Some(arg) = args.get(i) {
        match arg.as_str() {
            "-MD" | "-MMD" | "-MF" | "-MT" | "-MQ" => i += 2,
            "-MP" | "-MG" | "-M" | "-MM" => i += 1,
            _ => {
                let len = if CC1_VALUES.contains(&arg.as_str()) { 2 } else { 1 };
                kept.extend(args.iter().skip(i).take(len).cloned());
                i += len;
            }
        }
    }
    kept
}

/// Whether the compiler stops after preprocessing.
pub fn preprocesses_only(args: &[String]) -> bool {
    args.iter().any(|a| a == "-E" || a == "-fsyntax-only")
}

/// Whether the compiler's last word on `-flto` is yes.
pub fn link_time_optimised(args: &[String]) -> bool {
    args.iter().rfind(|a| *a == "-flto" || a.starts_with("-flto=") || *a == "-fno-lto").is_some_and(|a| a != "-fno-lto")
}

/// Whether debug information is asked for.
pub fn debug_info(args: &[String]) -> bool {
    let level = args.iter().rfind(|a| a.starts_with("-g") && !a.starts_with("-gno-") && !a.starts_with("-grecord"));
    level.is_some_and(|a| !a.ends_with('0') && a != "-gsplit-dwarf")
}

/// What matters of a linker's command line.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Link {
    pub output: Option<PathBuf>,
    /// The map that the build itself asked for.
    pub map: Option<PathBuf>,
    /// The map goes to standard output.
    pub print_map: bool,
    pub relocatable: bool,
}

/// Reads a linker's command line.
pub fn of_ld(args: &[String]) -> Link {
    let mut link = Link::default();
    let mut i = 0;
    while let Some(arg) = args.get(i) {
        let next = || args.get(i + 1).map(PathBuf::from);
        match arg.as_str() {
            "-o" | "--output" => {
                link.output = next();
                i += 1;
            }
            "-Map" | "--Map" => {
                link.map = next();
                i += 1;
            }
            "-M" | "--print-map" => link.print_map = true,
            "-r" | "-i" | "-Ur" | "--relocatable" => link.relocatable = true,
            // Values that could look like one of the above.
            "-soname" | "-h" | "-rpath" | "-rpath-link" | "-T" | "-z" | "-e" | "-u" | "-m" | "-L" | "-l" => i += 1,
            a => {
                if let Some(map) = a.strip_prefix("-Map=").or_else(|| a.strip_prefix("--Map=")) {
                    link.map = Some(map.into());
                } else if let Some(output) = a.strip_prefix("--output=") {
                    link.output = Some(output.into());
                } else if let Some(output) = a.strip_prefix("-o").filter(|o| !o.is_empty()) {
                    // `-oformat` is spelled `--oformat` by all drivers; the short form cannot be told from a name.
                    link.output = Some(output.into());
                }
            }
        }
        i += 1;
    }
    link
}

/// Puts the contents of response files (`@file`) in their place, once: drivers do not nest them.
pub fn expand_response_files(args: Vec<String>, cwd: &Path) -> Vec<String> {
    let mut all = Vec::with_capacity(args.len());
    for arg in args {
        match arg.strip_prefix('@').and_then(|file| std::fs::read_to_string(cwd.join(file)).ok()) {
            Some(text) => all.extend(split_words(&text)),
            None => all.push(arg),
        }
    }
    all
}

/// Words as libiberty's `buildargv` splits them: blanks, both quotes, backslash.
fn split_words(text: &str) -> Vec<String> {
    let (mut words, mut word, mut quote) = (Vec::new(), None::<String>, None);
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match (quote, c) {
            (_, '\\') => word.get_or_insert_default().extend(chars.next()),
            (Some(q), _) if c == q => quote = None,
            (None, '\'' | '"') => {
                word.get_or_insert_default();
                quote = Some(c);
            }
            (None, _) if c.is_whitespace() => words.extend(word.take()),
            _ => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    words
}

/// The prerequisites in a list of dependencies in make's syntax.
pub fn prerequisites(text: &str) -> Vec<String> {
    let joined = text.replace("\\\n", " ");
    let mut names = Vec::new();
    for line in joined.lines() {
        // Targets end at the first colon that is followed by a blank or nothing.
        let Some(at) = line
            .match_indices(':')
            .find(|(i, _)| line.get(i + 1..).is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', '\t'])))
        else {
            continue;
        };
        let mut name = String::new();
        let mut chars = line.get(at.0 + 1..).unwrap_or_default().chars().peekable();
        while let Some(c) = chars.next() {
            match c {
                '\\' if matches!(chars.peek(), Some(' ' | '#' | '\\')) => name.extend(chars.next()),
                '$' if chars.peek() == Some(&'$') => name.extend(chars.next()),
                ' ' | '\t' => {
                    if !name.is_empty() {
                        names.push(std::mem::take(&mut name));
                    }
                }
                _ => name.push(c),
            }
        }
        if !name.is_empty() {
            names.push(name);
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(line: &str) -> Vec<String> {
        line.split(' ').map(String::from).collect()
    }

    #[test]
    fn inputs_and_outputs() {
        let cc1 = words(
            "-quiet -imultiarch x86_64-linux-gnu -I inc -D A=b -MMD p.d -MQ p a.c -quiet -dumpbase a.c -O2 -o /t/x.s",
        );
        assert_eq!(of_cc1(&cc1), InOut { input: Some(11), output: Some(17) });
        assert_eq!(of_as(&words("-I inc --64 -o a.o /t/x.s")), InOut { input: Some(5), output: Some(4) });
        assert_eq!(of_as(&words("--64 -o a.o")), InOut { input: None, output: Some(2) });
    }

    #[test]
    fn dependency_options() {
        let file = |path: &str, user| Dependencies::File { path: path.into(), user };
        for (line, want) in [
            ("-quiet a.c -o x.s", Dependencies::None),
            ("-MD a.d -MQ a.o a.c -o x.s", file("a.d", false)),
            ("-MMD a.d a.c -o x.s", file("a.d", true)),
            ("-MMD a.d -MF b.d a.c", file("b.d", true)),
            ("-E -M a.c", Dependencies::Other),
            ("-I -MD a.c", Dependencies::None),
        ] {
            assert_eq!(dependencies(&words(line)), want, "{line}");
        }
        assert_eq!(without_dependencies(&words("-MD a.d -MP -MQ a.o -I -MD a.c")), words("-I -MD a.c"));
    }

    #[test]
    fn flags() {
        for (line, lto, debug) in [
            ("-O2 a.c", false, false),
            ("-g -flto a.c", true, true),
            ("-g -g0 -flto=auto -fno-lto", false, false),
            ("-ggdb3 -gno-record-gcc-switches", false, true),
        ] {
            assert_eq!((link_time_optimised(&words(line)), debug_info(&words(line))), (lto, debug), "{line}");
        }
    }

    #[test]
    fn links() {
        let link = of_ld(&words("-plugin p -pie -o prog crt1.o -L. -lb -Map=p.map"));
        assert_eq!(link.output.as_deref(), Some(Path::new("prog")));
        assert_eq!(link.map.as_deref(), Some(Path::new("p.map")));
        assert!(!link.relocatable && !link.print_map);
        assert!(of_ld(&words("-r -o all.o a.o b.o")).relocatable);
    }

    #[test]
    fn make_rules() {
        let text = "a.o: a.c sub/b\\ c.h \\\n /usr/include/x.h\n\nb.h:\n";
        assert_eq!(prerequisites(text), ["a.c", "sub/b c.h", "/usr/include/x.h"]);
        assert_eq!(split_words("-o 'a b' \"c\\\"d\"\n-x\\ y ''"), ["-o", "a b", "c\"d", "-x y", ""]);
    }
}
