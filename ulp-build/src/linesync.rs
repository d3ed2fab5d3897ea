// SPDX-License-Identifier: GPL-2.0-or-later
//! Keeps line numbers where they were. A fix that adds a line moves every later line of the file, and with it every
//! `__LINE__` (each `assert` holds one): a hundred functions would differ that nobody touched. The fixed source is
//! therefore compiled with `#line` directives which give every unchanged line the number it has in the original.
//! Only numbers change by this, never code; lines of the fix itself get numbers that follow their neighbour above.

use similar::{Algorithm, DiffOp, capture_diff_slices};

/// The fixed text with `#line` directives, or `None` when none are needed or the file numbers its lines itself.
pub fn resync(orig: &str, fixed: &str) -> Option<String> {
    if numbers_itself(orig) || numbers_itself(fixed) {
        return None;
    }
    let old: Vec<&str> = orig.split_inclusive('\n').collect();
    let new: Vec<&str> = fixed.split_inclusive('\n').collect();
    let mut original_number = vec![None; new.len()];
    for op in capture_diff_slices(Algorithm::Myers, &old, &new) {
        if let DiffOp::Equal { old_index, new_index, len } = op {
            for (i, slot) in original_number.iter_mut().skip(new_index).take(len).enumerate() {
                *slot = Some(old_index + i + 1);
            }
        }
    }

    let mut out = String::with_capacity(fixed.len() + 256);
    let mut scanner = Scanner::default();
    // The number the compiler would give to the next line.
    let mut next = 1;
    // Whether a conditional group may have swallowed an earlier directive.
    let mut unsure = false;
    let mut directives = 0;
    for (line, wanted) in new.iter().zip(original_number) {
        if let Some(wanted) = wanted
            && (wanted != next || unsure)
            && scanner.directive_fits()
        {
            out.push_str(&format!("#line {wanted}\n"));
            next = wanted;
            unsure = false;
            directives += 1;
        }
        out.push_str(line);
        next += 1;
        scanner.line(line);
        unsure |= directives > 0 && scanner.was_conditional;
    }
    (directives > 0).then_some(out)
}

/// Whether the text has `#line` directives or linemarkers of its own: a generated file, best left alone.
fn numbers_itself(text: &str) -> bool {
    text.lines().any(|line| {
        let Some(rest) = line.trim_start().strip_prefix('#') else { return false };
        let rest = rest.trim_start();
        rest.starts_with("line") || rest.starts_with(|c: char| c.is_ascii_digit())
    })
}

/// Follows the text just far enough to know where a directive may stand.
#[derive(Default)]
struct Scanner {
    in_comment: bool,
    /// Closing delimiter of an open raw string, `)delim"`.
    raw_string: Option<String>,
    /// The last line ended in a backslash.
    continued: bool,
    parentheses: usize,
    in_directive: bool,
    /// The last line was `#if`, `#else`, `#endif` or one of their kin.
    was_conditional: bool,
}

impl Scanner {
    /// Whether a directive may stand before the next line.
    fn directive_fits(&self) -> bool {
        !self.in_comment && self.raw_string.is_none() && !self.continued && self.parentheses == 0
    }

    fn line(&mut self, line: &str) {
        let text = line.trim_end_matches(['\n', '\r']);
        let starts_fresh = !self.in_comment && self.raw_string.is_none();
        if !self.continued {
            self.in_directive = starts_fresh && text.trim_start().starts_with('#');
        }
        self.was_conditional = self.in_directive && !self.continued && is_conditional(text);
        // A brace in the first column closes a function: a fresh start if branches of a conditional confused the count.
        if starts_fresh && text.starts_with('}') {
            self.parentheses = 0;
        }
        self.characters(text);
        self.continued = text.ends_with('\\');
    }

    fn characters(&mut self, text: &str) {
        let bytes = text.as_bytes();
        let mut i = 0;
        while let Some(&byte) = bytes.get(i) {
            let rest = &bytes[i..];
            if let Some(delimiter) = &self.raw_string {
                if rest.starts_with(delimiter.as_bytes()) {
                    i += delimiter.len();
                    self.raw_string = None;
                } else {
                    i += 1;
                }
                continue;
            }
            if self.in_comment {
                self.in_comment = !rest.starts_with(b"*/");
                i += if self.in_comment { 1 } else { 2 };
                continue;
            }
            match byte {
                b'/' if rest.starts_with(b"//") => return,
                b'/' if rest.starts_with(b"/*") => {
                    self.in_comment = true;
                    i += 2;
                }
                b'"' if i > 0 && bytes[i - 1] == b'R' => {
                    let delimiter = rest[1..].split(|b| *b == b'(').next().unwrap_or_default();
                    self.raw_string = Some(format!("){}\"", String::from_utf8_lossy(delimiter)));
                    i += 1 + delimiter.len();
                }
                b'"' | b'\'' => i += literal_len(rest, byte),
                b'(' if !self.in_directive => {
                    self.parentheses += 1;
                    i += 1;
                }
                b')' if !self.in_directive => {
                    self.parentheses = self.parentheses.saturating_sub(1);
                    i += 1;
                }
                _ => i += 1,
            }
        }
    }
}

