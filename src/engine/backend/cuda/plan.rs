//! What a model takes on a device: weights, room to compute in, keys and values.
//!
//! Pure. **Architecture Invariant:** everything is counted here before anything is allocated, so that too little memory is a matter
//! of starting up.

use super::{
    kernels::{self, Cells, DrawSettings, Heads, MOST_ROWS, Telling, Told},
    packing::{STEP, WeightForm},
    weights::{device_bytes, device_format},
};
use crate::engine::{
    checkpoint,
    config::ModelConfig,
    format::Format,
    kv::BLOCK_SIZE,
    precision::{Part, Precision, Quantize},
};

/// Rows that have their seen tokens on the device at once.
pub const MOST_SLOTS: usize = 256;
/// More whole contexts than these get no room unless asked for.
const USEFUL_CONTEXTS: usize = 64;
/// Bytes that stay free: for what the driver and the libraries take beside ours.
const HEADROOM: usize = 1 << 30;
/// Of what is free, more than an eighth does not stay so.
const MOST_HEADROOM: usize = 8;

/// The sizes of a model, and the bytes that follow from them.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Of attention.
    pub heads: Heads,
    /// Numbers of the residual stream.
    pub hidden: usize,
    /// Numbers between gate and down.
    pub ffn: usize,
    /// How many layers there are.
    pub n_layers: usize,
    /// Token ids.
    pub vocab_size: usize,
    /// Tokens that are computed at once at most.
    pub most_tokens: usize,
    /// Most positions of a sequence.
    pub most_positions: usize,
    /// What keys and values are held in.
    pub cells: Cells,
    /// Bytes of weights, without the embedding table.
    pub weight_bytes: usize,
    /// Bytes of the embedding table.
    pub embedding_bytes: usize,
    /// Bytes of the largest matrix that is widened for products of many rows.
    pub widened_bytes: usize,
}

/// Why a model cannot run on a device.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum PlanError {
    /// It has another shape than the kernels were made for.
    #[error("{what} is {found}, the cuda backend computes with {expected}\nhint: run it with --device cpu")]
    Shape {
        /// Which size.
        what: &'static str,
        /// What it is.
        found: usize,
        /// What it may be.
        expected: &'static str,
    },
    /// It does not fit.
    #[error(
        "{device} has {} free, the model needs {} for weights, {} to compute in and {} for {n_tokens} tokens of keys and values{hint}",
        amount(*free), amount(*weights), amount(*other), amount(*kv)
    )]
    Memory {
        /// What the device is called.
        device: String,
        /// Bytes that are free.
        free: usize,
        /// Bytes of weights and embeddings.
        weights: usize,
        /// Bytes of all else but keys and values, with what the driver takes.
        other: usize,
        /// Bytes of keys and values.
        kv: usize,
        /// How many tokens that is.
        n_tokens: usize,
        /// What would help.
        hint: String,
    },
}

/// How much room keys and values are to have.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum KvRoom {
    /// What is left, up to what is of use.
    Rest,
    /// So many bytes.
    Bytes(f64),
    /// So many tokens.
    Tokens(usize),
}

/// Bytes as people say them.
fn amount(bytes: usize) -> String {
    let gb = bytes as f64 / 1e9;
    if gb < 1.0 { format!("{:.0} MB", gb * 1e3) } else { format!("{gb:.1} GB") }
}

impl PlanError {
    /// Says what would fit, where anything would.
    #[must_use]
    pub fn with_hint(
        mut self,
        (config, precision, cells): (&ModelConfig, Precision, Cells),
        natural: impl Fn(&str) -> Format,
        (room, free): (KvRoom, usize),
        most_tokens: usize,
    ) -> Self {
        if let Self::Memory { hint, .. } = &mut self {
            let fits = |quantize| {
                let plan = Plan::new(config, (Precision { quantize, ..precision }, cells), &natural, most_tokens);
                plan.is_ok_and(|plan| plan.n_blocks(room, "", free).is_ok())
            };
            *hint = match [Quantize::Eight, Quantize::Four].into_iter().find(|quantize| fits(*quantize)) {
                Some(quantize) => format!("\nhint: --quantize {} fits", quantize.name()),
                None => {
                    "\nhint: no --quantize fits; a card with more memory, less --kv_memory, or --device cpu".to_owned()
                }
            };
        }
        self
    }
}

