//! One step of the backend: what the rows of a batch ask for, in groups that the device computes at once.

use super::{
    CudaBackend, Graph, GraphKey,
    device::{Address, Device, DeviceError, read_numbers, write_numbers},
    kernels::{self, DrawSettings, Draws, MOST_ROWS, TILE_TOKENS},
    model::Inputs,
    plan::Plan,
};
use crate::engine::{
    backend::{BackendError, Batch, Drawn, Row, RowOutput, output},
    kv::BLOCK_SIZE,
    sampling::SamplingError,
};

/// Numbers of rows that launches are recorded for; fewer rows are filled up.
const BUCKETS: [usize; 6] = [1, 2, 4, 8, 16, MOST_ROWS];
/// Lengths of context that they are recorded for, the longest one aside.
const CONTEXTS: [usize; 2] = [512, 2048];

/// Where the host writes what a group of rows is and how it is drawn, each in one piece that always begins at the same place.
pub(super) struct Staging {
    tokens: Address,
    draws: Address,
}

/// Where in the second piece what is, for so many rows.
#[derive(Clone, Copy)]
struct DrawPlaces {
    places: Address,
    settings: Address,
    slots: Address,
    drawn: Address,
}

/// A token that is to be computed.
#[derive(Clone, Copy)]
struct Token<'b> {
    /// Index of its row in the batch.
    row_index: usize,
    row: &'b Row,
    position: usize,
}

type Outputs = Vec<Result<RowOutput, SamplingError>>;

impl Staging {
    pub(super) fn new(device: &mut dyn Device, plan: &Plan) -> Result<Self, DeviceError> {
        let n = plan.most_tokens.max(MOST_ROWS);
        let tokens = device.allocate(4 * n * (4 + plan.table_width()))?;
        Ok(Self { tokens, draws: device.allocate(MOST_ROWS * (size_of::<DrawSettings>() + 12))? })
    }

    fn inputs(&self, n: usize) -> Inputs {
        let [ids, positions, tables] = [0, 1, 2].map(|index| self.tokens.plus(4 * n * index));
        Inputs { ids, positions, tables, tiles: None }
    }

    fn draw_places(&self, n: usize) -> DrawPlaces {
        let settings = self.draws;
        let [places, slots, drawn] = [0, 1, 2].map(|index| settings.plus(n * (size_of::<DrawSettings>() + 4 * index)));
        DrawPlaces { places, settings, slots, drawn }
    }

