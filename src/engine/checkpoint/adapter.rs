//! `LoRA` adapters, as PEFT saves them: for some projections two thin matrices whose product is added to the weights.
//!
//! It does not know how a file's tensors are found, only what they must be. **Architecture Invariant:** of an [`Adapter`]
//! that was checked every tensor belongs to one projection of the model and has its shape, and none is left over.

pub mod config;
pub mod error;

use std::{
    collections::{BTreeMap, HashMap},
    fs,
    ops::Range,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

use self::{config::AdapterConfig, error::AdapterError};
use super::{
    file_header::{Header, StoredTensor},
    stored_type::StoredType,
};
use crate::engine::{
    format::Format,
    regular_file,
    weights::{self, NumberType, Weights},
};

const SAFETENSORS: &str = "adapter_model.safetensors";
const PICKLE: &str = "adapter_model.bin";
const PREFIX: &str = "base_model.model.";
const LORA_A: &str = ".lora_A.weight";
const LORA_B: &str = ".lora_B.weight";
/// The model's own matrix, which PEFT saves with the adapter where that changes the head.
const BASE: &str = ".base_layer.weight";
/// How many of its rows are compared with the model's.
const COMPARED_ROWS: usize = 8;

/// The file that an adapter's tensors are in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AdapterFile {
    /// `adapter_model.safetensors`.
    Safetensors(PathBuf),
    /// `adapter_model.bin`.
    Pickle(PathBuf),
}

/// The file with the tensors in `dir`.
///
/// # Errors
/// [`AdapterError::NoWeights`].
pub fn find(dir: &Path) -> Result<AdapterFile, AdapterError> {
    let there = |name: &str| Some(dir.join(name)).filter(|path| fs::symlink_metadata(path).is_ok());
    if let Some(path) = there(SAFETENSORS) {
        return Ok(AdapterFile::Safetensors(path));
    }
    there(PICKLE).map(AdapterFile::Pickle).ok_or_else(|| AdapterError::NoWeights { dir: dir.to_owned() })
}

/// An adapter that fits the model.
#[derive(Debug)]
pub struct Adapter {
    header: Header,
    pairs: BTreeMap<String, Pair>,
    /// The model's own matrices that are saved beside, by the weights' names.
    bases: BTreeMap<String, StoredTensor>,
}

/// The two matrices of a projection, not read yet.
#[derive(Debug)]
struct Pair {
    /// (r, in).
    a: StoredTensor,
    /// (out, r).
    b: StoredTensor,
    scale: f32,
}

impl Adapter {
    /// Checks the tensors of `header` against the configuration and the model's projections: `(name, (out, in))` with names
    /// as `model.layers.0.self_attn.q_proj.weight`.
    ///
    /// # Errors
    /// [`AdapterError`], with what was found, what was expected and a hint.
    pub fn check(
        config: &AdapterConfig,
        header: Header,
        projections: &[(String, (usize, usize))],
    ) -> Result<Self, AdapterError> {
        let shapes: HashMap<&str, (usize, usize)> =
            projections.iter().map(|(name, shape)| (name.strip_suffix(".weight").unwrap_or(name), *shape)).collect();
        let mut halves: BTreeMap<&str, [Option<&StoredTensor>; 2]> = BTreeMap::new();
        let mut bases = BTreeMap::new();
        for tensor in &header.tensors {
            if let Some(module) = tensor.name.strip_prefix(PREFIX).and_then(|name| name.strip_suffix(BASE)) {
                if bases.insert(format!("{module}.weight"), tensor.clone()).is_some() {
                    return Err(AdapterError::Duplicate { tensor: tensor.name.clone() });
                }
                continue;
            }
            let (module, side) = part(&tensor.name)?;
            let slot = halves.entry(module).or_default().get_mut(side);
            if slot.is_none_or(|slot| slot.replace(tensor).is_some()) {
                return Err(AdapterError::Duplicate { tensor: tensor.name.clone() });
            }
        }
        let mut pairs = BTreeMap::new();
        for (module, halves) in halves {
            let Some(&shape) = shapes.get(module).filter(|_| config.is_target(module) != Some(false)) else {
                return Err(AdapterError::NotATarget { module: module.to_owned() });
            };
            let [Some(a), Some(b)] = halves else {
                let half = if halves.first().is_some_and(Option::is_none) { LORA_A } else { LORA_B };
                return Err(AdapterError::Missing { tensor: format!("{PREFIX}{module}{half}") });
            };
            pairs.insert(format!("{module}.weight"), pair(config, module, (a, b), shape)?);
        }
        let mut modules: Vec<&&str> = shapes.keys().collect();
        modules.sort_unstable();
        let is_missing =
            |module: &&&str| config.is_target(module) == Some(true) && !pairs.contains_key(&format!("{module}.weight"));
        if let Some(module) = modules.into_iter().find(is_missing) {
            return Err(AdapterError::Missing { tensor: format!("{PREFIX}{module}{LORA_A}") });
        }
        if pairs.is_empty() {
            return Err(AdapterError::Empty { file: header.file });
        }
        for (name, tensor) in &bases {
            let module = name.strip_suffix(".weight").unwrap_or(name);
            let Some(&(n_out, n_in)) = shapes.get(module).filter(|_| pairs.contains_key(name)) else {
                return Err(AdapterError::UnknownTensor { tensor: tensor.name.clone() });
            };
            check_tensor(tensor, &[n_out, n_in])?;
        }
        Ok(Self { header, pairs, bases })
    }

