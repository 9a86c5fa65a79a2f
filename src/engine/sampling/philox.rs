//! Philox4x32-10 (Salmon, Moraes, Dror, Shaw 2011): random numbers as a function of a key and a counter.
//!
//! There is no state: number n of a seed is computed from n, on any device, in any order.

const MULTIPLIERS: [u32; 2] = [0xD251_1F53, 0xCD9E_8D57];
const KEY_STEPS: [u32; 2] = [0x9E37_79B9, 0xBB67_AE85];
const ROUNDS: usize = 10;

/// Four random words for a counter of 128 bits, low half first, under a key of 64.
#[must_use]
pub fn philox(counter: [u64; 2], key: u64) -> [u32; 4] {
    let [a, b] = halves(counter[0]);
    let [c, d] = halves(counter[1]);
    let mut words = [a, b, c, d];
    let mut key = halves(key);
    for _ in 0..ROUNDS {
        let [low_0, high_0] = halves(u64::from(MULTIPLIERS[0]) * u64::from(words[0]));
        let [low_1, high_1] = halves(u64::from(MULTIPLIERS[1]) * u64::from(words[2]));
        words = [high_1 ^ words[1] ^ key[0], low_1, high_0 ^ words[3] ^ key[1], low_0];
        key = [key[0].wrapping_add(KEY_STEPS[0]), key[1].wrapping_add(KEY_STEPS[1])];
    }
    words
}

/// Draw `index` of `seed`: at least 0, below 1, a multiple of 2^-24, so that f32 holds it exactly.
#[must_use]
pub fn uniform(seed: u64, index: u64) -> f32 {
    let [word, ..] = philox([index, 0], seed);
    (word >> 8) as f32 / (1 << 24) as f32
}

/// Low half, high half.
fn halves(word: u64) -> [u32; 2] {
    [word as u32, (word >> 32) as u32]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_published_answers_come_out() {
        assert_eq!(philox([0, 0], 0), [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]);
        assert_eq!(philox([u64::MAX, u64::MAX], u64::MAX), [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]);
        // The digits of pi.
        assert_eq!(
            philox([0x85a3_08d3_243f_6a88, 0x0370_7344_1319_8a2e], 0x299f_31d0_a409_3822),
            [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1]
        );
    }

    #[test]
    fn draws_lie_in_the_unit_interval_and_fill_it_evenly() {
        let mut tenths = [0_usize; 10];
        for index in 0..100_000 {
            let draw = uniform(7, index);
            assert!((0.0..1.0).contains(&draw));
            tenths[(draw * 10.0) as usize] += 1;
        }
        assert!(tenths.iter().all(|&count| (9_500..10_500).contains(&count)), "{tenths:?}");
    }

    #[test]
    fn seed_and_index_both_matter() {
        assert_ne!(uniform(1, 0), uniform(2, 0));
        assert_ne!(uniform(1, 0), uniform(1, 1));
        assert_ne!(uniform(1, 0), uniform(1 << 40, 0));
        assert_ne!(uniform(1, 0), uniform(1, 1 << 40));
        assert_eq!(uniform(1, 5), uniform(1, 5));
    }
}
