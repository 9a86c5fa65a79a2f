//! Whether a device computes what it should: each fast kernel on random numbers against plain code, when the program starts.
//!
//! Takes a fraction of a second. What computes wrong is not used, which is said; where nothing could stand in for it the model is
//! refused.

use std::fmt;

use half::bf16;

use super::{
    CudaSettings,
    device::{Device, DeviceError, LargeProduct},
    kernels::{self, Cells, DeviceMatrix, DrawSettings, Draws, Heads, MOST_ROWS, Telling, Then, Told},
    samples::{Context, Random, get, matrix, products, put, silu_multiply, wide},
};
use crate::{
    chat::settings::Sampling,
    engine::{
        block_format::BlockFormat,
        sampling::{self, Draw},
    },
};

/// Something that a device computes fast, and that something slower can stand in for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    LargeProducts,
    Products,
    Attention,
    Sampler,
    Probabilities,
    Graphs,
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::LargeProducts => "cuBLAS",
            Self::Products => "multiplying few rows",
            Self::Attention => "attention",
            Self::Sampler => "drawing tokens",
            Self::Probabilities => "telling probabilities",
            Self::Graphs => "running recorded launches",
        })
    }
}

/// Of matrices that are checked; no whole tiles of rows.
const N_OUT: usize = 40;
const N_IN: usize = 512;
const ROWS: [usize; 3] = [3, 11, MOST_ROWS];
/// Formats of which each becomes another form on the device.
const FORMATS: [Option<BlockFormat>; 4] =
    [None, Some(BlockFormat::Q8_0), Some(BlockFormat::Q6K), Some(BlockFormat::Q4K)];
/// Half a unit in the last place of a bf16 is at most 2^-8 of it; a few of them.
const ROUNDED: f64 = 1.0 / 100.0;
const IN_SINGLES: f64 = 1e-4;

/// What was found out about a part.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Finding {
    /// Whether every number is near what it should be.
    pub is_right: bool,
    /// The largest error (root of the mean square) over that of plain code in the same types, both against doubles; 0 for what is
    /// right or not.
    pub ratio: f64,
}

const RIGHT: Finding = Finding { is_right: true, ratio: 0.0 };
const WRONG: Finding = Finding { is_right: false, ratio: 0.0 };

/// The settings without what computes wrong on this device, which is logged.
///
/// # Errors
/// [`DeviceError::Wrong`], where nothing can stand in for what is wrong, and whatever else the device says.
pub fn checked(
    device: &mut dyn Device,
    (heads, cells): (Heads, Cells),
    settings: CudaSettings,
) -> Result<CudaSettings, DeviceError> {
    let mut settings = CudaSettings { cublas: settings.cublas && device.has_large_products(), ..settings };
    if !settings.fast_products && !settings.cublas {
        return Err(DeviceError::NoProducts);
    }
    for part in PARTS {
        let is_used = part.switch(&mut settings);
        if *is_used && !part.examine(device, (heads, cells))?.is_right {
            *is_used = false;
            tracing::error!(
                "{part} goes wrong on {} and is not used, which makes it slower; the card or its driver may be defective",
                device.name()
            );
        }
    }
    if !settings.fast_products && !settings.cublas {
        return Err(DeviceError::Wrong("products"));
    }
    if !settings.fast_attention && !attention(device, (heads, cells), false)?.is_right {
        return Err(DeviceError::Wrong("attention"));
    }
    Ok(settings)
}

/// What there is to say of each part, for people.
///
/// # Errors
/// [`DeviceError`].
pub fn findings(device: &mut dyn Device, (heads, cells): (Heads, Cells)) -> Result<Vec<String>, DeviceError> {
    let mut lines = Vec::new();
    for part in PARTS {
        if part == Part::LargeProducts && !device.has_large_products() {
            lines.push(format!("{part} is not there"));
            continue;
        }
        let Finding { is_right, ratio } = part.examine(device, (heads, cells))?;
        let right = if is_right { "right" } else { "wrong" };
        lines.push(match ratio {
            0.0 => format!("{part} is {right}"),
            _ => format!("{part} is {right}, its error {ratio:.2} of a plain implementation's"),
        });
    }
    Ok(lines)
}

