//! The exact sum of floats: what was added can be taken away again without a trace.
//!
//! A float is an integer times a power of two, so a sum of floats is one too. A group keeps the
//! integer in 128 bits (two words) and the exponent in a third: a window that the values of most
//! groups fit, since it holds 53 bits of a value, 50 binary orders of magnitude and a million
//! rows. The sum is rounded once, when it is evaluated; it depends on the rows that are there, not
//! on their order, on what was there before, or on how many workers there are.
//!
//! 1. A value whose exponent lies in the window is shifted and added.
//! 2. One that does not, or that would overflow, moves the window (drops trailing zeros of the
//!    sum, lowers the exponent).
//! 3. If there is no window for both, or the value is NaN or infinite, the group escapes to a
//!    `Wide` outside its row: 2368 bits in fixed point, which hold every sum of floats, and counts
//!    of NaN and of both infinities.
//! 4. When an epoch is complete, escaped groups whose sum fits a window again come back.

use std::collections::HashMap;
use std::sync::Arc;

use arrow::array::{Array, ArrayRef, AsArray, Float64Array};
use arrow::buffer::NullBuffer;
use arrow::compute::cast;
use arrow::datatypes::{DataType, Float64Type};

use crate::functions::aggregate::{Accumulator, ChangedRows, Rows, Slots, sum_of, words_of};
use crate::types::error::{Error, Result};

/// Third word: no window yet; the sum is 0.
const EMPTY: u64 = 0;
/// Third word: the first word is an index into the wide sums.
const ESCAPED: u64 = u64::MAX;
/// Third word of a window: its exponent plus this, so that it is neither of the above.
const EXPONENT_BIAS: i32 = 1100;

/// The exponent of the smallest float: every float is a multiple of 2 to the power of this.
const EXPONENT_MIN: i32 = -1074;

/// Bits that a window may use; the rest keeps one addition from overflowing.
const WINDOW_BITS: u32 = 125;

/// Limbs of 64 bits that hold 2^63 times 2^63 times the largest float, with sign.
const WIDE_LIMBS: usize = 37;

/// What is summed of a row; a row with a NULL argument is left out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Term {
    /// The first argument.
    #[default]
    First,
    /// The second argument.
    Second,
    /// The first argument squared.
    FirstSquared,
    /// The second argument squared.
    SecondSquared,
    /// Both arguments multiplied.
    Product,
}

/// A sum before it is rounded.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum ExactSum {
    /// `sum * 2^exponent`, with at most 126 bits.
    Window { sum: i128, exponent: i32 },
    /// The nearest float, and the float nearest to what it lacks.
    Pair(f64, f64),
}

/// The sum of all floats of each group.
#[derive(Default)]
pub struct FloatSum {
    term: Term,
    /// Sums that do not fit a window, by the index in the group's first word.
    wide: Vec<Wide>,
    /// Unused places of `wide`.
    free: Vec<usize>,
    /// Values of escaped groups when the epoch began, as in [`ExactSum::Pair`].
    remembered: HashMap<u32, (f64, f64)>,
}

/// The integer and the exponent of a finite float that is not 0.
#[inline]
fn split(value: f64) -> (i64, i32) {
    let bits = value.to_bits();
    let exponent = (bits >> 52 & 0x7ff) as i32;
    let fraction = (bits & ((1 << 52) - 1)) as i64;
    let (magnitude, exponent) = match exponent {
        0 => (fraction, EXPONENT_MIN),
        _ => (fraction | 1 << 52, exponent - 1075),
    };
    (if value.is_sign_negative() { -magnitude } else { magnitude }, exponent)
}

fn exponent_of(words: &[u64; 3]) -> i32 {
    words[2] as i32 - EXPONENT_BIAS
}

fn bits_of(value: i128) -> u32 {
    128 - value.unsigned_abs().leading_zeros()
}

/// Without trailing zero bits.
fn trim((value, exponent): (i128, i32)) -> (i128, i32) {
    let zeros = value.trailing_zeros();
    if value == 0 { (0, exponent) } else { (value >> zeros, exponent + zeros as i32) }
}

