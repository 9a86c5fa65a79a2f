//! The kernels by what they do, with their grids; what they compute stands in `kernels/`.

use super::{
    device::{Address, Argument, Device, DeviceError, Launch},
    packing::{STEP, TILE_ROWS, WeightForm},
};
use crate::{chat::settings::Sampling, engine::sampling::Draw};

/// Positions of one part of attention.
pub const SPLIT: usize = 256;
/// Rows that one product takes at most.
pub const MOST_ROWS: usize = 32;

const WARP: usize = 32;
const ROW_THREADS: usize = 256;
const ROTARY_THREADS: usize = 128;
const ATTENTION_THREADS: usize = 128;
/// Positions that a block of attention reads at once.
const POSITIONS_AT_ONCE: usize = 16;
const PRODUCT_THREADS: usize = 256;
/// Most candidates of a draw, and so the largest top-k that the device draws with.
pub const MOST_CANDIDATES: usize = 1024;
/// Drawn for a row that the host has to draw for.
pub const HOST_DRAWS: i32 = -1;
/// Drawn for a row whose logits are not numbers.
pub const NOT_A_NUMBER: i32 = -2;
const SAMPLE_THREADS: usize = 1024;
/// What `SampleMemory` in `kernels/sample.cuh` takes.
const SAMPLE_BYTES: usize = 4 * 2048 + (3 * 4 + 8) * MOST_CANDIDATES + 24;

/// Most of the likeliest tokens that the device tells of.
pub const MOST_TOP: usize = 20;
/// What `TellMemory` in `kernels/probabilities.cuh` takes.
const TELL_BYTES: usize = 8 * SAMPLE_THREADS + 3 * 4 * (SAMPLE_THREADS / WARP);

/// What a row of a batch is and where its keys and values lie.
#[derive(Debug, Clone, Copy)]
pub struct Rows {
    /// How many, those that fill the batch up included.
    pub n: usize,
    /// i32, shape (row): the position, negative where the row only fills up.
    pub positions: Address,
    /// i32, shape (row, `table_width`): blocks of keys and values.
    pub tables: Address,
    /// Most blocks of a sequence.
    pub table_width: usize,
}

/// Sizes of attention.
#[derive(Debug, Clone, Copy)]
pub struct Heads {
    /// Of queries.
    pub n: usize,
    /// Of keys and values.
    pub n_kv: usize,
    /// Numbers of one.
    pub dim: usize,
}

/// Keys and values of one layer, shape (block, key-value head, position in the block, `head_dim`).
#[derive(Debug, Clone, Copy)]
pub struct LayerCache {
    /// What they are held in.
    pub cells: Cells,
    /// The keys.
    pub keys: Address,
    /// The values.
    pub values: Address,
    /// f16, without the last axis; nothing for bf16.
    pub key_scales: Address,
    /// The same.
    pub value_scales: Address,
}

/// What keys and values are held in on the device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cells {
    /// bf16.
    Bf16,
    /// Integers of eight bits, with a scale for each head's key or value at a position.
    Int8,
}

impl Cells {
    /// Bytes of so many numbers of one head.
    #[must_use]
    pub fn n_bytes(self, head_dim: usize) -> usize {
        match self {
            Self::Bf16 => 2 * head_dim,
            Self::Int8 => head_dim,
        }
    }

    /// Bytes of the scale.
    #[must_use]
    pub fn scale_bytes(self) -> usize {
        match self {
            Self::Bf16 => 0,
            Self::Int8 => 2,
        }
    }
}

/// A matrix of shape (`n_out`, `n_in`) on the device.
#[derive(Debug, Clone, Copy)]
pub struct DeviceMatrix {
    /// How its numbers are held.
    pub form: WeightForm,
    /// The numbers, or the integers.
    pub quants: Address,
    /// Their scales.
    pub scales: Address,
    /// Rows.
    pub n_out: usize,
    /// Columns.
    pub n_in: usize,
}

/// What becomes of products.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Then {
    /// They are put out, f32.
    Store,
    /// They are added to what is there, f32.
    Add,
    /// The matrix is two of `n_out` rows; put out is silu of the first's times the second's, bf16.
    Silu,
}