const PARTS: [Part; 6] =
    [Part::LargeProducts, Part::Products, Part::Attention, Part::Sampler, Part::Probabilities, Part::Graphs];

impl Part {
    fn switch(self, settings: &mut CudaSettings) -> &mut bool {
        match self {
            Self::LargeProducts => &mut settings.cublas,
            Self::Products => &mut settings.fast_products,
            Self::Attention => &mut settings.fast_attention,
            Self::Sampler => &mut settings.sampler,
            Self::Probabilities => &mut settings.probabilities,
            Self::Graphs => &mut settings.graphs,
        }
    }

    fn examine(self, device: &mut dyn Device, attended: (Heads, Cells)) -> Result<Finding, DeviceError> {
        match self {
            Self::LargeProducts => large_products(device),
            Self::Products => few_rows(device),
            Self::Attention => attention(device, attended, true),
            Self::Sampler => sampler(device),
            Self::Probabilities => probabilities(device),
            Self::Graphs => graphs(device),
        }
    }
}

impl Finding {
    /// With these numbers as well.
    fn and(self, found: &[f64], expected: &[f64], plain: &[f64], tolerance: f64) -> Self {
        // What plain code computes exactly by chance is no measure.
        let least = 1e-6 * root_mean_square(expected);
        let error = |numbers: &[f64]| {
            let differences: Vec<f64> =
                numbers.iter().zip(expected).map(|(number, expected)| number - expected).collect();
            root_mean_square(&differences)
        };
        Self {
            is_right: self.is_right && are_near(found, expected, tolerance),
            ratio: self.ratio.max(error(found) / (error(plain) + least)),
        }
    }
}

fn root_mean_square(numbers: &[f64]) -> f64 {
    (numbers.iter().map(|number| number * number).sum::<f64>() / numbers.len().max(1) as f64).sqrt()
}

/// Products as plain code has them: summed from the first to the last, in singles.
fn plain_products(x: &[bf16], weights: &[f64], n_in: usize) -> Vec<f64> {
    let x: Vec<f32> = x.iter().map(|x| x.to_f32()).collect();
    let dot = |x: &[f32], row: &[f64]| x.iter().zip(row).fold(0.0_f32, |sum, (x, weight)| sum + x * *weight as f32);
    x.chunks_exact(n_in).flat_map(|x| weights.chunks_exact(n_in).map(move |row| f64::from(dot(x, row)))).collect()
}

fn rounded(numbers: &[f64]) -> Vec<f64> {
    numbers.iter().map(|number| bf16::from_f64(*number).to_f64()).collect()
}

/// Whether each number is as far as that from what it should be at most, relative to what they are about.
fn are_near(found: &[f64], expected: &[f64], tolerance: f64) -> bool {
    let size = root_mean_square(expected);
    let is_near = |(found, expected): (&f64, &f64)| (found - expected).abs() <= tolerance * (expected.abs() + size);
    found.len() == expected.len() && found.iter().zip(expected).all(is_near)
}

fn singles(device: &mut dyn Device, from: super::device::Address, n: usize) -> Result<Vec<f64>, DeviceError> {
    Ok(get::<f32>(device, from, n)?.into_iter().map(f64::from).collect())
}

/// Weights of each form are widened and multiplied.
fn large_products(device: &mut dyn Device) -> Result<Finding, DeviceError> {
    let n_rows = 70;
    let x = Random(1).halves(n_rows * N_IN);
    let on_device = put(device, &x)?;
    let out = device.allocate(4 * n_rows * N_OUT)?;
    let widened = device.allocate(2 * N_OUT.next_multiple_of(16) * N_IN)?;
    let mut finding = RIGHT;
    for format in FORMATS {
        let (weights, meant) = matrix(device, format, N_OUT, N_IN)?;
        kernels::widen(device, weights, widened)?;
        let weights = if format.is_none() { weights.quants } else { widened };
        let (n_in, n_out) = (N_IN, N_OUT);
        device.multiply(&LargeProduct {
            x: on_device,
            weights,
            out,
            n_rows,
            n_in,
            n_out,
            width: n_out,
            adds: false,
        })?;
        let found = singles(device, out, n_rows * N_OUT)?;
        let plain = plain_products(&x, &rounded(&meant), N_IN);
        finding = finding.and(&found, &products(&x, &meant, N_IN), &plain, ROUNDED);
    }
    Ok(finding)
}