/// `sum * 2^exponent`, rounded once.
fn scale(sum: i128, exponent: i32) -> f64 {
    if exponent > 1023 {
        return match sum.signum() {
            0 => 0.0,
            sign => sign as f64 * f64::INFINITY,
        };
    }
    let power = if exponent >= -1022 {
        f64::from_bits(((exponent + 1023) as u64) << 52)
    } else {
        f64::from_bits(1 << (exponent - EXPONENT_MIN))
    };
    // Exact where the result is subnormal: such a sum has at most 52 bits.
    sum as f64 * power
}

impl FloatSum {
    pub fn new(term: Term) -> FloatSum {
        FloatSum { term, ..FloatSum::default() }
    }

    #[inline]
    fn add(&mut self, words: &mut [u64; 3], value: f64, weight: i64) {
        if value == 0.0 {
            return;
        }
        let (integer, exponent) = split(value);
        if words[2] != EMPTY && words[2] != ESCAPED && value.is_finite() && weight.abs() == 1 {
            let shift = exponent - exponent_of(words);
            if (0..64).contains(&shift) {
                let term = i128::from(integer * weight) << shift;
                if let Some(sum) = sum_of(&[words[0], words[1]]).checked_add(term) {
                    [words[0], words[1]] = words_of(sum);
                    return;
                }
            }
        }
        self.add_slowly(words, value, weight);
    }

    #[cold]
    fn add_slowly(&mut self, words: &mut [u64; 3], value: f64, weight: i64) {
        if words[2] != ESCAPED {
            if value.is_finite() {
                let (integer, exponent) = split(value);
                let term = i128::from(integer) * i128::from(weight);
                if add_in_window(words, (term, exponent)) {
                    return;
                }
            }
            self.escape(words);
        }
        self.wide[words[0] as usize].add(value, weight);
    }

    /// Moves the group's sum to a wide sum.
    fn escape(&mut self, words: &mut [u64; 3]) {
        let mut wide = Wide::default();
        if words[2] != EMPTY {
            wide.add_term(sum_of(&[words[0], words[1]]), exponent_of(words));
        }
        *words = [self.keep(wide) as u64, 0, ESCAPED];
    }

    fn keep(&mut self, wide: Wide) -> usize {
        match self.free.pop() {
            Some(index) => {
                self.wide[index] = wide;
                index
            }
            None => {
                self.wide.push(wide);
                self.wide.len() - 1
            }
        }
    }

    /// Adds a product of floats without rounding it.
    fn add_product(&mut self, words: &mut [u64; 3], x: f64, y: f64, weight: i64) {
        let product = x * y;
        self.add(words, product, weight);
        if product.is_finite() {
            // What the product lost; exact unless it is below the smallest float.
            self.add(words, x.mul_add(y, -product), weight);
        }
    }

    fn value(&self, words: &[u64; 3]) -> f64 {
        match words[2] {
            EMPTY => 0.0,
            ESCAPED => self.wide[words[0] as usize].value(),
            _ => scale(sum_of(&[words[0], words[1]]), exponent_of(words)),
        }
    }

    /// The words of a changed row, or the remembered value when they say no more.
    fn at<'a>(
        &self,
        rows: &ChangedRows<'a>,
        row: usize,
        offset: usize,
    ) -> Result<&'a [u64; 3], (f64, f64)> {
        let words = rows.array::<3>(row, offset);
        match rows.group(row) {
            // The wide sum may have gone on since the row was as it was.
            (group, true) if words[2] == ESCAPED => Err(self.remembered[&group]),
            _ => Ok(words),
        }
    }

    fn some_escaped(&self) -> bool {
        self.wide.len() > self.free.len()
    }
}