    /// Compares some rows of the model's own matrices that were saved with the adapter with those of `model`, which are what it
    /// was trained on. Where the model is quantised they differ, and nothing is compared.
    ///
    /// # Errors
    /// [`AdapterError::OtherBase`], and [`AdapterError::Unreadable`].
    pub fn compare_bases(&self, model: &dyn Weights) -> Result<(), AdapterError> {
        let unreadable = |source| AdapterError::Unreadable { path: self.header.path.clone(), source };
        for (name, tensor) in &self.bases {
            let (Some(info), Some(number_type)) = (model.info(name), number_type(&tensor.dtype)) else { continue };
            if !matches!((info.format, info.natural), (Format::Dense(_), Format::Dense(_))) {
                continue;
            }
            let (file, _) = regular_file::open(&self.header.path).map_err(unreadable)?;
            let mut bytes = vec![0; info.n_columns * number_type.n_bytes()];
            let (mut own, mut saved) = (vec![0.0; info.n_columns], vec![0.0; info.n_columns]);
            for row in (0..info.n_rows).step_by((info.n_rows / COMPARED_ROWS).max(1)) {
                let begin = tensor.begin + (row * bytes.len()) as u64;
                file.read_exact_at(&mut bytes, begin).map_err(unreadable)?;
                number_type.widen(&bytes, &mut saved);
                // What keeps the model's weights from being read is said when they are.
                let read = weights::read_f32(model, (name, info), row..row + 1, &mut Vec::new(), &mut own);
                // One of them may be of sixteen bits.
                let is_same = |(a, b): (&f32, &f32)| (a - b).abs() <= 0.01 * a.abs().max(b.abs()) + 1e-6;
                if read.is_ok() && !own.iter().zip(&saved).all(is_same) {
                    return Err(AdapterError::OtherBase { tensor: tensor.name.clone() });
                }
            }
        }
        Ok(())
    }

    /// Names of the weights that are changed, sorted.
    pub fn weights(&self) -> impl Iterator<Item = &str> {
        self.pairs.keys().map(String::as_str)
    }

    /// The file's checked header.
    #[must_use]
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Reads what is added to the weight called `name`; `None` where nothing is.
    ///
    /// # Errors
    /// [`AdapterError::Unreadable`], and [`AdapterError::NotFinite`].
    pub fn delta(&self, name: &str) -> Result<Option<Delta>, AdapterError> {
        let Some(Pair { a, b, scale }) = self.pairs.get(name) else { return Ok(None) };
        let unreadable = |source| AdapterError::Unreadable { path: self.header.path.clone(), source };
        let (file, _) = regular_file::open(&self.header.path).map_err(unreadable)?;
        let read = |tensor: &StoredTensor| {
            let mut bytes = vec![0; (tensor.end - tensor.begin) as usize];
            file.read_exact_at(&mut bytes, tensor.begin).map_err(unreadable)?;
            let values = values(&tensor.dtype, &bytes);
            if values.iter().all(|value| value.is_finite()) {
                Ok(values)
            } else {
                Err(AdapterError::NotFinite { tensor: tensor.name.clone() })
            }
        };
        let n_in = a.shape.last().copied().unwrap_or_default();
        Ok(Some(Delta { a: read(a)?, b: read(b)?, n_in, scale: *scale }))
    }
}

