//! Weights as candle's models ask for them: whole tensors by name.

use std::sync::Arc;

use candle_core::{DType, Device, Error, Result, Shape, Tensor};
use candle_nn::{Init, var_builder::SimpleBackend};

use crate::engine::weights::{self, Weights};

/// Converts each tensor when a model asks for it.
pub(super) struct Tensors(pub(super) Arc<dyn Weights>);

impl SimpleBackend for Tensors {
    fn get(&self, shape: Shape, name: &str, _: Init, dtype: DType, device: &Device) -> Result<Tensor> {
        let (n_rows, n_columns) = match *shape.dims() {
            [n_rows, n_columns] => (n_rows, n_columns),
            _ => (1, shape.elem_count()),
        };
        let numbers = weights::tensor_f32(self.0.as_ref(), name, n_rows, n_columns).map_err(Error::wrap)?;
        Tensor::from_vec(numbers, shape, &Device::Cpu)?.to_dtype(dtype)?.to_device(device)
    }

    fn get_unchecked(&self, name: &str, dtype: DType, device: &Device) -> Result<Tensor> {
        let info = self.0.info(name).ok_or_else(|| Error::CannotFindTensor { path: name.to_owned() })?;
        let shape = if info.n_rows == 1 { Shape::from(info.n_columns) } else { (info.n_rows, info.n_columns).into() };
        self.get(shape, name, Init::Const(0.0), dtype, device)
    }

    fn contains_tensor(&self, name: &str) -> bool {
        self.0.info(name).is_some()
    }
}