/// Length of the literal at the start of `rest`, up to its closing `quote` or the line's end.
fn literal_len(rest: &[u8], quote: u8) -> usize {
    let mut i = 1;
    while let Some(&byte) = rest.get(i) {
        match byte {
            b'\\' => i += 2,
            b if b == quote => return i + 1,
            _ => i += 1,
        }
    }
    rest.len()
}

fn is_conditional(directive: &str) -> bool {
    let word = directive.trim_start().trim_start_matches('#').trim_start();
    ["if", "el", "endif"].iter().any(|w| word.starts_with(w))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the compiler takes each line for: the text without directives, and its number.
    fn numbered(text: &str) -> Vec<(usize, String)> {
        let mut next = 1;
        let mut lines = Vec::new();
        for line in text.lines() {
            match line.strip_prefix("#line ") {
                Some(number) => next = number.parse().unwrap(),
                None => {
                    lines.push((next, line.to_owned()));
                    next += 1;
                }
            }
        }
        lines
    }

    fn check(orig: &str, fixed: &str, wanted: &[(usize, &str)]) {
        let text = resync(orig, fixed).expect("directives");
        let lines = numbered(&text);
        for (number, line) in wanted {
            assert!(lines.contains(&(*number, (*line).to_owned())), "{line:?} should be {number} in:\n{text}");
        }
        let plain: String = text.lines().filter(|l| !l.starts_with("#line ")).map(|l| format!("{l}\n")).collect();
        assert_eq!(plain, fixed);
    }

    #[test]
    fn unchanged_lines_keep_their_numbers() {
        check("a;\nb;\nc;\n", "a;\nnew;\nb;\nc;\n", &[(1, "a;"), (2, "b;"), (3, "c;")]);
        check("a;\nb;\nc;\nd;\n", "a;\nd;\n", &[(1, "a;"), (4, "d;")]);
        check("a;\nb;\n", "\n\n\na;\nb;\n", &[(1, "a;"), (2, "b;")]);
        assert_eq!(resync("a;\nb;\n", "a;\nc;\n"), None);
    }

    #[test]
    fn directives_stand_only_where_they_may() {
        // In a comment, in a continued macro, between parentheses: as soon as it ends.
        check("x;\n/* one\ntwo */\ny;\n", "x;\nnew;\n/* one\nmore\ntwo */\ny;\n", &[(4, "y;")]);
        let fixed = "new;\n#define M(a) \\\n    more; \\\n    a\ny;\n";
        let text = resync("#define M(a) \\\n    a\ny;\n", fixed).unwrap();
        assert!(!text.contains("\\\n#line"), "{text}");
        check("#define M(a) \\\n    a\ny;\n", fixed, &[(3, "y;")]);
        check("f(a,\n  b);\ny;\n", "new;\nf(a,\n  more,\n  b);\ny;\n", &[(3, "y;")]);
        check("s = \"(\";\nc = '(';\ny;\n", "s = \"(\";\nnew;\nc = '(';\ny;\n", &[(2, "c = '(';"), (3, "y;")]);
    }

    #[test]
    fn a_skipped_group_does_not_swallow_the_number() {
        let orig = "#if 0\na;\n#endif\nb;\n";
        let text = resync(orig, "#if 0\nnew;\na;\n#endif\nb;\n").unwrap();
        assert!(text.contains("#endif\n#line 4\nb;"), "{text}");
    }

    #[test]
    fn files_that_number_themselves_are_left_alone() {
        assert_eq!(resync("# 1 \"parser.y\"\na;\n", "# 1 \"parser.y\"\nnew;\na;\n"), None);
        assert_eq!(resync("#line 7\na;\n", "new;\n#line 7\na;\n"), None);
    }

    #[test]
    fn raw_strings_are_followed() {
        check("s = R\"x(\n(\n)x\";\ny;\n", "s = R\"x(\nmore\n(\n)x\";\ny;\n", &[(4, "y;")]);
    }
}