fn few_rows(device: &mut dyn Device) -> Result<Finding, DeviceError> {
    let mut finding = RIGHT;
    for format in FORMATS {
        let (weights, meant) = matrix(device, format, N_OUT, N_IN)?;
        let (gate_up, both) = matrix(device, format, 2 * 16, N_IN)?;
        for n_rows in ROWS {
            let x = Random(2).halves(n_rows * N_IN);
            let on_device = put(device, &x)?;
            let expected = products(&x, &meant, N_IN);
            let out = device.allocate(4 * n_rows * N_OUT)?;
            kernels::multiply(device, weights, (on_device, n_rows), (Then::Store, out, N_OUT))?;
            let stored = singles(device, out, n_rows * N_OUT)?;
            kernels::multiply(device, weights, (on_device, n_rows), (Then::Add, out, N_OUT))?;
            let added = singles(device, out, n_rows * N_OUT)?;
            let halves: Vec<f64> = added.iter().map(|sum| sum / 2.0).collect();
            let plain = plain_products(&x, &meant, N_IN);
            finding = finding.and(&stored, &expected, &plain, IN_SINGLES).and(&halves, &expected, &plain, IN_SINGLES);
            let gate_up = DeviceMatrix { n_out: 16, ..gate_up };
            kernels::multiply(device, gate_up, (on_device, n_rows), (Then::Silu, out, 16))?;
            let found: Vec<bf16> = get(device, out, n_rows * 16)?;
            let silu = |sums: &[f64]| -> Vec<f64> {
                let rows = sums.chunks_exact(32).flat_map(|row| row[..16].iter().zip(&row[16..]));
                rows.map(|(gate, up)| silu_multiply(*gate, *up)).collect()
            };
            let expected = silu(&products(&x, &both, N_IN));
            let plain = rounded(&silu(&plain_products(&x, &both, N_IN)));
            finding = finding.and(&wide(&found), &expected, &plain, ROUNDED);
        }
    }
    Ok(finding)
}

fn attention(device: &mut dyn Device, (heads, cells): (Heads, Cells), is_fast: bool) -> Result<Finding, DeviceError> {
    // Few heads are enough, in the same groups.
    let n_kv = heads.n_kv.min(2);
    let heads = Heads { n: n_kv * (heads.n / heads.n_kv), n_kv, ..heads };
    let positions = [0, 37, -1, 300];
    let context = Context::new(device, (heads, cells), &positions)?;
    let queries: Vec<bf16> =
        Random(3).floats(positions.len() * heads.n * heads.dim).iter().map(|x| bf16::from_f32(4.0 * x)).collect();
    let on_device = put(device, &queries)?;
    let out = put(device, &vec![bf16::ZERO; queries.len()])?;
    let expected = context.attended(&queries);
    let plain = context.attended_plainly(&queries);
    let mut finding = RIGHT;
    if is_fast {
        // First as tokens of a prompt, then as single ones.
        let tiles = put(device, &[0, 1, 1, 1, 3, 1])?;
        kernels::attend_tokens(device, context.rows, heads, (tiles, 3), (on_device, out), context.cache)?;
        finding = finding.and(&wide(&get(device, out, queries.len())?), &expected, &plain, ROUNDED);
        super::device::write_numbers(device, out, &vec![bf16::ZERO; queries.len()])?;
        let parts = device.allocate(kernels::part_bytes(positions.len(), heads, 512))?;
        kernels::attend(device, context.rows, (heads, 512), (on_device, parts, out), context.cache)?;
    } else {
        kernels::attend_plainly(device, context.rows, heads, (on_device, out), context.cache)?;
    }
    Ok(finding.and(&wide(&get(device, out, queries.len())?), &expected, &plain, ROUNDED))
}

