//! Random numbers, what is computed from them plainly in doubles, and the same on a device: what kernels are checked with, by the
//! tests and when the program starts.

use half::{bf16, f16};

use super::{
    device::{Address, Device, DeviceError, read_numbers, write_numbers},
    kernels::{Cells, DeviceMatrix, Heads, LayerCache, Rows},
    packing::{WeightForm, lay_out},
};
use crate::engine::{
    backend::cpu::quantized::{
        pack, packed_bytes,
        unit::{Unit, offset},
    },
    block_format::BlockFormat,
    format::Format,
    kv::BLOCK_SIZE,
};

/// Numbers around zero, the same for a seed.
pub(super) struct Random(pub(super) u64);

impl Random {
    pub(super) fn next(&mut self) -> f32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 40) as f32 / (1 << 23) as f32 - 1.0
    }

    pub(super) fn floats(&mut self, n: usize) -> Vec<f32> {
        (0..n).map(|_| self.next()).collect()
    }

    pub(super) fn halves(&mut self, n: usize) -> Vec<bf16> {
        (0..n).map(|_| bf16::from_f32(self.next())).collect()
    }
}

/// Room on the device with these numbers in it.
pub(super) fn put<T: bytemuck::NoUninit>(device: &mut dyn Device, numbers: &[T]) -> Result<Address, DeviceError> {
    let address = device.allocate(size_of_val(numbers))?;
    write_numbers(device, address, numbers)?;
    Ok(address)
}

/// Numbers on the device.
pub(super) fn get<T: bytemuck::AnyBitPattern + bytemuck::NoUninit>(
    device: &mut dyn Device,
    from: Address,
    n: usize,
) -> Result<Vec<T>, DeviceError> {
    let mut numbers = vec![T::zeroed(); n];
    read_numbers(device, from, &mut numbers)?;
    Ok(numbers)
}

/// In doubles.
pub(super) fn wide(halves: &[bf16]) -> Vec<f64> {
    halves.iter().map(|half| half.to_f64()).collect()
}

/// Keys and values of one layer that are numbers where a sequence has positions.
pub(super) struct Context {
    heads: Heads,
    pub(super) cache: LayerCache,
    /// For each sequence, shape (position, head of keys, `head_dim`).
    keys: Vec<Vec<f64>>,
    values: Vec<Vec<f64>>,
    pub(super) rows: Rows,
    positions: Vec<i32>,
    /// Whose, by row.
    sequences: Vec<usize>,
}

/// Blocks of a sequence.
pub(super) const TABLE_WIDTH: usize = 48;

impl Context {
    /// One row at each of the positions, each of a sequence of its own.
    pub(super) fn new(
        device: &mut dyn Device,
        (heads, cells): (Heads, Cells),
        positions: &[i32],
    ) -> Result<Self, DeviceError> {
        let rows: Vec<(usize, i32)> = positions.iter().copied().enumerate().collect();
        Self::of(device, (heads, cells), &rows)
    }