/// The tokens' rows of the embedding table (bf16): `x` f32, shape (row, hidden).
///
/// # Errors
/// [`DeviceError`].
pub fn embed(
    device: &mut dyn Device,
    rows: Rows,
    (ids, table, x): (Address, Address, Address),
    hidden: usize,
) -> Result<(), DeviceError> {
    let arguments = [ids.into(), rows.positions.into(), table.into(), x.into(), hidden.into()];
    launch(device, "embed", [rows.n, 1, 1], ROW_THREADS, 0, &arguments)
}

/// How a row is drawn, as `kernels/sample.cuh` reads it.
#[derive(Debug, Clone, Copy, Default, PartialEq, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct DrawSettings {
    /// 0 for the likeliest token.
    pub temperature: f32,
    /// Of repetition.
    pub penalty: f32,
    /// 1 for all.
    pub top_p: f32,
    /// From 1 to [`MOST_CANDIDATES`]; 0 for a row that draws nothing.
    pub top_k: i32,
    /// Low half first.
    pub seed: [u32; 2],
    /// Which draw of the answer this is; low half first.
    pub index: [u32; 2],
}

impl DrawSettings {
    /// For the device, where it can draw so.
    #[must_use]
    pub fn of(draw: &Draw) -> Option<Self> {
        let Sampling { temperature, top_k, top_p, repetition_penalty: penalty, .. } = draw.sampling;
        let is_greedy = temperature.is_nan() || temperature <= 0.0;
        let top_k = if is_greedy { 1 } else { i32::try_from(top_k).ok()? };
        let halves = |number: u64| [number as u32, (number >> 32) as u32];
        let (seed, index) = (halves(draw.seed), halves(draw.index));
        (1..=MOST_CANDIDATES).contains(&usize::try_from(top_k).ok()?).then_some(Self {
            temperature,
            penalty,
            top_p,
            top_k,
            seed,
            index,
        })
    }
}

/// `RMSNorm` of `n` rows of `x` (f32), those in `picked` (i32) where that is given: `out` bf16, shape (row, hidden).
///
/// # Errors
/// [`DeviceError`].
pub fn norm(
    device: &mut dyn Device,
    n: usize,
    (x, weight, picked, out): (Address, Address, Address, Address),
    (hidden, epsilon): (usize, f32),
) -> Result<(), DeviceError> {
    let arguments = [x.into(), weight.into(), picked.into(), out.into(), hidden.into(), epsilon.into()];
    launch(device, "rms_norm", [n, 1, 1], ROW_THREADS, ROW_THREADS / WARP * size_of::<f32>(), &arguments)
}

/// Turns queries and keys of `qkv` (f32, shape (row, queries then keys then values)) by their positions, into `queries` (bf16) and
/// the cache; the tables of cosines and sines f32, shape (position, `head_dim` / 2).
///
/// # Errors
/// [`DeviceError`].
pub fn rotate_and_append(
    device: &mut dyn Device,
    rows: Rows,
    heads: Heads,
    (qkv, cosines, sines, queries): (Address, Address, Address, Address),
    cache: LayerCache,
) -> Result<(), DeviceError> {
    let arguments = [
        qkv.into(),
        rows.positions.into(),
        rows.tables.into(),
        cosines.into(),
        sines.into(),
        queries.into(),
        cache.keys.into(),
        cache.values.into(),
        cache.key_scales.into(),
        cache.value_scales.into(),
        heads.n.into(),
        heads.n_kv.into(),
        heads.dim.into(),
        rows.table_width.into(),
    ];
    let kernel = match cache.cells {
        Cells::Bf16 => "rotate_and_append_bf16",
        Cells::Int8 => "rotate_and_append_int8",
    };
    let shared = ROTARY_THREADS / WARP * size_of::<f32>();
    launch(device, kernel, [heads.n + 2 * heads.n_kv, rows.n, 1], ROTARY_THREADS, shared, &arguments)
}

/// Bytes of the parts that attention of so many rows over so many positions needs.
#[must_use]
pub fn part_bytes(n_rows: usize, heads: Heads, n_positions: usize) -> usize {
    n_rows * heads.n * n_positions.div_ceil(SPLIT) * (heads.dim + 2) * size_of::<f32>()
}

