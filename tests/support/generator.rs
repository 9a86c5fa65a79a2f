//! Numbers that Python and Rust make alike, so that no weights need to be stored.
//!
//! `examples/golden/generator.py` is the same in Python. **Invariant:** every product is exact in f32.

const GOLDEN_GAMMA: u64 = 0x9E37_79B9_7F4A_7C15;

/// 64-bit FNV-1a of a name's UTF-8 bytes.
pub fn fnv1a(name: &str) -> u64 {
    name.bytes().fold(0xCBF2_9CE4_8422_2325, |value, byte| (value ^ u64::from(byte)).wrapping_mul(0x0100_0000_01B3))
}

/// Outputs of splitmix64, started at `fnv1a(name) + seed * GOLDEN_GAMMA`.
pub fn bits(seed: u64, name: &str) -> impl Iterator<Item = u64> {
    let start = fnv1a(name).wrapping_add(seed.wrapping_mul(GOLDEN_GAMMA));
    (1u64..).map(move |index| {
        let z = start.wrapping_add(index.wrapping_mul(GOLDEN_GAMMA));
        let z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    })
}

/// `offset + scale * k / 2^15` with 16-bit `k`; exact where `scale` has at most 8 significant bits.
pub fn weights(seed: u64, name: &str, count: usize, [offset, scale]: [f32; 2]) -> Vec<f32> {
    let step = |z: u64| ((z >> 48) as i32 - (1 << 15)) as f32 / (1 << 15) as f32;
    bits(seed, name).take(count).map(|z| offset + scale * step(z)).collect()
}

/// `scale * k / 2^23` with 24-bit `k`; exact where `scale` is a power of two.
pub fn logits(seed: u64, name: &str, count: usize, scale: f32) -> Vec<f32> {
    let step = |z: u64| ((z >> 40) as i32 - (1 << 23)) as f32 / (1 << 23) as f32;
    bits(seed, name).take(count).map(|z| scale * step(z)).collect()
}

/// Token ids below `vocab_size`.
pub fn ids(seed: u64, name: &str, count: usize, vocab_size: usize) -> Vec<u32> {
    bits(seed, name).take(count).map(|z| (z % vocab_size as u64) as u32).collect()
}
