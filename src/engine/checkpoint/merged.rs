//! Weights with an adapter's share added while they are read.

use std::{
    ops::Range,
    sync::{Arc, Mutex, PoisonError},
};

use super::adapter::{Adapter, Delta};
use crate::engine::{
    backend::cpu::quantized::QuantizedMatrix,
    format::Format,
    weights::{self, NumberType, TensorInfo, Weights, WeightsError},
};

/// Tensors that an adapter changes come as singles; the others as they are stored.
pub(super) struct Merged {
    inner: Arc<dyn Weights>,
    adapter: Adapter,
    changed: Vec<String>,
    /// What is added to the tensor that was read last: tensors are read one after the other, in pieces.
    last: Mutex<Option<(String, Arc<Delta>)>>,
}

impl Merged {
    pub(super) fn new(inner: Arc<dyn Weights>, adapter: Adapter) -> Self {
        let changed = adapter.weights().map(str::to_owned).collect();
        Self { inner, adapter, changed, last: Mutex::new(None) }
    }

    fn is_changed(&self, name: &str) -> bool {
        self.changed.binary_search_by(|changed| changed.as_str().cmp(name)).is_ok()
    }

    fn delta(&self, name: &str) -> Result<Option<Arc<Delta>>, WeightsError> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((of, delta)) = last.as_ref()
            && of == name
        {
            return Ok(Some(Arc::clone(delta)));
        }
        let delta = self.adapter.delta(name).map_err(|error| WeightsError::Content(error.to_string()))?.map(Arc::new);
        if let Some(delta) = &delta {
            *last = Some((name.to_owned(), Arc::clone(delta)));
        }
        Ok(delta)
    }
}

impl Weights for Merged {
    fn info(&self, name: &str) -> Option<TensorInfo> {
        let info = self.inner.info(name)?;
        let format = if self.is_changed(name) { Format::Dense(NumberType::F32) } else { info.format };
        Some(TensorInfo { format, ..info })
    }

    fn read(&self, name: &str, rows: Range<usize>, bytes: &mut [u8]) -> Result<(), WeightsError> {
        let (Some(delta), Some(stored)) = (self.delta(name)?, self.inner.info(name)) else {
            return self.inner.read(name, rows, bytes);
        };
        let mut numbers = vec![0.0; rows.len() * stored.n_columns];
        weights::read_f32(self.inner.as_ref(), (name, stored), rows.clone(), &mut Vec::new(), &mut numbers)?;
        delta.add_to_rows(rows, &mut numbers);
        NumberType::F32.narrow(&numbers, bytes);
        Ok(())
    }

    fn packed(&self, name: &str) -> Result<Option<QuantizedMatrix>, WeightsError> {
        if self.is_changed(name) { Ok(None) } else { self.inner.packed(name) }
    }

    fn content(&self, name: &str) -> String {
        self.inner.content(name)
    }
}