/// What an adapter adds to one weight.
#[derive(Debug, Clone, PartialEq)]
pub struct Delta {
    /// (r, in), row-major.
    pub a: Vec<f32>,
    /// (out, r), row-major.
    pub b: Vec<f32>,
    /// Numbers in a row of the weight.
    pub n_in: usize,
    /// Of the product.
    pub scale: f32,
}

impl Delta {
    /// Adds `scale · B·A` to some rows of the weight, which lie in `weights` one after the other.
    pub fn add_to_rows(&self, rows: Range<usize>, weights: &mut [f32]) {
        let rank = self.a.len() / self.n_in.max(1);
        let mut sums = vec![0.0_f32; self.n_in];
        for (row, weights) in rows.zip(weights.chunks_exact_mut(self.n_in.max(1))) {
            let factors = self.b.get(row * rank..(row + 1) * rank).unwrap_or_default();
            sums.fill(0.0);
            for (factor, a) in factors.iter().zip(self.a.chunks_exact(self.n_in.max(1))) {
                sums.iter_mut().zip(a).for_each(|(sum, a)| *sum += factor * a);
            }
            weights.iter_mut().zip(&sums).for_each(|(weight, sum)| *weight += self.scale * sum);
        }
    }
}

/// The projection that a tensor belongs to, and which of the two matrices it is.
fn part(tensor: &str) -> Result<(&str, usize), AdapterError> {
    let module = tensor.strip_prefix(PREFIX).unwrap_or_default();
    let halves = [(LORA_A, 0), (LORA_B, 1)];
    halves
        .iter()
        .find_map(|(end, side)| Some((module.strip_suffix(end)?, *side)))
        .ok_or_else(|| AdapterError::UnknownTensor { tensor: tensor.to_owned() })
}

fn pair(
    config: &AdapterConfig,
    module: &str,
    (a, b): (&StoredTensor, &StoredTensor),
    (n_out, n_in): (usize, usize),
) -> Result<Pair, AdapterError> {
    let (rank, scale) = config.rank_and_scale(module)?;
    check_tensor(a, &[rank, n_in])?;
    check_tensor(b, &[n_out, rank])?;
    Ok(Pair { a: a.clone(), b: b.clone(), scale })
}

fn check_tensor(tensor: &StoredTensor, expected: &[usize]) -> Result<(), AdapterError> {
    if tensor.shape != expected {
        let (tensor, found) = (tensor.name.clone(), tensor.shape.clone());
        return Err(AdapterError::Shape { tensor, found, expected: expected.to_vec() });
    }
    if number_type(&tensor.dtype).is_none() {
        return Err(AdapterError::NumberType { tensor: tensor.name.clone(), found: tensor.dtype.clone() });
    }
    Ok(())
}

fn number_type(dtype: &StoredType) -> Option<NumberType> {
    match dtype {
        StoredType::F32 => Some(NumberType::F32),
        StoredType::F16 => Some(NumberType::F16),
        StoredType::BF16 => Some(NumberType::Bf16),
        StoredType::I32 | StoredType::U8 | StoredType::Other(_) | StoredType::Block(_) => None,
    }
}

fn values(dtype: &StoredType, bytes: &[u8]) -> Vec<f32> {
    // Others were refused when the pair was checked.
    let Some(number_type) = number_type(dtype) else { return Vec::new() };
    let mut values = vec![0.0; bytes.len() / number_type.n_bytes()];
    number_type.widen(bytes, &mut values);
    values
}

#[cfg(test)]
mod tests;
