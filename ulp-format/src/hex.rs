// SPDX-License-Identifier: GPL-2.0-or-later
//! Lower-case hexadecimal, the only spelling of bytes that a manifest has: one spelling, so that equal bytes are equal text.

/// The bytes as lower-case digits, two for each.
pub fn encode(bytes: &[u8]) -> String {
    let digit = |n: u8| char::from_digit(u32::from(n), 16).expect("a nibble is below 16");
    bytes.iter().flat_map(|b| [digit(b >> 4), digit(b & 15)]).collect()
}

/// The bytes that lower-case digits spell. `None`: an odd number of digits, or something that is no lower-case digit.
pub fn decode(text: &str) -> Option<Vec<u8>> {
    let nibble = |c: u8| match c {
        b'0'..=b'9' => Some(c - b'0'),
        b'a'..=b'f' => Some(c - b'a' + 10),
        _ => None,
    };
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    if !rest.is_empty() {
        return None;
    }
    pairs.iter().map(|[high, low]| Some(nibble(*high)? << 4 | nibble(*low)?)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_there_and_back() {
        let all: Vec<u8> = (0..=255).collect();
        let text = encode(&all);
        assert!(text.starts_with("000102") && text.ends_with("fdfeff"));
        assert_eq!(decode(&text), Some(all));
        assert_eq!(decode(""), Some(Vec::new()));
    }

    #[test]
    fn other_spellings_are_refused() {
        for text in ["0", "0A", "g0", "0x", " 00", "é", "000"] {
            assert_eq!(decode(text), None, "{text}");
        }
    }
}
