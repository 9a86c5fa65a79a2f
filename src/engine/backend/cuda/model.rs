//! The model on a device: its weights, its keys and values, and the launches that compute it.
//!
//! The residual stream is in singles, what products read in bf16, sums in singles. Mirrors `LlamaForCausalLM` of Hugging Face
//! transformers. Knows no sequences: rows have positions and tables of blocks.

use std::time::Instant;

use super::{
    CudaSettings,
    device::{Address, Device, DeviceError, write_numbers},
    kernels::{self, Draws, Heads, LayerCache, MOST_ROWS, Rows},
    plan::Plan,
    weights::{Loader, Products, Projection},
};
use crate::engine::{
    backend::{BackendError, rotary},
    config::ModelConfig,
    kv::BlockId,
    precision::{Part, Precision},
    weights::{self, NumberType, Weights},
};

/// The model.
pub struct Model {
    /// Its sizes.
    pub plan: Plan,
    epsilon: f32,
    embedding: Address,
    layers: Vec<Layer>,
    norm: Address,
    head: Projection,
    cosines: Address,
    sines: Address,
    cache: Cache,
    room: Room,
    products: Products,
    attends_fast: bool,
}

struct Layer {
    input_norm: Address,
    qkv: Projection,
    output: Projection,
    post_attention_norm: Address,
    gate_up: Projection,
    down: Projection,
}

/// Keys and values of all layers, each of shape (layer, block, key-value head, position, `head_dim`), and their scales.
struct Cache {
    keys: Address,
    values: Address,
    key_scales: Address,
    value_scales: Address,
    n_blocks: usize,
}

/// What is computed in, for `most_tokens` rows.
struct Room {
    x: Address,
    normed: Address,
    qkv: Address,
    queries: Address,
    attended: Address,
    parts: Address,
    gate_up: Address,
    activated: Address,
    picked: Address,
    logits: Address,
}

/// What the host writes for some rows.
#[derive(Debug, Clone, Copy)]
pub struct Inputs {
    /// u32, one a row.
    pub ids: Address,
    /// i32, one a row.
    pub positions: Address,
    /// i32, shape (row, `table_width`).
    pub tables: Address,
    /// For tokens of prompts: rows whose positions follow each other, i32, shape (tile, 2), and how many tiles.
    pub tiles: Option<(Address, usize)>,
}

/// Bytes that are copied to measure how fast that is, and how often.
const MOST_COPIED: usize = 2 << 30;
const COPIES: usize = 10;
const EMBEDDING: &str = "model.embed_tokens.weight";
/// Rows of the embedding table that are brought at once.
const EMBEDDING_ROWS: usize = 4096;

impl Model {
    /// Brings the weights to the device and makes room for `n_blocks` blocks of keys and values.
    ///
    /// # Errors
    /// [`BackendError`].
    pub fn load(
        device: &mut dyn Device,
        source: &dyn Weights,
        (config, precision): (&ModelConfig, Precision),
        (plan, n_blocks, settings): (Plan, usize, CudaSettings),
    ) -> Result<Self, BackendError> {
        let (hidden, ffn, heads) = (plan.hidden, plan.ffn, plan.heads);
        let (q, kv) = (heads.n * heads.dim, heads.n_kv * heads.dim);
        // Keys and values first: where there is no room for them, nothing was read in vain.
        let cache = Cache::new(device, &plan, n_blocks)?;
        let room = Room::new(device, &plan)?;
        // Few rows are widened for only where their own kernels are not used, and those are the head's.
        let head_bytes = if settings.fast_products { 0 } else { plan.embedding_bytes + 2 * 16 * hidden };
        let widened = match plan.widened_bytes.max(head_bytes) {
            0 => Address::NONE,
            n_bytes => device.allocate(n_bytes)?,
        };
        let products = Products { widened: settings.cublas.then_some(widened), are_fast: settings.fast_products };
        let embedding = bring_embedding(device, source, config)?;
        let mut loader = Loader { device, source, precision };
        let mut layers = Vec::with_capacity(plan.n_layers);
        for index in 0..plan.n_layers {
            let name = |name: &str| format!("model.layers.{index}.{name}.weight");
            let mut fused = |tensors: &[(&str, usize)], n_in| {
                let tensors: Vec<_> = tensors.iter().map(|(tensor, n_out)| (name(tensor), *n_out)).collect();
                loader.projection(&tensors, Part::Projection, n_in)
            };
            let qkv = fused(&[("self_attn.q_proj", q), ("self_attn.k_proj", kv), ("self_attn.v_proj", kv)], hidden)?;
            let output = fused(&[("self_attn.o_proj", hidden)], q)?;
            let gate_up = fused(&[("mlp.gate_proj", ffn), ("mlp.up_proj", ffn)], hidden)?;
            let down = fused(&[("mlp.down_proj", hidden)], ffn)?;
            let input_norm = loader.norm(&name("input_layernorm"), hidden)?;
            let post_attention_norm = loader.norm(&name("post_attention_layernorm"), hidden)?;
            layers.push(Layer { input_norm, qkv, output, post_attention_norm, gate_up, down });
        }
        let head = loader.projection(&[("lm_head.weight".to_owned(), plan.vocab_size)], Part::Head, hidden)?;
        let norm = loader.norm("model.norm.weight", hidden)?;
        let (cosines, sines) = rotary::tables(config, plan.most_positions);
        let [cosines, sines] = [cosines, sines].map(|table| {
            let address = device.allocate(size_of_val(&table[..]))?;
            write_numbers(device, address, &table)?;
            Ok::<_, DeviceError>(address)
        });
        let epsilon = config.rms_norm_eps as f32;
        let (cosines, sines) = (cosines?, sines?);
        Ok(Self {
            plan,
            epsilon,
            embedding,
            layers,
            norm,
            head,
            cosines,
            sines,
            cache,
            room,
            products,
            attends_fast: settings.fast_attention,
        })
    }