/// Attention of each row over the positions up to its own, of which there are at most `n_positions`: `out` bf16, shape (row, head,
/// `head_dim`).
///
/// # Errors
/// [`DeviceError`].
pub fn attend(
    device: &mut dyn Device,
    rows: Rows,
    (heads, n_positions): (Heads, usize),
    (queries, parts, out): (Address, Address, Address),
    cache: LayerCache,
) -> Result<(), DeviceError> {
    let n_splits = n_positions.div_ceil(SPLIT);
    let arguments = [
        queries.into(),
        rows.positions.into(),
        rows.tables.into(),
        cache.keys.into(),
        cache.values.into(),
        cache.key_scales.into(),
        cache.value_scales.into(),
        parts.into(),
        heads.n.into(),
        heads.n_kv.into(),
        rows.table_width.into(),
        (heads.dim as f32).sqrt().recip().into(),
    ];
    let kernel = match (cache.cells, heads.dim) {
        (Cells::Bf16, 32) => "attend_bf16_32",
        (Cells::Bf16, 64) => "attend_bf16_64",
        (Cells::Bf16, _) => "attend_bf16_128",
        (Cells::Int8, 32) => "attend_int8_32",
        (Cells::Int8, 64) => "attend_int8_64",
        (Cells::Int8, _) => "attend_int8_128",
    };
    let shared = POSITIONS_AT_ONCE * (heads.dim + 2) * size_of::<f32>();
    launch(device, kernel, [n_splits, heads.n, rows.n], ATTENTION_THREADS, shared, &arguments)?;
    let arguments = [parts.into(), rows.positions.into(), out.into(), n_splits.into(), heads.dim.into()];
    launch(device, "join", [heads.n, rows.n, 1], ATTENTION_THREADS, 0, &arguments)
}

/// Tokens that one tile of [`attend_tokens`] has at most.
pub const TILE_TOKENS: usize = 64;

/// Attention of tokens of prompts: what [`attend`] gives, for tiles of rows whose positions follow each other. `tiles` i32, shape
/// (`n_tiles`, 2): the first row and how many there are.
///
/// # Errors
/// [`DeviceError`].
pub fn attend_tokens(
    device: &mut dyn Device,
    rows: Rows,
    heads: Heads,
    (tiles, n_tiles): (Address, usize),
    (queries, out): (Address, Address),
    cache: LayerCache,
) -> Result<(), DeviceError> {
    let arguments = [
        queries.into(),
        rows.positions.into(),
        rows.tables.into(),
        tiles.into(),
        cache.keys.into(),
        cache.values.into(),
        cache.key_scales.into(),
        cache.value_scales.into(),
        out.into(),
        heads.n.into(),
        heads.n_kv.into(),
        rows.table_width.into(),
        (heads.dim as f32).sqrt().recip().into(),
    ];
    let kernel = match (cache.cells, heads.dim) {
        (Cells::Bf16, 32) => "attend_tile_bf16_32",
        (Cells::Bf16, 64) => "attend_tile_bf16_64",
        (Cells::Bf16, _) => "attend_tile_bf16_128",
        (Cells::Int8, 32) => "attend_tile_int8_32",
        (Cells::Int8, 64) => "attend_tile_int8_64",
        (Cells::Int8, _) => "attend_tile_int8_128",
    };
    launch(device, kernel, [heads.n, n_tiles, 1], 2 * TILE_TOKENS, 0, &arguments)
}

/// What [`attend`] gives, computed plainly and slowly.
///
/// # Errors
/// [`DeviceError`].
pub fn attend_plainly(
    device: &mut dyn Device,
    rows: Rows,
    heads: Heads,
    (queries, out): (Address, Address),
    cache: LayerCache,
) -> Result<(), DeviceError> {
    let arguments = [
        queries.into(),
        rows.positions.into(),
        rows.tables.into(),
        cache.keys.into(),
        cache.values.into(),
        cache.key_scales.into(),
        cache.value_scales.into(),
        out.into(),
        heads.n.into(),
        heads.n_kv.into(),
        heads.dim.into(),
        rows.table_width.into(),
        (heads.dim as f32).sqrt().recip().into(),
    ];
    let kernel = match cache.cells {
        Cells::Bf16 => "attend_plainly_bf16",
        Cells::Int8 => "attend_plainly_int8",
    };
    launch(device, kernel, [heads.n, rows.n, 1], ATTENTION_THREADS, 0, &arguments)
}