/// Adds a term in the window, moving it when needed; false when there is no window for both.
fn add_in_window(words: &mut [u64; 3], term: (i128, i32)) -> bool {
    let sum = sum_of(&[words[0], words[1]]);
    let (sum, exponent) = if words[2] == EMPTY || sum == 0 {
        term
    } else {
        let (sum, sum_exponent) = trim((sum, exponent_of(words)));
        let (term, term_exponent) = trim(term);
        let exponent = sum_exponent.min(term_exponent);
        let fits = |value, own: i32| bits_of(value) as i32 + (own - exponent) <= WINDOW_BITS as i32;
        if !fits(sum, sum_exponent) || !fits(term, term_exponent) {
            return false;
        }
        ((sum << (sum_exponent - exponent)) + (term << (term_exponent - exponent)), exponent)
    };
    let [low, high] = words_of(sum);
    *words = [low, high, (exponent + EXPONENT_BIAS) as u64];
    true
}

impl Accumulator for FloatSum {
    fn width_words(&self) -> usize {
        3
    }

    fn fold(&mut self, slots: &mut Slots<'_>, rows: &Rows<'_>) -> Result<()> {
        let mut nulls = None;
        for argument in rows.arguments {
            nulls = NullBuffer::union(nulls.as_ref(), argument.nulls());
        }
        let floats = |argument: usize| cast(&rows.arguments[argument], &DataType::Float64);
        let last = rows.arguments.len() - 1;
        let (x, y) = match self.term {
            Term::First | Term::FirstSquared => (floats(0)?, None),
            Term::Second | Term::SecondSquared => (floats(last)?, None),
            Term::Product => (floats(0)?, Some(floats(last)?)),
        };
        let x = x.as_primitive::<Float64Type>().values();
        match self.term {
            Term::First | Term::Second => rows.for_each(nulls.as_ref(), |group, row, weight| {
                self.add(slots.array(group), x[row], weight);
            }),
            Term::FirstSquared | Term::SecondSquared | Term::Product => {
                let y = y.as_ref().map_or(x, |y| y.as_primitive::<Float64Type>().values());
                rows.for_each(nulls.as_ref(), |group, row, weight| {
                    self.add_product(slots.array(group), x[row], y[row], weight);
                });
            }
        }
        Ok(())
    }

    fn remember(&mut self, slots: &mut Slots<'_>, groups: &[u32]) -> Result<()> {
        if self.some_escaped() {
            for group in groups {
                let words = slots.array::<3>(*group);
                if words[2] == ESCAPED {
                    let pair = self.wide[words[0] as usize].pair();
                    self.remembered.insert(*group, pair);
                }
            }
        }
        Ok(())
    }

    fn settle(&mut self, slots: &mut Slots<'_>, groups: &[u32]) -> Result<()> {
        if !self.some_escaped() {
            return Ok(());
        }
        for group in groups {
            let words = slots.array::<3>(*group);
            if words[2] == ESCAPED {
                let index = words[0] as usize;
                if let Some(window) = self.wide[index].to_window() {
                    *words = window;
                    self.free.push(index);
                }
            }
        }
        Ok(())
    }

    fn values(&self, rows: &ChangedRows<'_>, offset: usize) -> Result<ArrayRef> {
        let value = |row| match self.at(rows, row, offset) {
            Ok(words) => self.value(words),
            Err((value, _)) => value,
        };
        Ok(Arc::new(Float64Array::from_iter_values((0..rows.len()).map(value))))
    }

    fn exact_sums(&self, rows: &ChangedRows<'_>, offset: usize) -> Result<Vec<ExactSum>> {
        let sum = |row| match self.at(rows, row, offset) {
            Err((value, rest)) => ExactSum::Pair(value, rest),
            Ok(words) if words[2] == ESCAPED => {
                let (value, rest) = self.wide[words[0] as usize].pair();
                ExactSum::Pair(value, rest)
            }
            Ok(words) => {
                let (sum, exponent) = trim((sum_of(&[words[0], words[1]]), exponent_of(words)));
                ExactSum::Window { sum, exponent }
            }
        };
        Ok((0..rows.len()).map(sum).collect())
    }

    fn forget_remembered(&mut self) {
        self.remembered.clear();
    }