    /// Rows of these sequences, numbered from 0 on, at these positions. The sequences' blocks are scattered over the pool.
    pub(super) fn of(
        device: &mut dyn Device,
        (heads, cells): (Heads, Cells),
        rows: &[(usize, i32)],
    ) -> Result<Self, DeviceError> {
        let n_sequences = rows.iter().map(|(sequence, _)| sequence + 1).max().unwrap_or(0);
        let mut longest = vec![-1; n_sequences];
        for (sequence, position) in rows {
            longest[*sequence] = *position.max(&longest[*sequence]);
        }
        let n_blocks: usize = n_sequences * TABLE_WIDTH;
        let width = heads.n_kv * heads.dim;
        let mut random = Random(4);
        let (mut keys, mut values, mut tables) = (Vec::new(), Vec::new(), Vec::new());
        let n_rows = n_blocks * BLOCK_SIZE * heads.n_kv;
        // What no position has is no number, or has a scale that is none.
        let mut pools = [(); 2].map(|()| (vec![0xff_u8; n_rows * cells.n_bytes(heads.dim)], vec![f16::NAN; n_rows]));
        for (sequence, position) in longest.iter().enumerate() {
            let table: Vec<usize> =
                (0..TABLE_WIDTH).map(|block| (block * 7 + sequence) % TABLE_WIDTH * longest.len() + sequence).collect();
            let n = usize::try_from(*position).map_or(0, |position| position + 1);
            let meant = pools.each_mut().map(|(numbers, scales)| {
                let mut meant = Vec::with_capacity(n * width);
                for (at, head) in (0..n).flat_map(|at| (0..heads.n_kv).map(move |head| (at, head))) {
                    let row = (table[at / BLOCK_SIZE] * heads.n_kv + head) * BLOCK_SIZE + at % BLOCK_SIZE;
                    let cell = &mut numbers[row * cells.n_bytes(heads.dim)..][..cells.n_bytes(heads.dim)];
                    scales[row] = f16::from_f32(0.004 + 0.004 * random.next().abs());
                    meant.extend(random_head(&mut random, cells, cell, scales[row]));
                }
                meant
            });
            tables.extend(table.iter().map(|block| *block as u32));
            let [of_keys, of_values] = meant;
            keys.push(of_keys);
            values.push(of_values);
        }
        let scales = |device: &mut dyn Device, scales: &[f16]| match cells {
            Cells::Bf16 => Ok(Address::NONE),
            Cells::Int8 => put(device, scales),
        };
        let cache = LayerCache {
            cells,
            keys: put(device, &pools[0].0)?,
            values: put(device, &pools[1].0)?,
            key_scales: scales(device, &pools[0].1)?,
            value_scales: scales(device, &pools[1].1)?,
        };
        let (sequences, positions): (Vec<usize>, Vec<i32>) = rows.iter().copied().unzip();
        // A row's table has the blocks up to its own position, and none behind them.
        let table_of = |(sequence, position): (&usize, &i32)| {
            let n_used = usize::try_from(*position).map_or(0, |position| position / BLOCK_SIZE + 1);
            let used = &tables[sequence * TABLE_WIDTH..][..n_used];
            used.iter().copied().chain(std::iter::repeat_n(u32::MAX, TABLE_WIDTH - n_used)).collect::<Vec<u32>>()
        };
        let tables: Vec<u32> = sequences.iter().zip(&positions).flat_map(table_of).collect();
        let rows = Rows {
            n: positions.len(),
            positions: put(device, &positions)?,
            tables: put(device, &tables)?,
            table_width: TABLE_WIDTH,
        };
        Ok(Self { heads, cache, keys, values, rows, positions, sequences })
    }

    /// What attention gives for queries of shape (row, head, `head_dim`); zeros for rows that fill up.
    pub(super) fn attended(&self, queries: &[bf16]) -> Vec<f64> {
        self.attended_as(queries, |number| number)
    }

    /// The same by plain code in bf16, which rounds its weights and what comes out.
    pub(super) fn attended_plainly(&self, queries: &[bf16]) -> Vec<f64> {
        self.attended_as(queries, |number| bf16::from_f64(number).to_f64())
    }

    fn attended_as(&self, queries: &[bf16], kept: impl Fn(f64) -> f64) -> Vec<f64> {
        let Heads { n, n_kv, dim } = self.heads;
        let mut out = Vec::new();
        for (row, position) in self.positions.iter().enumerate() {
            let sequence = self.sequences[row];
            for head in 0..n {
                let query = wide(&queries[(row * n + head) * dim..][..dim]);
                let Ok(position) = usize::try_from(*position) else {
                    out.extend(std::iter::repeat_n(0.0, dim));
                    continue;
                };
                let of = |numbers: &[f64], at: usize| -> Vec<f64> {
                    numbers[(at * n_kv + head / (n / n_kv)) * dim..][..dim].to_vec()
                };
                let scores: Vec<f64> = (0..=position)
                    .map(|at| {
                        of(&self.keys[sequence], at).iter().zip(&query).map(|(key, query)| key * query).sum::<f64>()
                    })
                    .map(|score| score / (dim as f64).sqrt())
                    .collect();
                let largest = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
                let weights: Vec<f64> = scores.iter().map(|score| (score - largest).exp()).collect();
                let all: f64 = weights.iter().sum();
                let mut sum = vec![0.0; dim];
                for (at, weight) in weights.iter().enumerate() {
                    for (sum, value) in sum.iter_mut().zip(of(&self.values[sequence], at)) {
                        *sum += kept(weight / all) * value;
                    }
                }
                out.extend(sum.into_iter().map(&kept));
            }
        }
        out
    }
}

