//! One step of the backend: what the rows of a batch ask for, in groups that the device computes at once.

use super::{
    CudaBackend, CudaSettings, Graph, GraphKey,
    device::{Address, Device, DeviceError, read_numbers, write_numbers},
    kernels::{self, DrawSettings, Draws, MOST_ROWS, MOST_TOP, TILE_TOKENS, Telling, Told},
    model::Inputs,
    plan::Plan,
};
use crate::engine::{
    backend::{BackendError, Batch, Drawn, Row, RowOutput, output},
    kv::BlockId,
    request::TokenLogprobs,
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
    tellings: Address,
    told: Address,
}

/// Where in the second piece what is, for so many rows.
#[derive(Clone, Copy)]
pub(super) struct DrawPlaces {
    places: Address,
    settings: Address,
    slots: Address,
    pub(super) drawn: Address,
}

/// A token that is to be computed.
#[derive(Clone, Copy)]
pub(super) struct Token<'b> {
    /// Index of its row in the batch.
    row_index: usize,
    pub(super) row: &'b Row,
    pub(super) position: usize,
}

pub(super) type Outputs = Vec<Result<RowOutput, SamplingError>>;

impl Staging {
    pub(super) fn new(device: &mut dyn Device, plan: &Plan) -> Result<Self, DeviceError> {
        let n = plan.most_tokens.max(MOST_ROWS);
        let tokens = device.allocate(4 * n * (4 + plan.table_width()))?;
        Ok(Self {
            tokens,
            draws: device.allocate(MOST_ROWS * (size_of::<DrawSettings>() + 12))?,
            tellings: device.allocate(MOST_ROWS * size_of::<Telling>())?,
            told: device.allocate(MOST_ROWS * size_of::<Told>())?,
        })
    }

    fn inputs(&self, n: usize) -> Inputs {
        let [ids, positions, tables] = [0, 1, 2].map(|index| self.tokens.plus(4 * n * index));
        Inputs { ids, positions, tables, tiles: None }
    }