    fn free(&mut self, slots: &mut Slots<'_>, groups: &[u32]) {
        if self.some_escaped() {
            for group in groups {
                let words = slots.array::<3>(*group);
                if words[2] == ESCAPED {
                    self.free.push(words[0] as usize);
                }
            }
        }
    }

    fn merge(&mut self, own: &mut [u64], other: &[u64], saved: Option<&[u8]>) -> Result<()> {
        let own: &mut [u64; 3] = own.try_into().expect("three words");
        let other: &[u64; 3] = other.try_into().expect("three words");
        match (other[2], saved) {
            (EMPTY, _) => {}
            (ESCAPED, Some(saved)) => {
                let other = Wide::from_bytes(saved)?;
                if own[2] != ESCAPED {
                    self.escape(own);
                }
                self.wide[own[0] as usize].merge(&other);
            }
            (ESCAPED, None) => return Err(Error::internal("a partial sum has lost its digits")),
            _ => {
                let term = (sum_of(&[other[0], other[1]]), exponent_of(other));
                if own[2] != ESCAPED && !add_in_window(own, term) {
                    self.escape(own);
                }
                if own[2] == ESCAPED {
                    self.wide[own[0] as usize].add_term(term.0, term.1);
                }
            }
        }
        Ok(())
    }

    fn saves(&self) -> bool {
        true
    }

    fn save(&self, words: &[u64]) -> Option<Vec<u8>> {
        (words[2] == ESCAPED).then(|| self.wide[words[0] as usize].to_bytes())
    }

    fn load(&mut self, words: &mut [u64], saved: &[u8]) -> Result<()> {
        words[0] = self.keep(Wide::from_bytes(saved)?) as u64;
        Ok(())
    }

    fn memory_bytes(&self) -> usize {
        self.wide.len() * size_of::<Wide>()
            + self.wide.capacity() * size_of::<usize>()
            + self.remembered.capacity() * size_of::<(u32, (f64, f64))>()
    }
}

/// Any sum of floats, exactly.
#[derive(Clone, Debug, PartialEq)]
struct Wide {
    /// The finite part in units of 2^-1074: two's complement, lowest limb first.
    limbs: [u64; WIDE_LIMBS],
    nans: i64,
    infinities: i64,
    negative_infinities: i64,
}

impl Default for Wide {
    fn default() -> Wide {
        Wide { limbs: [0; WIDE_LIMBS], nans: 0, infinities: 0, negative_infinities: 0 }
    }
}

impl Wide {
    fn add(&mut self, value: f64, weight: i64) {
        if value.is_nan() {
            self.nans = self.nans.wrapping_add(weight);
        } else if value == f64::INFINITY {
            self.infinities = self.infinities.wrapping_add(weight);
        } else if value == f64::NEG_INFINITY {
            self.negative_infinities = self.negative_infinities.wrapping_add(weight);
        } else {
            let (integer, exponent) = split(value);
            self.add_term(i128::from(integer) * i128::from(weight), exponent);
        }
    }

    /// Adds `term * 2^exponent`.
    fn add_term(&mut self, term: i128, exponent: i32) {
        let position = usize::try_from(exponent - EXPONENT_MIN).expect("the smallest exponent");
        let (limb, shift) = (position / 64, position % 64);
        let low = (term as u128) << shift;
        let high = if shift == 0 { term >> 127 } else { term >> (128 - shift) };
        let sign = if term < 0 { u64::MAX } else { 0 };
        let mut carry = false;
        for (index, slot) in self.limbs[limb..].iter_mut().enumerate() {
            let part = match index {
                0 => low as u64,
                1 => (low >> 64) as u64,
                2 => high as u64,
                _ => sign,
            };
            let (sum, first) = slot.overflowing_add(part);
            let (sum, second) = sum.overflowing_add(u64::from(carry));
            *slot = sum;
            carry = first || second;
        }
    }