    /// The residual stream after the last layer for `n` rows, at most [`Plan::most_tokens`]; their keys and values go into the cache.
    /// No row's position is `most_positions` or more.
    ///
    /// # Errors
    /// [`DeviceError`].
    pub fn forward(
        &self,
        device: &mut dyn Device,
        n: usize,
        inputs: Inputs,
        most_positions: usize,
    ) -> Result<(), DeviceError> {
        let Self { room, plan, .. } = self;
        let Inputs { ids, positions, tables, tiles } = inputs;
        let rows = Rows { n, positions, tables, table_width: plan.table_width() };
        let shape = (plan.hidden, self.epsilon);
        kernels::embed(device, rows, (ids, self.embedding, room.x), plan.hidden)?;
        for (index, layer) in self.layers.iter().enumerate() {
            kernels::norm(device, n, (room.x, layer.input_norm, Address::NONE, room.normed), shape)?;
            layer.qkv.multiply(device, (room.normed, n), (false, room.qkv), self.products)?;
            let cache = self.layer_cache(index);
            let turned = (room.qkv, self.cosines, self.sines, room.queries);
            kernels::rotate_and_append(device, rows, plan.heads, turned, cache)?;
            self.attend(device, rows, (tiles, most_positions), cache)?;
            layer.output.multiply(device, (room.attended, n), (true, room.x), self.products)?;
            kernels::norm(device, n, (room.x, layer.post_attention_norm, Address::NONE, room.normed), shape)?;
            layer.gate_up.silu_multiply(device, (room.normed, n), (room.gate_up, room.activated), self.products)?;
            layer.down.multiply(device, (room.activated, n), (true, room.x), self.products)?;
        }
        Ok(())
    }

    /// Tiles together, single tokens some at a time, as many as there is room for their parts.
    fn attend(
        &self,
        device: &mut dyn Device,
        rows: Rows,
        (tiles, most_positions): (Option<(Address, usize)>, usize),
        cache: LayerCache,
    ) -> Result<(), DeviceError> {
        let Heads { n, dim, .. } = self.plan.heads;
        if !self.attends_fast {
            let places = (self.room.queries, self.room.attended);
            return kernels::attend_plainly(device, rows, self.plan.heads, places, cache);
        }
        if let Some(tiles) = tiles {
            let places = (self.room.queries, self.room.attended);
            return kernels::attend_tokens(device, rows, self.plan.heads, tiles, places, cache);
        }
        for first in (0..rows.n).step_by(MOST_ROWS) {
            let some = Rows {
                n: (rows.n - first).min(MOST_ROWS),
                positions: rows.positions.plus(4 * first),
                tables: rows.tables.plus(4 * first * rows.table_width),
                ..rows
            };
            let bytes = 2 * first * n * dim;
            let places = (self.room.queries.plus(bytes), self.room.parts, self.room.attended.plus(bytes));
            kernels::attend(device, some, (self.plan.heads, most_positions), places, cache)?;
        }
        Ok(())
    }

    /// Logits of the rows at the places (i32) in `places`, at most [`MOST_ROWS`]; f32, shape (place, vocabulary).
    ///
    /// # Errors
    /// [`DeviceError`].
    pub fn logits(&self, device: &mut dyn Device, n: usize, places: Address) -> Result<Address, DeviceError> {
        let Room { x, picked, logits, .. } = self.room;
        kernels::norm(device, n, (x, self.norm, places, picked), (self.plan.hidden, self.epsilon))?;
        self.head.multiply(device, (picked, n), (false, logits), self.products)?;
        Ok(logits)
    }

    /// Draws for each of `n` rows of logits.
    ///
    /// # Errors
    /// [`DeviceError`].
    pub fn draw(&self, device: &mut dyn Device, n: usize, draws: Draws) -> Result<(), DeviceError> {
        kernels::sample(device, n, draws, self.plan.vocab_size)
    }