/// Products of at most [`MOST_ROWS`] rows of `x` (bf16, shape (row, `n_in`)) with a matrix: `out` of shape (row, `n_out`), its rows
/// `width` numbers apart.
///
/// # Errors
/// [`DeviceError`].
pub fn multiply(
    device: &mut dyn Device,
    matrix: DeviceMatrix,
    (x, n_rows): (Address, usize),
    (then, out, width): (Then, Address, usize),
) -> Result<(), DeviceError> {
    let n_tiles = [1, 2, 4].into_iter().find(|n| n_rows <= 8 * n).expect("invariant: at most MOST_ROWS rows");
    let n_matrices = if then == Then::Silu { 2 } else { 1 };
    let arguments = [
        matrix.quants.into(),
        matrix.scales.into(),
        x.into(),
        out.into(),
        n_rows.into(),
        matrix.n_in.into(),
        matrix.n_out.into(),
        width.into(),
    ];
    let kernel = product_name(matrix.form, n_tiles, then);
    // For each warp, 4 sums a lane.
    let shared = PRODUCT_THREADS * 4 * n_tiles * n_matrices * size_of::<f32>();
    launch(device, kernel, [matrix.n_out.div_ceil(TILE_ROWS), 1, 1], PRODUCT_THREADS, shared, &arguments)
}

/// A matrix in bf16, row-major, `out` of whole tiles of rows; nothing is done for one that is dense already.
///
/// # Errors
/// [`DeviceError`].
pub fn widen(device: &mut dyn Device, matrix: DeviceMatrix, out: Address) -> Result<(), DeviceError> {
    let (kernel, steps_at_once) = match matrix.form {
        WeightForm::Dense => return Ok(()),
        WeightForm::Bytes => ("widen_bytes", 1),
        WeightForm::SmallBytes => ("widen_small_bytes", 1),
        WeightForm::Nibbles => ("widen_nibbles", 2),
    };
    let arguments = [matrix.quants.into(), matrix.scales.into(), out.into(), matrix.n_in.into()];
    let n_reads = matrix.n_in / (STEP * steps_at_once);
    let grid = [n_reads.div_ceil(PRODUCT_THREADS / WARP), matrix.n_out.div_ceil(TILE_ROWS), 1];
    launch(device, kernel, grid, PRODUCT_THREADS, 0, &arguments)
}

/// silu of gates times ups: `gate_up` f32, shape (row, gates then ups), `out` bf16, shape (row, `ffn`).
///
/// # Errors
/// [`DeviceError`].
pub fn silu_multiply(
    device: &mut dyn Device,
    (n_rows, ffn): (usize, usize),
    (gate_up, out): (Address, Address),
) -> Result<(), DeviceError> {
    let arguments = [gate_up.into(), out.into(), ffn.into()];
    launch(device, "silu_multiply", [ffn.div_ceil(4 * ROW_THREADS), n_rows, 1], ROW_THREADS, 0, &arguments)
}

/// What a draw of rows needs.
#[derive(Debug, Clone, Copy)]
pub struct Draws {
    /// f32, shape (row, vocabulary).
    pub logits: Address,
    /// [`DrawSettings`], one a row.
    pub settings: Address,
    /// i32, one a row: which row of `seen` is the row's.
    pub slots: Address,
    /// A bit for each token id, shape (slot, words of 32 bits).
    pub seen: Address,
    /// i32, one a row: the token, or [`HOST_DRAWS`] or [`NOT_A_NUMBER`].
    pub drawn: Address,
}

/// Draws a token for each row and marks it as seen.
///
/// # Errors
/// [`DeviceError`].
pub fn sample(device: &mut dyn Device, n_rows: usize, draws: Draws, vocab_size: usize) -> Result<(), DeviceError> {
    let Draws { logits, settings, slots, seen, drawn } = draws;
    let arguments = [
        logits.into(),
        settings.into(),
        slots.into(),
        seen.into(),
        drawn.into(),
        vocab_size.into(),
        seen_words(vocab_size).into(),
    ];
    launch(device, "sample", [n_rows, 1, 1], SAMPLE_THREADS, SAMPLE_BYTES, &arguments)
}

/// Makes of each row that has drawn the row of its next step: `ids` (u32) and `positions` (i32) one a row, as they were given to
/// [`embed`]. A row that has not drawn gets a negative position.
///
/// # Errors
/// [`DeviceError`].
pub fn advance(
    device: &mut dyn Device,
    n_rows: usize,
    Draws { drawn, settings, .. }: Draws,
    (ids, positions): (Address, Address),
) -> Result<(), DeviceError> {
    let arguments = [drawn.into(), settings.into(), ids.into(), positions.into(), n_rows.into()];
    launch(device, "advance", [n_rows.div_ceil(WARP), 1, 1], WARP, 0, &arguments)
}