    fn merge(&mut self, other: &Wide) {
        self.nans = self.nans.wrapping_add(other.nans);
        self.infinities = self.infinities.wrapping_add(other.infinities);
        self.negative_infinities = self.negative_infinities.wrapping_add(other.negative_infinities);
        let mut carry = false;
        for (slot, part) in self.limbs.iter_mut().zip(other.limbs) {
            let (sum, first) = slot.overflowing_add(part);
            let (sum, second) = sum.overflowing_add(u64::from(carry));
            *slot = sum;
            carry = first || second;
        }
    }

    /// The finite part without its sign, and whether it is negative.
    fn magnitude(&self) -> ([u64; WIDE_LIMBS], bool) {
        let negative = self.limbs[WIDE_LIMBS - 1] >> 63 == 1;
        let mut limbs = self.limbs;
        if negative {
            let mut carry = true;
            for limb in &mut limbs {
                let (value, overflow) = (!*limb).overflowing_add(u64::from(carry));
                *limb = value;
                carry = overflow;
            }
        }
        (limbs, negative)
    }

    fn finite(&self) -> bool {
        self.nans == 0 && self.infinities == 0 && self.negative_infinities == 0
    }

    fn value(&self) -> f64 {
        if self.nans != 0 || self.infinities != 0 && self.negative_infinities != 0 {
            return f64::NAN;
        }
        if self.infinities != 0 {
            return f64::INFINITY;
        }
        if self.negative_infinities != 0 {
            return f64::NEG_INFINITY;
        }
        let (limbs, negative) = self.magnitude();
        let Some((_, highest)) = bit_range(&limbs) else { return 0.0 };
        // The top 120 bits, and a last one that says whether anything follows: enough to round.
        let lowest = (highest + 1).saturating_sub(120);
        let mut bits = bits_from(&limbs, lowest);
        if bit_range(&limbs).is_some_and(|(first, _)| first < lowest) {
            bits |= 1;
        }
        let value = scale(bits as i128, lowest as i32 + EXPONENT_MIN);
        if negative { -value } else { value }
    }

    /// The nearest float, and the float nearest to the rest.
    fn pair(&self) -> (f64, f64) {
        let value = self.value();
        if !value.is_finite() {
            return (value, 0.0);
        }
        let mut rest = self.clone();
        rest.add(value, -1);
        (value, rest.value())
    }

    /// The three words of a window, when the sum fits one.
    fn to_window(&self) -> Option<[u64; 3]> {
        if !self.finite() {
            return None;
        }
        let (limbs, negative) = self.magnitude();
        let Some((lowest, highest)) = bit_range(&limbs) else { return Some([0, 0, EMPTY]) };
        if highest - lowest >= WINDOW_BITS as usize {
            return None;
        }
        let bits = bits_from(&limbs, lowest) as i128;
        let [low, high] = words_of(if negative { -bits } else { bits });
        Some([low, high, (lowest as i32 + EXPONENT_MIN + EXPONENT_BIAS) as u64])
    }

    fn to_bytes(&self) -> Vec<u8> {
        let counts = [self.nans, self.infinities, self.negative_infinities];
        let counts = counts.iter().flat_map(|count| count.to_le_bytes());
        let (limbs, _) = self.magnitude();
        // Sums of common values use few limbs: write the two's complement from the first to the
        // last that differs from the sign.
        let used = bit_range(&limbs).map_or(0..0, |(low, high)| low / 64..high / 64 + 2);
        let used = used.start..used.end.min(WIDE_LIMBS);
        let start = (used.start as u64).to_le_bytes();
        let limbs = self.limbs[used].iter().flat_map(|limb| limb.to_le_bytes());
        counts.chain(start).chain(limbs).collect()
    }

