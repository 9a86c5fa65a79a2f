//! The backend that a choice of device means: how it holds a model, whether there is room, and how it is made.

use std::sync::Arc;

use super::{
    backend::{
        Backend, BackendError,
        cpu::{CpuBackend, CpuOptions},
        cuda::{
            CudaBackend, CudaSettings, card,
            card_error::CardError,
            device::Device,
            kernels::Cells,
            plan::{KvRoom, Plan},
            self_check,
            weights::device_format,
        },
        reference::ReferenceBackend,
    },
    config::ModelConfig,
    format::Format,
    kv_type::KvType,
    load::{DeviceChoice, LoadError},
    memory,
    precision::{Part, Precision},
    room::{self, KvSize, Need},
    weights::{NumberType, Weights},
};

/// A backend that is to be made.
pub enum Target {
    /// [`CpuBackend`].
    Cpu,
    /// [`ReferenceBackend`].
    Reference,
    /// [`CudaBackend`], on this device.
    Cuda(Box<dyn Device>, CudaSettings),
}

/// How a model is held.
#[derive(Debug, Clone, Copy)]
pub struct Holding {
    /// Of the weights.
    pub precision: Precision,
    /// Of keys and values.
    pub kv_type: KvType,
}

impl Target {
    /// What a choice of device means on this machine.
    ///
    /// # Errors
    /// [`LoadError::Card`].
    pub fn choose(device: DeviceChoice, settings: CudaSettings) -> Result<Self, LoadError> {
        match device {
            DeviceChoice::Auto => Ok(best(settings)),
            DeviceChoice::Cpu => Ok(Self::Cpu),
            DeviceChoice::Reference => Ok(Self::Reference),
            DeviceChoice::Cuda(index) => Ok(Self::Cuda(card::open(index)?, settings)),
        }
    }

    /// What a card is and how right it computes for a model of this shape, a line each; none where there is no card.
    ///
    /// # Errors
    /// [`BackendError`].
    pub fn findings(&mut self, config: &ModelConfig) -> Result<Vec<String>, BackendError> {
        let Self::Cuda(device, settings) = self else { return Ok(Vec::new()) };
        let natural = |_: &str| Format::Dense(NumberType::Bf16);
        let plan = Plan::new(config, (Precision::default(), Cells::Bf16), natural, settings.most_tokens)?;
        let mut lines = vec![format!("{}, {:.1} GB free", device.name(), device.free_bytes()? as f64 / 1e9)];
        lines.extend(self_check::findings(&mut **device, (plan.heads, plan.cells))?);
        Ok(lines)
    }

    /// Whether it computes on this machine's cores.
    #[must_use]
    pub fn is_cpu(&self) -> bool {
        matches!(self, Self::Cpu)
    }

    /// What weights, keys and values are held in where this was asked for.
    ///
    /// # Errors
    /// [`LoadError::CudaFormat`].
    pub fn holding(&self, precision: Precision, kv_type: Option<KvType>) -> Result<Holding, LoadError> {
        match self {
            Self::Cpu => Ok(Holding { precision, kv_type: kv_type.unwrap_or(KvType::Bf16) }),
            // It is what others are measured by.
            Self::Reference => {
                let precision = Precision { number_type: Some(NumberType::F32), ..Precision::default() };
                Ok(Holding { precision, kv_type: KvType::F32 })
            }
            Self::Cuda(..) => {
                let kv_type = kv_type.unwrap_or(KvType::Bf16);
                if let Some(found) = precision.number_type.filter(|number_type| *number_type != NumberType::Bf16) {
                    return Err(LoadError::CudaFormat { flag: "--dtype", found: found.name(), expected: "bf16" });
                }
                if cells(kv_type).is_none() {
                    return Err(LoadError::CudaFormat {
                        flag: "--kv_dtype",
                        found: kv_type.name(),
                        expected: "bf16 or int8",
                    });
                }
                Ok(Holding { precision, kv_type })
            }
        }
    }