    /// 10⁹ bytes that are read and written a second where keys are copied over values, which loses both.
    ///
    /// # Errors
    /// [`DeviceError`].
    pub fn copy_gb_s(&self, device: &mut dyn Device) -> Result<f64, DeviceError> {
        let n_bytes = (self.plan.n_layers * self.cache.n_blocks * self.plan.block_bytes()).min(MOST_COPIED);
        let mut best: f64 = 0.0;
        for _ in 0..COPIES {
            // Nothing is on its way when it begins, and nothing when it ends.
            device.read(self.cache.keys, &mut [0])?;
            let began = Instant::now();
            device.copy(self.cache.keys, self.cache.values, n_bytes)?;
            device.read(self.cache.values, &mut [0])?;
            best = best.max(2.0 * n_bytes as f64 / began.elapsed().as_secs_f64() / 1e9);
        }
        Ok(best)
    }

    /// Where logits are.
    #[must_use]
    pub fn logits_address(&self) -> Address {
        self.room.logits
    }

    /// Overwrites a block's keys and values with NaN.
    ///
    /// # Errors
    /// [`DeviceError`].
    pub fn poison(&self, device: &mut dyn Device, block: BlockId) -> Result<(), DeviceError> {
        let (n_bytes, scale_bytes) = (self.plan.block_bytes(), self.plan.scale_bytes());
        for layer in 0..self.plan.n_layers {
            let cache = self.layer_cache(layer);
            for numbers in [cache.keys, cache.values] {
                device.write(numbers.plus(block.0 as usize * n_bytes), &vec![0xff; n_bytes])?;
            }
            // What is no number of eight bits is one of the scales.
            for scales in [cache.key_scales, cache.value_scales].into_iter().filter(|_| scale_bytes > 0) {
                device.write(scales.plus(block.0 as usize * scale_bytes), &vec![0xff; scale_bytes])?;
            }
        }
        Ok(())
    }

    fn layer_cache(&self, layer: usize) -> LayerCache {
        let at = layer * self.cache.n_blocks * self.plan.block_bytes();
        let scales_at = layer * self.cache.n_blocks * self.plan.scale_bytes();
        LayerCache {
            cells: self.plan.cells,
            keys: self.cache.keys.plus(at),
            values: self.cache.values.plus(at),
            key_scales: self.cache.key_scales.plus(scales_at),
            value_scales: self.cache.value_scales.plus(scales_at),
        }
    }
}

impl Cache {
    fn new(device: &mut dyn Device, plan: &Plan, n_blocks: usize) -> Result<Self, DeviceError> {
        let n = plan.n_layers * n_blocks;
        let mut room = |n_bytes| if n_bytes == 0 { Ok(Address::NONE) } else { device.allocate(n * n_bytes) };
        Ok(Self {
            keys: room(plan.block_bytes())?,
            values: room(plan.block_bytes())?,
            key_scales: room(plan.scale_bytes())?,
            value_scales: room(plan.scale_bytes())?,
            n_blocks,
        })
    }
}

impl Room {
    fn new(device: &mut dyn Device, plan: &Plan) -> Result<Self, DeviceError> {
        let Plan { most_tokens: n, hidden, ffn, heads, vocab_size, .. } = *plan;
        let q = heads.n * heads.dim;
        Ok(Self {
            x: device.allocate(4 * n * hidden)?,
            normed: device.allocate(2 * n * hidden)?,
            qkv: device.allocate(4 * n * plan.qkv_width())?,
            queries: device.allocate(2 * n * q)?,
            attended: device.allocate(2 * n * q)?,
            parts: device.allocate(kernels::part_bytes(MOST_ROWS, heads, plan.most_positions))?,
            gate_up: device.allocate(8 * n * ffn)?,
            activated: device.allocate(2 * n * ffn)?,
            picked: device.allocate(2 * MOST_ROWS * hidden)?,
            logits: device.allocate(4 * MOST_ROWS * vocab_size)?,
        })
    }
}

fn bring_embedding(
    device: &mut dyn Device,
    source: &dyn Weights,
    config: &ModelConfig,
) -> Result<Address, BackendError> {
    let (n_rows, n_columns) = (config.vocab_size, config.hidden_size);
    let info = weights::expect(source, EMBEDDING, n_rows, n_columns)?;
    let table = device.allocate(2 * n_rows * n_columns)?;
    let mut buffer = Vec::new();
    for first in (0..n_rows).step_by(EMBEDDING_ROWS) {
        let rows = first..(first + EMBEDDING_ROWS).min(n_rows);
        let mut numbers = vec![0.0; rows.len() * n_columns];
        weights::read_f32(source, (EMBEDDING, info), rows.clone(), &mut buffer, &mut numbers)?;
        let mut bytes = vec![0; 2 * numbers.len()];
        NumberType::Bf16.narrow(&numbers, &mut bytes);
        device.write(table.plus(2 * first * n_columns), &bytes)?;
    }
    Ok(table)
}