    fn from_bytes(bytes: &[u8]) -> Result<Wide> {
        let damaged = || Error::internal("a checkpoint holds a damaged sum of floats");
        let (words, rest) = bytes.as_chunks::<8>();
        let words: Vec<u64> = words.iter().map(|word| u64::from_le_bytes(*word)).collect();
        let [nans, infinities, negative_infinities, start, limbs @ ..] = words.as_slice() else {
            return Err(damaged());
        };
        let start = usize::try_from(*start).map_err(|_| damaged())?;
        if !rest.is_empty() || start > WIDE_LIMBS || limbs.len() > WIDE_LIMBS - start {
            return Err(damaged());
        }
        let mut wide = Wide {
            nans: *nans as i64,
            infinities: *infinities as i64,
            negative_infinities: *negative_infinities as i64,
            ..Wide::default()
        };
        wide.limbs[start..start + limbs.len()].copy_from_slice(limbs);
        if limbs.last().is_some_and(|last| last >> 63 == 1) {
            wide.limbs[start + limbs.len()..].fill(u64::MAX);
        }
        Ok(wide)
    }
}

/// Positions of the lowest and the highest bit that is set.
fn bit_range(limbs: &[u64; WIDE_LIMBS]) -> Option<(usize, usize)> {
    let first = limbs.iter().position(|limb| *limb != 0)?;
    let last = limbs.iter().rposition(|limb| *limb != 0)?;
    let lowest = first * 64 + limbs[first].trailing_zeros() as usize;
    let highest = last * 64 + 63 - limbs[last].leading_zeros() as usize;
    Some((lowest, highest))
}

/// The bits from `position` on, as many as fit; the caller knows that those are all there are, up
/// to 127 of them.
fn bits_from(limbs: &[u64; WIDE_LIMBS], position: usize) -> u128 {
    let (limb, shift) = (position / 64, position % 64);
    let at = |index: usize| u128::from(limbs.get(index).copied().unwrap_or(0));
    let low = at(limb) | at(limb + 1) << 64;
    let high = at(limb + 2);
    if shift == 0 { low } else { low >> shift | high << (128 - shift) }
}

#[cfg(test)]
mod tests {
    use rand::rngs::SmallRng;
    use rand::seq::SliceRandom;
    use rand::{Rng, SeedableRng};

    use super::*;

    /// One group's sum after these additions.
    fn sum_of_floats(changes: &[(f64, i64)]) -> (FloatSum, [u64; 3]) {
        let mut sum = FloatSum::default();
        let mut words = [0; 3];
        for (value, weight) in changes {
            sum.add(&mut words, *value, *weight);
        }
        (sum, words)
    }

    fn value_of(changes: &[(f64, i64)]) -> f64 {
        let (sum, words) = sum_of_floats(changes);
        sum.value(&words)
    }

    #[test]
    fn sums_are_exact_and_rounded_once() {
        assert_eq!(value_of(&[]), 0.0);
        assert_eq!(value_of(&[(0.1, 1), (0.2, 1)]), 0.1 + 0.2);
        // Ten times 0.1 rounds to 1; adding one after the other does not.
        assert_eq!(value_of(&[(0.1, 10)]), 1.0);
        assert_eq!(value_of(&[(0.1, 1); 10]), 1.0);
        assert_eq!(value_of(&[(1e300, 1), (1.0, 1), (1e300, -1)]), 1.0);
        assert_eq!(value_of(&[(1e16, 1), (1.0, 1), (1e-30, 1), (1e16, -1), (1.0, -1)]), 1e-30);
        assert_eq!(value_of(&[(f64::MAX, 1), (f64::MAX, 1)]), f64::INFINITY);
        assert_eq!(value_of(&[(f64::MAX, 2), (f64::MAX, -1)]), f64::MAX);
        assert_eq!(value_of(&[(f64::MAX, i64::MAX), (f64::MAX, -i64::MAX)]), 0.0);
        let tiny = f64::from_bits(1);
        assert_eq!(value_of(&[(tiny, 3), (1.0, 1), (1.0, -1)]), 3.0 * tiny);
        assert_eq!(value_of(&[(-1.5, 1), (-2.5, 1)]), -4.0);
        assert_eq!(value_of(&[(-1e200, 1), (-1e-200, 1)]), -1e200);
        // Half way between two floats, and a bit more: the far bit decides.
        let half = 2f64.powi(-53);
        assert_eq!(value_of(&[(1.0, 1), (half, 1)]), 1.0);
        assert_eq!(value_of(&[(1.0, 1), (half, 1), (1e-300, 1)]), 1.0 + f64::EPSILON);
    }