    /// What a tensor is held in where nothing else was asked for.
    #[must_use]
    pub fn natural(&self, natural: Format) -> Format {
        match self {
            Self::Cpu => natural,
            Self::Reference => Format::Dense(NumberType::F32),
            // Which part it is and how many columns it has matters only where something is asked for.
            Self::Cuda(..) => device_format(Precision::default(), Part::Projection, 0, natural),
        }
    }

    /// How many blocks of keys and values there is room for beside a model's weights; `stored_once` says how many bytes those take
    /// on this machine's cores where not each tensor has its own.
    ///
    /// # Errors
    /// [`LoadError::Room`], [`BackendError::Plan`].
    pub fn n_blocks(
        &self,
        config: &ModelConfig,
        Holding { precision, kv_type }: Holding,
        natural: impl Fn(&str) -> Format,
        (size, stored_once): (KvSize, Option<f64>),
    ) -> Result<usize, LoadError> {
        if let Self::Cuda(device, settings) = self {
            let cells = cells(kv_type).unwrap_or(Cells::Bf16);
            let room = match size {
                KvSize::Auto => KvRoom::Rest,
                KvSize::Gib(gib) => KvRoom::Bytes(gib * (1_u64 << 30) as f64),
                KvSize::Tokens(tokens) => KvRoom::Tokens(tokens),
            };
            return Ok(CudaBackend::n_blocks(&**device, (config, precision, cells), natural, room, *settings)?);
        }
        let need = Need::of(config, precision, natural, kv_type);
        let need = Need { weight_bytes: stored_once.unwrap_or(need.weight_bytes), ..need };
        Ok(room::n_blocks(config, size, need, memory::available())?)
    }

    /// Puts weights behind the backend.
    ///
    /// # Errors
    /// [`BackendError`], where a tensor cannot be read or there is no room for it.
    pub fn make(
        self,
        config: &ModelConfig,
        weights: Arc<dyn Weights>,
        Holding { precision, kv_type }: Holding,
        (n_blocks, threads): (usize, usize),
    ) -> Result<Box<dyn Backend>, BackendError> {
        Ok(match self {
            Self::Cpu => {
                let options = CpuOptions { precision, kv_type, n_blocks, threads };
                Box::new(CpuBackend::new(config, weights, options)?)
            }
            Self::Reference => Box::new(ReferenceBackend::new(config, weights, n_blocks)?),
            Self::Cuda(device, settings) => {
                let cells = cells(kv_type).unwrap_or(Cells::Bf16);
                Box::new(CudaBackend::new(device, (config, &*weights), (precision, cells, n_blocks), settings)?)
            }
        })
    }
}

/// What a card holds keys and values in, where it can.
fn cells(kv_type: KvType) -> Option<Cells> {
    match kv_type {
        KvType::Bf16 => Some(Cells::Bf16),
        KvType::Int8 => Some(Cells::Int8),
        KvType::F32 | KvType::F16 => None,
    }
}

/// A card where there is one that works.
fn best(settings: CudaSettings) -> Target {
    match card::open(0) {
        Ok(device) => Target::Cuda(device, settings),
        Err(CardError::NotBuilt { .. }) => Target::Cpu,
        Err(error) => {
            tracing::warn!("no card is used: {error}");
            Target::Cpu
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::block_format::BlockFormat;

    #[test]
    fn each_target_holds_weights_its_own_way() {
        let [half, fives] = [Format::Dense(NumberType::F16), Format::Blocks(BlockFormat::Q5K)];
        assert_eq!([half, fives].map(|format| Target::Cpu.natural(format)), [half, fives]);
        let single = Format::Dense(NumberType::F32);
        assert_eq!([half, fives].map(|format| Target::Reference.natural(format)), [single, single]);
    }

    #[test]
    fn a_program_built_without_has_no_card_and_the_best_is_the_cpu() {
        if card::IS_BUILT {
            return;
        }
        let choose = |device| Target::choose(device, CudaSettings::default());
        assert!(matches!(choose(DeviceChoice::Cuda(1)), Err(LoadError::Card(CardError::NotBuilt { index: 1 }))));
        assert!(choose(DeviceChoice::Auto).is_ok_and(|target| target.is_cpu()));
    }
}