/// What is to be told of a row's probabilities, as `kernels/probabilities.cuh` reads it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct Telling {
    /// Of which token; negative for the one that is drawn.
    pub token: i32,
    /// How many of the likeliest, at most [`MOST_TOP`]; negative for nothing at all.
    pub n_top: i32,
}

impl Telling {
    /// Nothing is told of the row.
    pub const NOTHING: Self = Self { token: -1, n_top: -1 };
}

/// What is told: natural logarithms of probabilities.
#[derive(Debug, Clone, Copy, bytemuck::Pod, bytemuck::Zeroable)]
#[repr(C)]
pub struct Told {
    /// The token's.
    pub logprob: f32,
    top_ids: [u32; MOST_TOP],
    top_logprobs: [f32; MOST_TOP],
}

impl Told {
    /// The `n` likeliest tokens with theirs, likeliest first; all there are, where there are fewer.
    pub fn top(&self, n: usize) -> impl Iterator<Item = (u32, f32)> + '_ {
        let all = self.top_ids.iter().copied().zip(self.top_logprobs);
        all.take(n).take_while(|(id, _)| *id != u32::MAX)
    }
}

/// Tells of `n_rows` rows of `logits` (f32, shape (row, vocabulary)) what `tellings` ([`Telling`], one a row) asks for, into `told`
/// ([`Told`], one a row), under the unmodified distribution; `drawn` as in [`Draws`].
///
/// # Errors
/// [`DeviceError`].
pub fn tell(
    device: &mut dyn Device,
    n_rows: usize,
    (logits, drawn): (Address, Address),
    (tellings, told): (Address, Address),
    vocab_size: usize,
) -> Result<(), DeviceError> {
    let arguments = [logits.into(), tellings.into(), drawn.into(), told.into(), vocab_size.into()];
    launch(device, "tell", [n_rows, 1, 1], SAMPLE_THREADS, TELL_BYTES, &arguments)
}

/// Words of 32 bits that hold a bit for each token id.
#[must_use]
pub fn seen_words(vocab_size: usize) -> usize {
    vocab_size.div_ceil(32)
}

fn product_name(form: WeightForm, n_tiles: usize, then: Then) -> &'static str {
    macro_rules! named {
        ($form:literal) => {
            match (then, n_tiles) {
                (Then::Store, 1) => concat!("store_", $form, "_8"),
                (Then::Store, 2) => concat!("store_", $form, "_16"),
                (Then::Store, _) => concat!("store_", $form, "_32"),
                (Then::Add, 1) => concat!("add_", $form, "_8"),
                (Then::Add, 2) => concat!("add_", $form, "_16"),
                (Then::Add, _) => concat!("add_", $form, "_32"),
                (Then::Silu, 1) => concat!("silu_", $form, "_8"),
                (Then::Silu, 2) => concat!("silu_", $form, "_16"),
                (Then::Silu, _) => concat!("silu_", $form, "_32"),
            }
        };
    }
    match form {
        WeightForm::Dense => named!("dense"),
        WeightForm::Bytes => named!("bytes"),
        WeightForm::SmallBytes => named!("small_bytes"),
        WeightForm::Nibbles => named!("nibbles"),
    }
}

fn launch(
    device: &mut dyn Device,
    kernel: &'static str,
    grid: [usize; 3],
    threads: usize,
    shared_bytes: usize,
    arguments: &[Argument],
) -> Result<(), DeviceError> {
    device.launch(&Launch { kernel, grid, threads, shared_bytes, arguments })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the assembler said of each kernel for cards of capability 9.0, as `scripts/build-kernels.sh` writes it.
    const RESOURCES: &str = include_str!("kernels/resources.txt");

    #[test]
    fn no_kernel_spills_and_none_is_missing() {
        let known: Vec<&str> = RESOURCES.lines().filter_map(|line| line.split_whitespace().next()).collect();
        for line in RESOURCES.lines() {
            assert!(line.contains(" spilled=0 local=0"), "{line}");
        }
        let forms = [WeightForm::Dense, WeightForm::Bytes, WeightForm::SmallBytes, WeightForm::Nibbles];
        for form in forms {
            for then in [Then::Store, Then::Add, Then::Silu] {
                for n_tiles in [1, 2, 4] {
                    assert!(known.contains(&product_name(form, n_tiles, then)), "{form:?} {then:?} {n_tiles}");
                }
            }
        }
        assert_eq!(known.len(), forms.len() * 9 + 10 + 2 * 8, "{known:?}");
    }
}
