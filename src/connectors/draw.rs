//! Randomness as a pure function: draw number n of a stream depends on (seed, stream, n) alone.
//!
//! So a generator can start anywhere, leave out columns, and spread its rows over splits, and
//! still give the same rows. A counter is mixed by the finaliser of splitmix64 (three xor-shifts,
//! two multiplications), whose output for counters passes the usual batteries of tests.

/// A step that spreads consecutive counters over 64 bits: 2^64 / golden ratio, odd.
const STEP: u64 = 0x9E37_79B9_7F4A_7C15;

/// One stream of random numbers, read by position.
#[derive(Clone, Copy, Debug)]
pub struct Draw {
    key: u64,
}

impl Draw {
    /// Stream number `stream` of `seed`; streams are independent of each other.
    pub fn new(seed: u64, stream: u64) -> Draw {
        Draw { key: mix(mix(seed.wrapping_add(STEP)) ^ stream.wrapping_mul(STEP)) }
    }

    /// A stream below this one, for draws that one position needs several of.
    #[inline]
    pub fn child(self, number: u64) -> Draw {
        Draw { key: mix(self.key ^ number.wrapping_mul(STEP)) }
    }

    /// 64 random bits.
    #[inline]
    pub fn at(self, position: u64) -> u64 {
        mix(self.key.wrapping_add(position.wrapping_mul(STEP)))
    }
}

#[inline]
fn mix(mut x: u64) -> u64 {
    x = (x ^ (x >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    x ^ (x >> 31)
}

/// Random bits as a number below `bound` (0 for a bound of 0). The bias is below bound / 2^64.
#[inline]
pub fn below(bits: u64, bound: u64) -> u64 {
    ((u128::from(bits) * u128::from(bound)) >> 64) as u64
}

/// The upper and the lower half of the bits, each as a number below its bound, for two small
/// choices from one draw. The bias is below bound / 2^32.
#[inline]
pub fn below_pair(bits: u64, upper: u32, lower: u32) -> (u32, u32) {
    let high = ((bits >> 32) * u64::from(upper)) >> 32;
    let low = ((bits & 0xFFFF_FFFF) * u64::from(lower)) >> 32;
    (high as u32, low as u32)
}

/// Random bits as a fraction in [0, 1), of 53 bits.
#[inline]
pub fn fraction(bits: u64) -> f64 {
    (bits >> 11) as f64 * (1.0 / (1u64 << 53) as f64)
}

/// Appends `length` random letters a to z; `draw` is the text's own stream.
#[inline]
pub fn push_letters(text: &mut Vec<u8>, draw: Draw, length: usize) {
    // Eight letters from one draw: the bytes scaled to 0..26 in two sets of four 16-bit lanes.
    const LANES: u64 = 0x00FF_00FF_00FF_00FF;
    const LETTER_A: u64 = 0x6161_6161_6161_6161;
    let end = text.len() + length;
    for word in 0..length.div_ceil(8) {
        let bits = draw.at(word as u64);
        let even = (((bits & LANES) * 26) >> 8) & LANES;
        let odd = ((((bits >> 8) & LANES) * 26) >> 8) & LANES;
        let letters = (even | (odd << 8)) + LETTER_A;
        text.extend_from_slice(&letters.to_le_bytes());
    }
    text.truncate(end);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn draws_depend_on_seed_stream_and_position_only() {
        let draw = Draw::new(7, 3);
        assert_eq!(draw.at(1000), Draw::new(7, 3).at(1000));
        assert_ne!(draw.at(1000), Draw::new(8, 3).at(1000));
        assert_ne!(draw.at(1000), Draw::new(7, 4).at(1000));
        assert_ne!(draw.at(1000), draw.at(1001));
        assert_ne!(draw.at(1000), draw.child(0).at(1000));
    }

    #[test]
    fn bounded_draws_are_even() {
        let draw = Draw::new(1, 1);
        let mut counts = [0u32; 10];
        let mut pairs = [[0u32; 4]; 3];
        let mut sum = 0.0;
        for n in 0..120_000 {
            counts[below(draw.at(n), 10) as usize] += 1;
            let (a, b) = below_pair(draw.at(n), 3, 4);
            pairs[a as usize][b as usize] += 1;
            sum += fraction(draw.at(n));
        }
        // 12,000 and 10,000 expected; six standard deviations are 624 and 574.
        assert!(counts.iter().all(|c| c.abs_diff(12_000) < 624), "{counts:?}");
        assert!(pairs.iter().flatten().all(|c| c.abs_diff(10_000) < 574), "{pairs:?}");
        assert!((sum / 120_000.0 - 0.5).abs() < 0.005);
        assert_eq!(below(u64::MAX, 10), 9);
        assert_eq!(below(u64::MAX, 0), 0);
    }

    #[test]
    fn letters_are_letters_and_every_one_occurs() {
        let mut text = Vec::new();
        for length in 0..200 {
            text.clear();
            text.push(b'!');
            push_letters(&mut text, Draw::new(5, length as u64), length);
            assert_eq!(text.len(), length + 1);
            assert!(text[1..].iter().all(u8::is_ascii_lowercase));
        }
        push_letters(&mut text, Draw::new(5, 5), 26_000);
        let mut counts = [0u32; 26];
        for letter in &text[1..] {
            counts[usize::from(letter - b'a')] += 1;
        }
        // Bytes scale to letters in steps of 9 or 10 in 256.
        assert!(counts.iter().all(|c| (800..1200).contains(c)), "{counts:?}");
    }
}
