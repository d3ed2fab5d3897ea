// SPDX-License-Identifier: GPL-2.0-or-later
//! `RelocRow::insert` for every row of every architecture, and for made-up instruction fields: the value can be read
//! back, and no other bit of the section changes.

use proptest::prelude::*;
use ulp_arch::{ALL, BitPart, Field, Formula, Range, RelocError, RelocRow};

/// A branch field in two parts, as loongarch64's `b` has it: low 16 bits in [25:10], high 10 bits in [9:0].
static SPLIT: RelocRow = RelocRow {
    r_type: 0,
    name: "split",
    formula: Formula::PcRelative,
    field: Field::Bits(&[BitPart { low: 2, width: 16, at: 10 }, BitPart { low: 18, width: 10, at: 0 }]),
    range: Range::Signed(28),
    align: 4,
};

fn rows() -> Vec<&'static RelocRow> {
    ALL.iter().flat_map(|arch| arch.relocations()).chain([&SPLIT]).collect()
}

/// The bits of a little-endian word that the field owns.
fn mask(field: Field) -> u64 {
    let bits = |p: &BitPart| ((1 << p.width) - 1) << p.at;
    match field {
        Field::Bytes(8) => u64::MAX,
        Field::Bytes(n) => (1 << (8 * n)) - 1,
        Field::Bits(parts) => parts.iter().map(bits).sum(),
        Field::MovWide { .. } => 0xffff << 5 | 1 << 30,
        Field::Pair { high, low } => bits(&high) | bits(&low) << 32,
        Field::Sum { bits, .. } => u64::MAX >> (64 - bits),
        Field::SumUleb128 { .. } => 0x7f,
    }
}

/// What the field says after `value` went into it, from its bytes before and after; and the bits of `value` that it can say.
fn read_back(field: Field, before: u64, after: u64) -> (u64, u64) {
    let part = |p: &BitPart, word: u64| ((word >> p.at) & ((1 << p.width) - 1)) << p.low;
    let bits = |p: &BitPart| ((1 << p.width) - 1) << p.low;
    match field {
        Field::Bytes(_) => (after, mask(field)),
        Field::Bits(parts) => {
            (parts.iter().fold(0, |all, p| all | part(p, after)), parts.iter().fold(0, |all, p| all | bits(p)))
        }
        Field::MovWide { low } => {
            let bits = (after >> 5 & 0xffff) << low;
            (if after >> 30 & 1 == 0 { !bits } else { bits }, 0xffff << low)
        }
        Field::Pair { high, low } => {
            // The second instruction adds a signed number.
            let unused = 64 - low.low - low.width;
            let lower = (part(&low, after >> 32) << unused) as i64 >> unused;
            (part(&high, after).wrapping_add_signed(lower), bits(&high) | bits(&low))
        }
        Field::Sum { minus: false, .. } => (after.wrapping_sub(before), mask(field)),
        Field::Sum { minus: true, .. } => (before.wrapping_sub(after), mask(field)),
        Field::SumUleb128 { .. } => (0, 0),
    }
}