/// Random numbers of a head into a row of a cache, and what they mean.
fn random_head(random: &mut Random, cells: Cells, cell: &mut [u8], scale: f16) -> Vec<f64> {
    match cells {
        Cells::Bf16 => {
            let numbers = random.halves(cell.len() / 2);
            cell.copy_from_slice(bytemuck::cast_slice(&numbers));
            wide(&numbers)
        }
        Cells::Int8 => {
            let numbers: Vec<i8> = (0..cell.len()).map(|_| (127.4 * random.next()) as i8).collect();
            cell.copy_from_slice(bytemuck::cast_slice(&numbers));
            numbers.iter().map(|number| f64::from(*number) * scale.to_f64()).collect()
        }
    }
}

/// Random weights of shape (`n_out`, `n_in`) on the device, and what they stand for.
pub(super) fn matrix(
    device: &mut dyn Device,
    format: Option<BlockFormat>,
    n_out: usize,
    n_in: usize,
) -> Result<(DeviceMatrix, Vec<f64>), DeviceError> {
    let numbers = Random(n_out as u64).floats(n_out * n_in);
    let n_tiles = n_out.div_ceil(16);
    let Some(format) = format else {
        let mut halves: Vec<bf16> = numbers.iter().copied().map(bf16::from_f32).collect();
        let meant = wide(&halves);
        halves.resize(n_tiles * 16 * n_in, bf16::ZERO);
        let quants = put(device, &halves)?;
        let form = WeightForm::Dense;
        return Ok((DeviceMatrix { form, quants, scales: Address::NONE, n_out, n_in }, meant));
    };
    let mut packed =
        vec![0; packed_bytes(format, n_out, n_in).expect("invariant: random numbers in whole blocks can be quantised")];
    pack::quantize(format, n_in, &numbers, &mut packed)
        .expect("invariant: random numbers in whole blocks can be quantised");
    let mut meant = vec![0.0; numbers.len()];
    pack::dequantize(format, n_in, &packed, &mut meant)
        .expect("invariant: random numbers in whole blocks can be quantised");
    let form = WeightForm::of(Format::Blocks(format));
    let (mut quants, mut scales) =
        (vec![0; n_tiles * form.quant_bytes(n_in)], vec![0; n_tiles * form.scale_bytes(n_in)]);
    lay_out(format, n_in, &packed, &mut quants, &mut scales);
    if form == WeightForm::SmallBytes {
        meant = with_rounded_scales(format, n_in, &packed, n_out);
    }
    let (quants, scales) = (put(device, &quants)?, put(device, &scales)?);
    let meant = meant.iter().map(|number| f64::from(*number)).collect();
    Ok((DeviceMatrix { form, quants, scales, n_out, n_in }, meant))
}

/// Scales that are products in the packed form are f16 on the device.
fn with_rounded_scales(format: BlockFormat, n_in: usize, packed: &[u8], n_out: usize) -> Vec<f32> {
    let tile_bytes = packed.len() / n_out.div_ceil(16);
    let number = |row: usize, column: usize| {
        let unit = Unit::of(format, n_in, &packed[row / 16 * tile_bytes..][..tile_bytes], column / 32);
        let bits = i32::from(unit.bits(row % 16, column % 32)) - offset(format);
        bits as f32 * f16::from_f32(unit.scale(row % 16, column % 32 / 16)).to_f32()
    };
    (0..n_out)
        .flat_map(|row| (0..n_in).map(move |column| (row, column)))
        .map(|(row, column)| number(row, column))
        .collect()
}

/// Products of rows of x with rows of weights, shape (row of x, row of weights).
pub(super) fn products(x: &[bf16], weights: &[f64], n_in: usize) -> Vec<f64> {
    wide(x)
        .chunks_exact(n_in)
        .flat_map(|x| {
            weights.chunks_exact(n_in).map(move |row| x.iter().zip(row).map(|(x, weight)| x * weight).sum::<f64>())
        })
        .collect()
}

/// silu of gates times what goes up.
pub(super) fn silu_multiply(gate: f64, up: f64) -> f64 {
    gate / (1.0 + (-gate).exp()) * up
}