fn sampler(device: &mut dyn Device) -> Result<Finding, DeviceError> {
    let vocab_size = 3001;
    let logits: Vec<f32> = Random(4).floats(vocab_size).iter().map(|number| 12.0 * number).collect();
    let seen = [5, 6, 2999];
    let mut bits = vec![0_u32; kernels::seen_words(vocab_size)];
    for id in seen {
        bits[id as usize / 32] |= 1 << (id % 32);
    }
    let draw = |temperature, seed| {
        let sampling = Sampling { temperature, top_k: 40, top_p: 0.9, repetition_penalty: 1.2, ..Sampling::default() };
        Draw { sampling, seed, index: seed }
    };
    for draw in [draw(0.0, 1), draw(1.0, 2), draw(1.0, 3), draw(2.0, 4)] {
        let Some(settings) = DrawSettings::of(&draw) else { return Ok(WRONG) };
        let draws = Draws {
            logits: put(device, &logits)?,
            settings: put(device, &[settings])?,
            slots: put(device, &[0_i32])?,
            seen: put(device, &bits)?,
            drawn: put(device, &[kernels::HOST_DRAWS])?,
        };
        kernels::sample(device, 1, draws, vocab_size)?;
        let token: Vec<i32> = get(device, draws.drawn, 1)?;
        let expected = sampling::draw(&logits, &seen, &draw).ok().and_then(|token| i32::try_from(token).ok());
        // And the row of the next step, which the device makes of it.
        let next = (put(device, &[0_i32])?, put(device, &[17_i32])?);
        kernels::advance(device, 1, draws, next)?;
        let [id, position] = [next.0, next.1].map(|address| get::<i32>(device, address, 1));
        let settings = get(device, draws.settings, 1)?;
        let is_next = DrawSettings::of(&Draw { index: draw.index + 1, ..draw }) == settings.first().copied();
        if token.first().copied() != expected || id? != token || position? != [18] || !is_next {
            return Ok(WRONG);
        }
    }
    Ok(RIGHT)
}

fn probabilities(device: &mut dyn Device) -> Result<Finding, DeviceError> {
    let (vocab_size, drawn, n_top) = (3001, 70, 5);
    let logits: Vec<f32> = Random(7).floats(2 * vocab_size).iter().map(|number| 12.0 * number).collect();
    let tellings = [Telling { token: 9, n_top }, Telling { token: -1, n_top }];
    let from = (put(device, &logits)?, put(device, &[kernels::HOST_DRAWS, drawn])?);
    let places = (put(device, &tellings)?, device.allocate(tellings.len() * size_of::<Told>())?);
    kernels::tell(device, tellings.len(), from, places, vocab_size)?;
    let told: Vec<Told> = get(device, places.1, tellings.len())?;
    let mut is_right = true;
    for ((logits, told), token) in logits.chunks_exact(vocab_size).zip(&told).zip([9, drawn.cast_unsigned()]) {
        let expected = sampling::logprobs(logits, token, n_top.cast_unsigned());
        let is_near = |found: f32, expected: f32| (found - expected).abs() <= 1e-4;
        let top: Vec<(u32, f32)> = told.top(n_top as usize).collect();
        is_right &= is_near(told.logprob, expected.logprob)
            && top.len() == expected.top.len()
            && top
                .iter()
                .zip(&expected.top)
                .all(|(found, expected)| found.0 == expected.0 && is_near(found.1, expected.1));
    }
    Ok(if is_right { RIGHT } else { WRONG })
}