impl Plan {
    /// Of a model, each of whose tensors would be held as `natural` says unless something else was asked for.
    ///
    /// # Errors
    /// [`PlanError::Shape`].
    pub fn new(
        config: &ModelConfig,
        (precision, cells): (Precision, Cells),
        natural: impl Fn(&str) -> Format,
        most_tokens: usize,
    ) -> Result<Self, PlanError> {
        let heads = Heads { n: config.num_attention_heads, n_kv: config.num_key_value_heads, dim: config.head_dim };
        let in_steps = [
            ("hidden_size", config.hidden_size),
            ("intermediate_size", config.intermediate_size),
            ("the width of the queries", heads.n * heads.dim),
        ];
        for (what, found) in in_steps {
            if !found.is_multiple_of(STEP) {
                return Err(PlanError::Shape { what, found, expected: "multiples of 32" });
            }
        }
        if ![32, 64, 128].contains(&heads.dim) {
            return Err(PlanError::Shape { what: "head_dim", found: heads.dim, expected: "32, 64 or 128" });
        }
        let (mut weight_bytes, mut is_widened) = (0, false);
        for (name, part, n_out, n_in) in checkpoint::matrices(config) {
            let format = device_format(precision, part, n_in, natural(&name));
            weight_bytes += device_bytes(format, n_out, n_in);
            is_widened |= part == Part::Projection && WeightForm::of(format) != WeightForm::Dense;
        }
        // Fused: gates with what goes up, queries with keys and values.
        let n_fused = (2 * config.intermediate_size).max((heads.n + 2 * heads.n_kv) * heads.dim);
        let columns = config.hidden_size.max(heads.n * heads.dim);
        let largest = (n_fused * config.hidden_size).max(columns * config.intermediate_size);
        let widened_bytes = if is_widened { 2 * largest } else { 0 };
        weight_bytes += checkpoint::n_norm_parameters(config) as usize * size_of::<f32>();
        Ok(Self {
            heads,
            hidden: config.hidden_size,
            ffn: config.intermediate_size,
            n_layers: config.num_hidden_layers,
            vocab_size: config.vocab_size,
            most_tokens,
            most_positions: config.max_position_embeddings,
            cells,
            weight_bytes,
            embedding_bytes: 2 * config.vocab_size * config.hidden_size,
            widened_bytes,
        })
    }

    /// Columns of queries, keys and values together.
    #[must_use]
    pub fn qkv_width(&self) -> usize {
        (self.heads.n + 2 * self.heads.n_kv) * self.heads.dim
    }

    /// Blocks that a sequence may have.
    #[must_use]
    pub fn table_width(&self) -> usize {
        self.most_positions.div_ceil(BLOCK_SIZE)
    }

    /// Bytes of the numbers of keys, or values, of a block of one layer.
    #[must_use]
    pub fn block_bytes(&self) -> usize {
        BLOCK_SIZE * self.heads.n_kv * self.cells.n_bytes(self.heads.dim)
    }

    /// Bytes of their scales.
    #[must_use]
    pub fn scale_bytes(&self) -> usize {
        BLOCK_SIZE * self.heads.n_kv * self.cells.scale_bytes()
    }

    /// Bytes of keys and values of one position of all layers.
    #[must_use]
    pub fn kv_bytes_per_position(&self) -> usize {
        2 * self.n_layers * (self.block_bytes() + self.scale_bytes()) / BLOCK_SIZE
    }

    /// Bytes of what is computed in.
    #[must_use]
    pub fn room_bytes(&self) -> usize {
        let Self { hidden, ffn, heads, most_tokens, vocab_size, .. } = *self;
        let q_width = heads.n * heads.dim;
        let per_token = 4 * hidden
            + 2 * hidden
            + 4 * self.qkv_width()
            + 4 * q_width
            + 8 * ffn
            + 2 * ffn
            + 4 * (4 + self.table_width());
        let per_row = 4 * vocab_size + 2 * hidden + size_of::<(DrawSettings, Telling, Told)>() + 16;
        most_tokens * per_token
            + MOST_ROWS * per_row
            + kernels::part_bytes(MOST_ROWS, heads, self.most_positions)
            + self.widened_bytes
            + MOST_SLOTS * 4 * kernels::seen_words(vocab_size)
            + self.most_positions * heads.dim * size_of::<f32>()
    }