proptest! {
    #[test]
    fn only_the_field_changes(
        row in prop::sample::select(rows()),
        before in prop::collection::vec(any::<u8>(), 0..24),
        offset in prop_oneof![0..24usize, Just(usize::MAX)],
        value in prop_oneof![any::<i64>(), any::<i32>().prop_map(i64::from), any::<i8>().prop_map(i64::from)],
    ) {
        prop_assume!(!matches!(row.field, Field::SumUleb128 { .. }));
        let mut after = before.clone();
        let size = row.field.size();
        match row.insert(&mut after, offset, value) {
            Err(error) => {
                prop_assert_eq!(&after, &before, "a refusal leaves no trace");
                let inside = offset.checked_add(size).is_some_and(|end| end <= before.len());
                prop_assert_eq!(matches!(error, RelocError::OutsideSection { .. }), !inside);
            }
            Ok(()) => {
                let word = |bytes: &[u8]| {
                    let mut word = [0; 8];
                    word[..size].copy_from_slice(&bytes[offset..offset + size]);
                    u64::from_le_bytes(word)
                };
                let mask = mask(row.field);
                prop_assert_eq!(word(&after) & !mask, word(&before) & !mask, "bits beside the field");
                prop_assert_eq!(&after[..offset], &before[..offset]);
                prop_assert_eq!(&after[offset + size..], &before[offset + size..]);
                let (told, can) = read_back(row.field, word(&before), word(&after));
                prop_assert_eq!(told & can, value as u64 & can);
                let own = row.mask();
                prop_assert_eq!(own.len(), size);
                let own = own.iter().rev().fold(0, |all, byte| all << 8 | u64::from(*byte));
                // Of a sum in a part of a byte the rest is not told apart.
                let sum = matches!(row.field, Field::Sum { .. });
                prop_assert!(own == mask || sum && own & mask == mask, "{:x} is not {:x}", own, mask);
                if let Some(value) = row.extract(&after[offset..]) {
                    prop_assert_eq!(value as u64 & can, told & can);
                    let top = 63 - can.leading_zeros().min(63);
                    prop_assert_eq!(value >> top, -(value >> top & 1), "the highest bit is the sign");
                }
            }
        }
    }
}

#[test]
fn bits_as_the_manual_draws_them() {
    // b . + 4 * (0x155 << 16 | 0xbeef): offs[15:0] = 0xbeef, offs[25:16] = 0x155
    let mut section = 0x5000_0000u32.to_le_bytes();
    SPLIT.insert(&mut section, 0, 4 * (0x155 << 16 | 0xbeef)).unwrap();
    assert_eq!(u32::from_le_bytes(section), 0x5000_0000 | 0xbeef << 10 | 0x155);
    assert!(matches!(SPLIT.insert(&mut section, 0, 2), Err(RelocError::Misaligned { value: 2, .. })));
    for (value, fits) in [(1 << 27, false), ((1 << 27) - 4, true), (-1 << 27, true), ((-1 << 27) - 4, false)] {
        let answer = SPLIT.insert(&mut section, 0, value);
        let refused = matches!(answer, Err(RelocError::OutOfRange { .. }));
        assert_eq!((answer.is_ok(), refused), (fits, !fits), "{value:#x}");
    }
}

#[test]
fn sums_of_uleb128_keep_their_length() {
    let row = |minus| RelocRow { field: Field::SumUleb128 { minus }, formula: Formula::Difference, ..SPLIT };
    let (plus, minus) =
        (RelocRow { align: 1, range: Range::Any, ..row(false) }, RelocRow { align: 1, range: Range::Any, ..row(true) });
    for (before, row, value, after) in [
        // 0x05 + 0x7f in two bytes and in one, where the sum's upper bits have no place
        (&[0x85, 0x00, 9][..], plus, 0x7f, &[0x84, 0x01, 9][..]),
        (&[0x05, 9], plus, 0x7f, &[0x04, 9]),
        (&[0x84, 0x01], minus, 0x7f, &[0x85, 0x00]),
        (&[0x80, 0x80, 0x00], minus, 1, &[0xff, 0xff, 0x7f]),
        (
            &[0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x80, 0x00],
            minus,
            1,
            &[255, 255, 255, 255, 255, 255, 255, 255, 255, 1],
        ),
    ] {
        let mut section = before.to_vec();
        assert_eq!(row.insert(&mut section, 0, value), Ok(()), "{before:x?}");
        assert_eq!(section, after, "{before:x?}");
    }
    for endless in [&[0x80, 0x80][..], &[0x80; 11], &[]] {
        let mut section = endless.to_vec();
        let error = plus.insert(&mut section, 0, 1);
        assert!(matches!(error, Err(RelocError::OutsideSection { .. })), "{endless:x?}");
        assert_eq!(section, endless);
    }
}