    pub(super) fn draw_places(&self, n: usize) -> DrawPlaces {
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
            for (entry, block) in tables[index * width..][..width].iter_mut().zip(&token.row.blocks) {
                *entry = block.0;
            }
        }
        write_numbers(device, self.tokens, &numbers)?;
        Ok(self.inputs(n))
    }

    /// Writes one more block of the row at an index into its table, of `n` rows that were written before.
    pub(super) fn write_block(
        &self,
        device: &mut dyn Device,
        (n, width): (usize, usize),
        (index, entry): (usize, usize),
        block: BlockId,
    ) -> Result<(), DeviceError> {
        write_numbers(device, self.inputs(bucket(n)).tables.plus(4 * (index * width + entry)), &[block.0])
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

/// How many rows so many are filled up to.
fn bucket(n: usize) -> usize {
    BUCKETS.into_iter().find(|bucket| n <= *bucket).unwrap_or(MOST_ROWS)
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
    pub(super) fn draws(&self) -> bool {
        self.row.draw.is_some() && self.position + 1 == self.row.ids.len()
    }

    fn is_needed(&self) -> bool {
        self.draws() || self.row.logits || self.row.prompt_logprobs.is_some()
    }

    /// Whether more is asked for than a token.
    pub(super) fn asks_more(&self) -> bool {
        self.row.logits || self.row.prompt_logprobs.is_some() || (self.draws() && self.row.logprobs.is_some())
    }

    /// What is to be told of probabilities here.
    fn telling(&self) -> Option<Telling> {
        let next = self.row.ids.get(self.position + 1).copied().or(self.row.following);
        let number = |number: u32| i32::try_from(number).unwrap_or(i32::MAX);
        let asked = self.row.prompt_logprobs.zip(next).map(|(n, next)| (number(next), n));
        let asked = asked.or(self.row.logprobs.filter(|_| self.draws()).map(|n| (-1, n)));
        asked.map(|(token, n)| Telling { token, n_top: number(n) })
    }

    /// Whether the device gives all that is asked for, so that the host needs no logits.
    fn is_for_device(&self, settings: CudaSettings) -> bool {
        let is_told = |telling: Telling| {
            settings.probabilities && usize::try_from(telling.n_top).is_ok_and(|n_top| n_top <= MOST_TOP)
        };
        let is_drawn = |draw| settings.sampler && DrawSettings::of(draw).is_some();
        !self.row.logits
            && self.telling().is_none_or(is_told)
            && (!self.draws() || self.row.draw.as_ref().is_none_or(is_drawn))
    }

    /// Whether it waits for a draw that the device has left to the host.
    pub(super) fn is_missing(&self, drawn: i32) -> bool {
        self.draws() && drawn < 0 && drawn != kernels::NOT_A_NUMBER
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
        self.draw_singles(&single, several.is_empty(), &mut outputs)?;
        let several: Vec<Token<'_>> = several.into_iter().flat_map(tokens).collect();
        for group in several.chunks(self.model.plan.most_tokens) {
            self.read_group(group, &mut outputs)?;
        }
        Ok(outputs)
    }

    /// Some sequences that go on by one token each, at most [`MOST_ROWS`].
    pub(super) fn draw_group(&mut self, group: &[Token<'_>], outputs: &mut Outputs) -> Result<(), BackendError> {
        let key = self.stage(group)?;
        self.run(key)?;
        self.take_all(group, key.n_rows, outputs)
    }

    /// Writes what the launches for these tokens read.
    pub(super) fn stage(&mut self, group: &[Token<'_>]) -> Result<GraphKey, BackendError> {
        let longest = group.iter().map(|token| token.position + 1).max().unwrap_or(1);
        let key = self.key(group.len(), longest);
        self.staging.write_tokens(&mut *self.device, group, (key.n_rows, self.model.plan.table_width()))?;
        let places: Vec<usize> = (0..key.n_rows).collect();
        self.write_draws(group, &places)?;
        Ok(key)
    }

    /// The launches for so many rows, of contexts of at most so many positions.
    pub(super) fn key(&self, n: usize, longest: usize) -> GraphKey {
        let most_positions = self.model.plan.most_positions;
        let most_positions = CONTEXTS.into_iter().find(|n| longest <= *n).unwrap_or(most_positions).min(most_positions);
        GraphKey { n_rows: bucket(n), most_positions }
    }

    /// What a step of drawing launches: recorded before, or now, or not at all.
    pub(super) fn run(&mut self, key: GraphKey) -> Result<(), BackendError> {
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
        let inputs = self.staging.inputs(n_rows);
        self.model.forward(&mut *self.device, n_rows, inputs, most_positions)?;
        let draws = self.draw(n_rows)?;
        kernels::advance(&mut *self.device, n_rows, draws, (inputs.ids, inputs.positions))
    }

    /// Logits of the rows at the places written, and a token for each.
    fn draw(&mut self, n: usize) -> Result<Draws, DeviceError> {
        let DrawPlaces { places, settings, slots, drawn } = self.staging.draw_places(n);
        let logits = self.model.logits(&mut *self.device, n, places)?;
        let draws = Draws { logits, settings, slots, seen: self.seen.bits(), drawn };
        self.model.draw(&mut *self.device, n, draws)?;
        Ok(draws)
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
            self.take_all(&some, some.len(), outputs)?;
        }
        Ok(())
    }

    /// Writes which rows have logits, and how each is drawn; those behind the tokens draw nothing.
    fn write_draws(&mut self, tokens: &[Token<'_>], places: &[usize]) -> Result<(), BackendError> {
        let n = places.len();
        let mut settings = vec![DrawSettings::default(); n];
        let mut slots = vec![0_usize; n];
        for ((token, settings), slot) in tokens.iter().zip(&mut settings).zip(&mut slots) {
            let draw = token.row.draw.filter(|_| token.draws() && token.is_for_device(self.settings));
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

    fn take_all(&mut self, tokens: &[Token<'_>], n_rows: usize, outputs: &mut Outputs) -> Result<(), BackendError> {
        let places = self.staging.draw_places(n_rows);
        let told = self.tell(tokens, places)?;
        let mut drawn = vec![0_i32; tokens.len()];
        read_numbers(&mut *self.device, places.drawn, &mut drawn)?;
        for (place, (token, drawn)) in tokens.iter().zip(drawn).enumerate() {
            self.take(token, (place, drawn), told.get(place), outputs)?;
        }
        Ok(())
    }

    /// What there is to tell of these tokens; nothing where none asks.
    fn tell(&mut self, tokens: &[Token<'_>], DrawPlaces { drawn, .. }: DrawPlaces) -> Result<Vec<Told>, DeviceError> {
        let telling = |token: &Token<'_>| token.telling().filter(|_| token.is_for_device(self.settings));
        let tellings: Vec<Option<Telling>> = tokens.iter().map(telling).collect();
        if tellings.iter().all(Option::is_none) {
            return Ok(Vec::new());
        }
        let tellings: Vec<Telling> = tellings.into_iter().map(|telling| telling.unwrap_or(Telling::NOTHING)).collect();
        write_numbers(&mut *self.device, self.staging.tellings, &tellings)?;
        let places = (self.staging.tellings, self.staging.told);
        let from = (self.model.logits_address(), drawn);
        kernels::tell(&mut *self.device, tokens.len(), from, places, self.model.plan.vocab_size)?;
        let mut told = vec![bytemuck::Zeroable::zeroed(); tokens.len()];
        read_numbers(&mut *self.device, self.staging.told, &mut told)?;
        Ok(told)
    }

    /// Takes what was drawn and told at a place, or the logits there where the host needs them.
    pub(super) fn take(
        &mut self,
        token: &Token<'_>,
        (place, drawn): (usize, i32),
        told: Option<&Told>,
        outputs: &mut Outputs,
    ) -> Result<(), BackendError> {
        let output = &mut outputs[token.row_index];
        let Ok(so_far) = output else { return Ok(()) };
        let on_device = u32::try_from(drawn).ok();
        if let Some(token_id) = on_device {
            self.seen.drawn(token.row.sequence, token_id);
        }
        if drawn == kernels::NOT_A_NUMBER {
            *output = Err(SamplingError::NotANumber);
            return Ok(());
        }
        if token.is_for_device(self.settings) && !token.is_missing(drawn) {
            let drawn = on_device.filter(|_| token.draws());
            if let Err(error) = take_told(token, drawn, told, so_far) {
                *output = Err(error);
            }
            return Ok(());
        }
        let vocab_size = self.model.plan.vocab_size;
        let mut logits = vec![0.0_f32; vocab_size];
        let row = self.model.logits_address().plus(place * vocab_size * size_of::<f32>());
        read_numbers(&mut *self.device, row, &mut logits)?;
        if let Err(error) = output::add(token.row, token.position, &logits, so_far) {
            *output = Err(error);
        }
        Ok(())
    }
}

/// Adds what the device drew and told.
fn take_told(
    token: &Token<'_>,
    drawn: Option<u32>,
    told: Option<&Told>,
    so_far: &mut RowOutput,
) -> Result<(), SamplingError> {
    let mut logprobs = None;
    if let (Some(telling), Some(told)) = (token.telling(), told) {
        if told.logprob.is_nan() {
            return Err(SamplingError::NotANumber);
        }
        let n_top = usize::try_from(telling.n_top).unwrap_or(0);
        let of = |token| TokenLogprobs { token, logprob: told.logprob, top: told.top(n_top).collect() };
        match u32::try_from(telling.token) {
            Ok(next) => so_far.prompt_logprobs.push(of(next)),
            Err(_) => logprobs = drawn.map(of),
        }
    }
    so_far.drawn = drawn.map(|token| Drawn { token, logprobs });
    Ok(())
}