    /// How many blocks of keys and values there is room for on a device with so many bytes free.
    ///
    /// # Errors
    /// [`PlanError::Memory`].
    pub fn n_blocks(&self, room: KvRoom, device: &str, free: usize) -> Result<usize, PlanError> {
        let usable = free - HEADROOM.min(free / MOST_HEADROOM);
        let taken = self.weight_bytes + self.embedding_bytes + self.room_bytes();
        let per_block = self.kv_bytes_per_position() * BLOCK_SIZE;
        let left = usable.saturating_sub(taken) / per_block;
        let (least, wanted) = match room {
            KvRoom::Rest => {
                (self.most_positions.min(1024).div_ceil(BLOCK_SIZE), left.min(USEFUL_CONTEXTS * self.table_width()))
            }
            KvRoom::Bytes(bytes) => (((bytes / per_block as f64) as usize).max(1), (bytes / per_block as f64) as usize),
            KvRoom::Tokens(tokens) => (tokens.div_ceil(BLOCK_SIZE), tokens.div_ceil(BLOCK_SIZE)),
        };
        if taken <= usable && least <= left {
            return Ok(wanted.max(least));
        }
        Err(PlanError::Memory {
            device: device.to_owned(),
            free,
            weights: self.weight_bytes + self.embedding_bytes,
            other: self.room_bytes() + free - usable,
            kv: least * per_block,
            n_tokens: least * BLOCK_SIZE,
            hint: String::new(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::{bench::shape::Shape, weights::NumberType};

    fn plan(quantize: Quantize) -> Plan {
        let precision = Precision { number_type: None, quantize };
        Plan::new(&Shape::B13.config(), (precision, Cells::Bf16), |_| Format::Dense(NumberType::Bf16), 512).unwrap()
    }

    #[test]
    fn the_13b_shape_takes_what_its_forms_take() {
        let gb = |bytes: usize| bytes as f64 / 1e9;
        for (quantize, expected) in [(Quantize::None, 26.40), (Quantize::Eight, 14.03), (Quantize::Four, 7.91)] {
            let found = gb(plan(quantize).weight_bytes);
            assert!((found - expected).abs() < 0.01, "{quantize:?} {found}");
        }
        assert_eq!(plan(Quantize::None).kv_bytes_per_position(), 819_200);
        let eight = Plan { cells: Cells::Int8, ..plan(Quantize::None) };
        assert_eq!(eight.kv_bytes_per_position(), 409_600 + 6400);
        assert_eq!(plan(Quantize::None).widened_bytes, 0);
        // To compute in there is well below a gigabyte more than for widened weights.
        let four = plan(Quantize::Four);
        assert!(gb(four.room_bytes() - four.widened_bytes) < 0.5, "{}", gb(four.room_bytes()));
    }

    #[test]
    fn keys_and_values_get_what_is_left() {
        let plan = plan(Quantize::None);
        let card = 80_000_000_000;
        let n = plan.n_blocks(KvRoom::Rest, "card", card).unwrap();
        let taken = plan.weight_bytes + plan.embedding_bytes + plan.room_bytes() + n * 16 * 819_200;
        assert!(taken <= card - HEADROOM && taken + 16 * 819_200 > card - HEADROOM);
        assert_eq!(plan.n_blocks(KvRoom::Tokens(100), "card", card), Ok(7));
        assert_eq!(plan.n_blocks(KvRoom::Bytes(819_200.0 * 160.0), "card", card), Ok(10));
        let error = plan.n_blocks(KvRoom::Rest, "a card", 24_000_000_000).unwrap_err();
        assert!(
            error.to_string().starts_with("a card has 24.0 GB free, the model needs 27.4 GB for weights"),
            "{error}"
        );
        assert!(plan.n_blocks(KvRoom::Tokens(90_000), "card", card).is_err());
        let hinted = |free| {
            let natural = |_: &str| Format::Dense(NumberType::Bf16);
            let of = (&Shape::B13.config(), Precision::default(), Cells::Bf16);
            error.clone().with_hint(of, natural, (KvRoom::Rest, free), 512).to_string()
        };
        assert!(hinted(24_000_000_000).ends_with("hint: --quantize 8 fits"), "{}", hinted(24_000_000_000));
        assert!(hinted(16_000_000_000).ends_with("hint: --quantize 4 fits"));
        assert!(hinted(6_000_000_000).contains("no --quantize fits"));
    }

    #[test]
    fn other_shapes_are_refused_by_name() {
        let precision = Precision::default();
        let of = |change: fn(&mut ModelConfig)| {
            let mut config = Shape::B13.config();
            change(&mut config);
            Plan::new(&config, (precision, Cells::Bf16), |_| Format::Dense(NumberType::Bf16), 512)
                .unwrap_err()
                .to_string()
        };
        assert!(of(|config| config.head_dim = 96).contains("head_dim is 96"));
        assert!(of(|config| config.hidden_size = 5136).contains("hidden_size is 5136"));
    }
}