    /// Writes the tokens, and rows of no position up to `n`.
    fn write_tokens(
        &self,
        device: &mut dyn Device,
        tokens: &[Token<'_>],
        (n, width): (usize, usize),
    ) -> Result<Inputs, DeviceError> {
        let mut numbers = vec![0_u32; n * (2 + width)];
        let (ids, rest) = numbers.split_at_mut(n);
        let (positions, tables) = rest.split_at_mut(n);
        positions.fill((-1_i32).cast_unsigned());
        for (index, token) in tokens.iter().enumerate() {
            ids[index] = token.row.ids[token.position];
            positions[index] = token.position as u32;
            let n_blocks = token.position / BLOCK_SIZE + 1;
            for (entry, block) in tables[index * width..].iter_mut().zip(&token.row.blocks[..n_blocks]) {
                *entry = block.0;
            }
        }
        write_numbers(device, self.tokens, &numbers)?;
        Ok(self.inputs(n))
    }

    /// The same for tokens of prompts, which attend in tiles.
    fn write_prompts(
        &self,
        device: &mut dyn Device,
        tokens: &[Token<'_>],
        width: usize,
    ) -> Result<Inputs, DeviceError> {
        let inputs = self.write_tokens(device, tokens, (tokens.len(), width))?;
        let tiles = tiles(tokens);
        let address = inputs.tables.plus(4 * tokens.len() * width);
        write_numbers(device, address, tiles.as_flattened())?;
        Ok(Inputs { tiles: Some((address, tiles.len())), ..inputs })
    }
}

/// Runs of tokens of the same row: the first one, and how many.
fn tiles(tokens: &[Token<'_>]) -> Vec<[u32; 2]> {
    let mut tiles: Vec<[u32; 2]> = Vec::new();
    for (index, token) in tokens.iter().enumerate() {
        match tiles.last_mut() {
            Some([first, n]) if tokens[*first as usize].row_index == token.row_index && (*n as usize) < TILE_TOKENS => {
                *n += 1;
            }
            _ => tiles.push([index as u32, 1]),
        }
    }
    tiles
}

impl Token<'_> {
    fn draws(&self) -> bool {
        self.row.draw.is_some() && self.position + 1 == self.row.ids.len()
    }

    fn is_needed(&self) -> bool {
        self.draws() || self.row.logits || self.row.prompt_logprobs.is_some()
    }

    /// Whether more is asked for than a token.
    fn needs_logits(&self) -> bool {
        self.row.logits || self.row.prompt_logprobs.is_some() || (self.draws() && self.row.logprobs.is_some())
    }
}

impl CudaBackend {
    pub(super) fn compute(&mut self, batch: &Batch) -> Result<Outputs, BackendError> {
        let mut outputs: Outputs = batch.rows.iter().map(|_| Ok(RowOutput::default())).collect();
        let tokens = |row_index: usize| {
            let row = &batch.rows[row_index];
            (row.start..row.ids.len()).map(move |position| Token { row_index, row, position })
        };
        let (single, several): (Vec<usize>, Vec<usize>) =
            (0..batch.rows.len()).partition(|index| batch.rows[*index].ids.len() == batch.rows[*index].start + 1);
        let single: Vec<Token<'_>> = single.into_iter().flat_map(tokens).collect();
        for group in single.chunks(MOST_ROWS) {
            self.draw_group(group, &mut outputs)?;
        }
        let several: Vec<Token<'_>> = several.into_iter().flat_map(tokens).collect();
        for group in several.chunks(self.model.plan.most_tokens) {
            self.read_group(group, &mut outputs)?;
        }
        Ok(outputs)
    }

    /// Sequences that go on by one token each.
    fn draw_group(&mut self, group: &[Token<'_>], outputs: &mut Outputs) -> Result<(), BackendError> {
        let n_rows = BUCKETS.into_iter().find(|n| group.len() <= *n).unwrap_or(MOST_ROWS);
        let longest = group.iter().map(|token| token.position + 1).max().unwrap_or(1);
        let most_positions = self.model.plan.most_positions;
        let most_positions = CONTEXTS.into_iter().find(|n| longest <= *n).unwrap_or(most_positions).min(most_positions);
        self.staging.write_tokens(&mut *self.device, group, (n_rows, self.model.plan.table_width()))?;
        let places: Vec<usize> = (0..n_rows).collect();
        self.write_draws(group, &places)?;
        self.run(GraphKey { n_rows, most_positions })?;
        self.take(group, n_rows, outputs)
    }

    /// What a step of drawing launches: recorded before, or now, or not at all.
    fn run(&mut self, key: GraphKey) -> Result<(), BackendError> {
        match self.graphs.get(&key) {
            Some(Graph::Recorded(graph)) => return Ok(self.device.replay(*graph)?),
            Some(Graph::Warm) if self.settings.graphs => {
                let graph = match self.record(key) {
                    Ok(graph) => Graph::Recorded(graph),
                    Err(error @ DeviceError::Lost(_)) => return Err(error.into()),
                    Err(error) => {
                        tracing::warn!(%error, n_rows = key.n_rows, "launches cannot be recorded; each step launches them anew, which is slower");
                        Graph::Failed
                    }
                };
                self.graphs.insert(key, graph);
                return match graph {
                    Graph::Recorded(graph) => Ok(self.device.replay(graph)?),
                    Graph::Warm | Graph::Failed => Ok(self.launch(key)?),
                };
            }
            Some(Graph::Warm | Graph::Failed) => {}
            None => {
                self.graphs.insert(key, Graph::Warm);
            }
        }
        Ok(self.launch(key)?)
    }

    fn record(&mut self, key: GraphKey) -> Result<super::device::GraphId, DeviceError> {
        self.device.begin_recording()?;
        let launched = self.launch(key);
        let recorded = self.device.end_recording();
        launched.and(recorded)
    }

    fn launch(&mut self, GraphKey { n_rows, most_positions }: GraphKey) -> Result<(), DeviceError> {
        self.model.forward(&mut *self.device, n_rows, self.staging.inputs(n_rows), most_positions)?;
        self.draw(n_rows)
    }

    /// Logits of the rows at the places written, and a token for each.
    fn draw(&mut self, n: usize) -> Result<(), DeviceError> {
        let DrawPlaces { places, settings, slots, drawn } = self.staging.draw_places(n);
        let logits = self.model.logits(&mut *self.device, n, places)?;
        let draws = Draws { logits, settings, slots, seen: self.seen.bits(), drawn };
        self.model.draw(&mut *self.device, n, draws)
    }

    /// Prompts, or parts of them.
    fn read_group(&mut self, group: &[Token<'_>], outputs: &mut Outputs) -> Result<(), BackendError> {
        let longest = group.iter().map(|token| token.position + 1).max().unwrap_or(1);
        let width = self.model.plan.table_width();
        let inputs = self.staging.write_prompts(&mut *self.device, group, width)?;
        self.model.forward(&mut *self.device, group.len(), inputs, longest)?;
        let needed: Vec<usize> = (0..group.len()).filter(|index| group[*index].is_needed()).collect();
        for places in needed.chunks(MOST_ROWS) {
            let some: Vec<Token<'_>> = places.iter().map(|index| group[*index]).collect();
            self.write_draws(&some, places)?;
            self.draw(some.len())?;
            self.take(&some, some.len(), outputs)?;
        }
        Ok(())
    }

    /// Writes which rows have logits, and how each is drawn; those behind the tokens draw nothing.
    fn write_draws(&mut self, tokens: &[Token<'_>], places: &[usize]) -> Result<(), BackendError> {
        let n = places.len();
        let mut settings = vec![DrawSettings::default(); n];
        let mut slots = vec![0_usize; n];
        for ((token, settings), slot) in tokens.iter().zip(&mut settings).zip(&mut slots) {
            let draw = token.row.draw.filter(|_| token.draws() && !token.needs_logits() && self.settings.sampler);
            if let Some(on_device) = draw.as_ref().and_then(DrawSettings::of) {
                *settings = on_device;
                *slot = self.seen.slot(&mut *self.device, token.row)?;
            }
        }
        let mut bytes = bytemuck::cast_slice::<_, u8>(&settings).to_vec();
        for number in places.iter().chain(&slots) {
            bytes.extend((*number as u32).to_le_bytes());
        }
        // A row that draws nothing leaves this, and the host draws where somebody waits for it.
        bytes.extend(std::iter::repeat_n(kernels::HOST_DRAWS.to_le_bytes(), n).flatten());
        Ok(self.device.write(self.staging.draws, &bytes)?)
    }

    /// Takes what was drawn, and the logits where more is asked for.
    fn take(&mut self, tokens: &[Token<'_>], n_rows: usize, outputs: &mut Outputs) -> Result<(), BackendError> {
        let mut drawn = vec![0_i32; tokens.len()];
        read_numbers(&mut *self.device, self.staging.draw_places(n_rows).drawn, &mut drawn)?;
        let vocab_size = self.model.plan.vocab_size;
        for (index, (token, drawn)) in tokens.iter().zip(drawn).enumerate() {
            let output = &mut outputs[token.row_index];
            let Ok(so_far) = output else { continue };
            let on_device = u32::try_from(drawn).ok();
            if let Some(token_id) = on_device {
                self.seen.drawn(token.row.sequence, token_id);
            }
            if drawn == kernels::NOT_A_NUMBER {
                *output = Err(SamplingError::NotANumber);
                continue;
            }
            let is_missing = token.draws() && on_device.is_none();
            if !token.needs_logits() && !is_missing {
                so_far.drawn = on_device.filter(|_| token.draws()).map(|token| Drawn { token, logprobs: None });
                continue;
            }
            let mut logits = vec![0.0_f32; vocab_size];
            let row = self.model.logits_address().plus(index * vocab_size * size_of::<f32>());
            read_numbers(&mut *self.device, row, &mut logits)?;
            if let Err(error) = output::add(token.row, token.position, &logits, so_far) {
                *output = Err(error);
            }
        }
        Ok(())
    }
}