    #[test]
    fn nan_and_infinities_go_when_their_rows_go() {
        let nan = f64::NAN;
        let inf = f64::INFINITY;
        assert!(value_of(&[(1.5, 1), (nan, 1)]).is_nan());
        assert_eq!(value_of(&[(1.5, 1), (nan, 1), (nan, -1)]), 1.5);
        assert_eq!(value_of(&[(1.5, 1), (inf, 1)]), inf);
        assert!(value_of(&[(inf, 1), (-inf, 1)]).is_nan());
        assert_eq!(value_of(&[(inf, 1), (-inf, 1), (inf, -1)]), -inf);
        assert_eq!(value_of(&[(inf, 1), (-inf, 1), (inf, -1), (-inf, -1), (2.0, 1)]), 2.0);
    }

    #[test]
    fn any_order_gives_the_same_bits_and_taking_all_away_gives_zero() {
        let mut rng = SmallRng::seed_from_u64(7);
        for round in 0..300 {
            let range = [1, 30, 120, 2000][round % 4];
            let float = |rng: &mut SmallRng| {
                let exponent = 1023 + rng.random_range(-range / 2..=range / 2);
                let bits = rng.random::<u64>() & !(0x7ff << 52) | (exponent as u64) << 52;
                (f64::from_bits(bits), rng.random_range(-3..=3))
            };
            let mut changes: Vec<(f64, i64)> = (0..50).map(|_| float(&mut rng)).collect();
            let expected = value_of(&changes);
            changes.shuffle(&mut rng);
            assert_eq!(value_of(&changes).to_bits(), expected.to_bits());
            let (mut sum, mut words) = sum_of_floats(&changes);
            // A sum that escaped survives its checkpoint, and comes back when it fits.
            if let Some(saved) = sum.save(&words) {
                let mut copy = FloatSum::default();
                let mut copied = words;
                copy.load(&mut copied, &saved).expect("loads");
                assert_eq!(copy.value(&copied).to_bits(), expected.to_bits());
                assert_eq!(copy.wide[copied[0] as usize], sum.wide[words[0] as usize]);
            }
            let mut slots = Slots { words: &mut words, stride: 3, offset: 0 };
            sum.settle(&mut slots, &[0]).expect("settles");
            assert_eq!(sum.value(&words).to_bits(), expected.to_bits());
            for (value, weight) in &changes {
                sum.add(&mut words, *value, -weight);
            }
            let mut slots = Slots { words: &mut words, stride: 3, offset: 0 };
            sum.settle(&mut slots, &[0]).expect("settles");
            assert_eq!(sum.value(&words).to_bits(), 0);
            assert!(!sum.some_escaped());
        }
    }

    #[test]
    fn common_values_stay_in_the_row() {
        let mut rng = SmallRng::seed_from_u64(8);
        let cents = |rng: &mut SmallRng| rng.random_range(-1_000_000..1_000_000) as f64 / 100.0;
        let changes: Vec<(f64, i64)> = (0..100_000).map(|_| (cents(&mut rng), 1)).collect();
        let (sum, _) = sum_of_floats(&changes);
        assert!(!sum.some_escaped());
        let changes: Vec<(f64, i64)> = (0..100_000).map(|_| (rng.random::<f64>(), 1)).collect();
        let (sum, words) = sum_of_floats(&changes);
        assert!(!sum.some_escaped());
        let naive: f64 = changes.iter().map(|c| c.0).sum();
        assert!((sum.value(&words) - naive).abs() < 1e-6);
    }

    #[test]
    fn damaged_bytes_are_an_error() {
        for length in [0, 7, 24, 33, 8 * 50] {
            assert!(Wide::from_bytes(&vec![0xff; length]).is_err(), "{length}");
        }
    }
}