/// What is recorded does nothing at first, and then what it does by itself, with what is there by then.
fn graphs(device: &mut dyn Device) -> Result<Finding, DeviceError> {
    let ffn = 100;
    let first = Random(5).floats(2 * ffn);
    let second = Random(6).floats(2 * ffn);
    let (from, to) = (put(device, &first)?, device.allocate(2 * ffn)?);
    kernels::silu_multiply(device, (1, ffn), (from, to))?;
    let before: Vec<u16> = get(device, to, ffn)?;
    let recorded = device.begin_recording().and_then(|()| {
        let launched = kernels::silu_multiply(device, (1, ffn), (from, to));
        let recorded = device.end_recording();
        launched.and(recorded)
    });
    let graph = match recorded {
        Ok(graph) => graph,
        Err(DeviceError::Recording(why)) => {
            tracing::warn!(why, "launches cannot be recorded");
            return Ok(WRONG);
        }
        Err(error) => return Err(error),
    };
    if get::<u16>(device, to, ffn)? != before {
        return Ok(WRONG);
    }
    super::device::write_numbers(device, from, &second)?;
    device.replay(graph)?;
    let replayed: Vec<u16> = get(device, to, ffn)?;
    kernels::silu_multiply(device, (1, ffn), (from, to))?;
    let is_right = get::<u16>(device, to, ffn)? == replayed && replayed != before;
    Ok(if is_right { RIGHT } else { WRONG })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::backend::cuda::emulator::Emulator;

    const HEADS: Heads = Heads { n: 8, n_kv: 4, dim: 64 };

    fn with_broken(kernels: &[&'static str]) -> Result<CudaSettings, DeviceError> {
        let mut device = Emulator::new();
        device.broken = kernels.to_vec();
        checked(&mut device, (HEADS, Cells::Bf16), CudaSettings::default())
    }

    #[test]
    fn a_device_that_computes_right_keeps_all_that_is_fast() {
        assert_eq!(with_broken(&[]), Ok(CudaSettings::default()));
    }

    #[test]
    fn errors_are_at_most_twice_those_of_plain_code() {
        let mut device = Emulator::new();
        for part in PARTS {
            let finding = part.examine(&mut device, (HEADS, Cells::Int8)).unwrap();
            assert!(finding.is_right && finding.ratio <= 2.0, "{part}: {finding:?}");
        }
        let lines = findings(&mut device, (HEADS, Cells::Bf16)).unwrap();
        assert!(lines[1].starts_with("multiplying few rows is right, its error "), "{lines:?}");
        assert_eq!(lines[5], "running recorded launches is right");
    }

    #[test]
    fn what_computes_wrong_is_not_used() {
        let all = CudaSettings::default();
        let slow_products = CudaSettings { fast_products: false, ..all };
        for kernel in ["store_dense_8", "add_bytes_16", "silu_small_bytes_32", "store_nibbles_32"] {
            assert_eq!(with_broken(&[kernel]), Ok(slow_products), "{kernel}");
        }
        assert_eq!(with_broken(&["widen_nibbles"]), Ok(CudaSettings { cublas: false, ..all }));
        for kernel in ["sample", "advance"] {
            assert_eq!(with_broken(&[kernel]), Ok(CudaSettings { sampler: false, ..all }), "{kernel}");
        }
        assert_eq!(with_broken(&["tell"]), Ok(CudaSettings { probabilities: false, ..all }));
        for kernel in ["attend_bf16_64", "join", "attend_tile_bf16_64"] {
            assert_eq!(with_broken(&[kernel]), Ok(CudaSettings { fast_attention: false, ..all }), "{kernel}");
        }
    }

    #[test]
    fn something_has_to_multiply() {
        let settings = CudaSettings { fast_products: false, ..CudaSettings::default() };
        let of = |has_large_products| {
            let mut device = Emulator::new();
            device.has_large_products = has_large_products;
            checked(&mut device, (HEADS, Cells::Bf16), settings)
        };
        assert_eq!(of(true), Ok(settings));
        assert_eq!(of(false), Err(DeviceError::NoProducts));
    }

    #[test]
    fn what_nothing_can_stand_in_for_is_an_error() {
        assert_eq!(with_broken(&["attend_bf16_64", "attend_plainly_bf16"]), Err(DeviceError::Wrong("attention")));
        assert_eq!(with_broken(&["add_dense_8", "widen_bytes"]), Err(DeviceError::Wrong("products")));
    }
}
