//! Where a tensor of a checkpoint is, and how it is written there.
//!
//! Made when headers are checked, used when tensors are read. It knows no files.

use std::collections::HashMap;

use super::{
    error::CheckpointError,
    file_header::{Header, StoredTensor},
    gguf::permutation::HeadPermutation,
    gptq::{self, Sizes, config::GptqConfig, error::GptqError},
    stored_type::StoredType,
};
use crate::engine::{
    backend::cpu::quantized::{layout::LAYOUT_VERSION, packed_bytes},
    block_format::BlockFormat,
    format::Format,
    weights::{NumberType, TensorInfo},
};

/// The entry of a file's own description that says in which version of the layout its packed tensors are.
pub(super) const LAYOUT_KEY: &str = "xverse_chat_layout";

/// Bytes of one of the checkpoint's files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Span {
    /// Its number among the files.
    pub(super) file_idx: usize,
    pub(super) begin: u64,
    pub(super) end: u64,
}

/// Where a tensor is.
#[derive(Debug)]
pub(super) enum Place {
    /// Row by row.
    Rows {
        span: Span,
        info: TensorInfo,
        /// Where rows are stored in another order.
        order: Option<HeadPermutation>,
    },
    /// As GPTQ writes a projection.
    Gptq {
        qweight: Span,
        qzeros: Span,
        scales: Span,
        g_idx: Option<Span>,
        sizes: Sizes,
        /// What the configuration says of it.
        promised: Format,
    },
    /// As the CPU backend computes with it.
    Packed { span: Span, format: BlockFormat, n_rows: usize, n_columns: usize },
}

/// All tensors of all files, by name; those that were taken are gone.
pub(super) struct Found<'h> {
    pub(super) tensors: HashMap<&'h str, (usize, &'h Header, &'h StoredTensor)>,
    pub(super) gptq: Option<GptqConfig>,
    /// Whether rows of queries and keys are as llama.cpp orders them.
    pub(super) is_permuted: bool,
}

impl Span {
    pub(super) fn n_bytes(self) -> u64 {
        self.end - self.begin
    }
}

impl Place {
    /// What the tensor is to be held in where nothing else was asked for.
    pub(super) fn natural(&self) -> Format {
        match *self {
            Self::Rows { info, .. } => info.natural,
            Self::Gptq { promised, .. } => promised,
            Self::Packed { format, .. } => Format::Blocks(format),
        }
    }

    /// Of the whole tensor.
    pub(super) fn n_rows(&self) -> usize {
        match self {
            Self::Rows { info, .. } => info.n_rows,
            Self::Gptq { sizes, .. } => sizes.shape().0,
            Self::Packed { n_rows, .. } => *n_rows,
        }
    }

    /// Bytes in the files.
    pub(super) fn n_bytes(&self) -> u64 {
        match self {
            Self::Rows { span, .. } | Self::Packed { span, .. } => span.n_bytes(),
            Self::Gptq { qweight, qzeros, scales, g_idx, .. } => {
                [Some(*qweight), Some(*qzeros), Some(*scales), *g_idx].into_iter().flatten().map(Span::n_bytes).sum()
            }
        }
    }
}

impl Found<'_> {
    /// Takes what the tensor `name` of this shape is stored as; `None` where there is nothing.
    pub(super) fn take(
        &mut self,
        name: &str,
        shape: &[usize],
        order: Option<HeadPermutation>,
    ) -> Option<Result<Place, CheckpointError>> {
        if let Some((file_idx, header, tensor)) = self.tensors.remove(name) {
            return Some(rows(file_idx, header, tensor, shape).map(|mut place| {
                if let Place::Rows { order: of_place, .. } = &mut place {
                    *of_place = order.filter(|_| self.is_permuted);
                }
                place
            }));
        }
        let &[n_rows, n_columns] = shape else { return None };
        if let Some(config) = &self.gptq
            && let Some(stem) = name.strip_suffix("weight")
            && self.tensors.contains_key(format!("{stem}qweight").as_str())
        {
            let mut part = |part: &str| self.tensors.remove(format!("{stem}{part}").as_str());
            let parts = [part("qweight"), part("qzeros"), part("scales"), part("g_idx")];
            return Some(quantized(config, name, parts, (n_rows, n_columns)));
        }
        BlockFormat::ALL.into_iter().find_map(|format| {
            let (file_idx, header, tensor) = self.tensors.remove(packed_name(name, format).as_str())?;
            Some(packed(file_idx, header, tensor, (format, n_rows, n_columns)))
        })
    }
}

/// What a tensor is called in a file where it is packed.
pub(super) fn packed_name(name: &str, format: BlockFormat) -> String {
    format!("{name}.{}", format.name())
}

fn span(file_idx: usize, tensor: &StoredTensor) -> Span {
    Span { file_idx, begin: tensor.begin, end: tensor.end }
}

fn rows(file_idx: usize, header: &Header, tensor: &StoredTensor, shape: &[usize]) -> Result<Place, CheckpointError> {
    check_shape(header, tensor, shape)?;
    let format = match &tensor.dtype {
        StoredType::F32 => Format::Dense(NumberType::F32),
        StoredType::F16 => Format::Dense(NumberType::F16),
        StoredType::BF16 => Format::Dense(NumberType::Bf16),
        StoredType::Block(blocks) => Format::Blocks(*blocks),
        found @ (StoredType::I32 | StoredType::U8 | StoredType::Other(_)) => {
            return Err(CheckpointError::NumberType {
                file: header.file.clone(),
                tensor: tensor.name.clone(),
                found: found.clone(),
            });
        }
    };
    Ok(Place::Rows { span: span(file_idx, tensor), info: TensorInfo::new(format, shape), order: None })
}

fn check_shape(header: &Header, tensor: &StoredTensor, expected: &[usize]) -> Result<(), CheckpointError> {
    if tensor.shape == expected {
        return Ok(());
    }
    Err(CheckpointError::Shape {
        file: header.file.clone(),
        tensor: tensor.name.clone(),
        found: tensor.shape.clone(),
        expected: expected.to_vec(),
    })
}

fn quantized(
    config: &GptqConfig,
    name: &str,
    parts: [Option<(usize, &Header, &StoredTensor)>; 4],
    shape: (usize, usize),
) -> Result<Place, CheckpointError> {
    let [qweight, qzeros, scales, g_idx] = parts;
    let there = |part: Option<(usize, &Header, &'_ StoredTensor)>, what: &'static str| {
        part.map(|(file_idx, _, tensor)| (file_idx, tensor.clone()))
            .ok_or_else(|| GptqError::Part { name: name.to_owned(), part: what })
    };
    let (qweight, qzeros, scales) = (there(qweight, "qweight")?, there(qzeros, "qzeros")?, there(scales, "scales")?);
    let tensors = gptq::Parts {
        qweight: &qweight.1,
        qzeros: &qzeros.1,
        scales: &scales.1,
        g_idx: g_idx.map(|(_, _, g_idx)| g_idx),
    };
    let sizes = gptq::check(config, name, &tensors, shape)?;
    Ok(Place::Gptq {
        qweight: span(qweight.0, &qweight.1),
        qzeros: span(qzeros.0, &qzeros.1),
        scales: span(scales.0, &scales.1),
        g_idx: g_idx.map(|(file_idx, _, tensor)| span(file_idx, tensor)),
        sizes,
        promised: sizes.promised(config),
    })
}

fn packed(
    file_idx: usize,
    header: &Header,
    tensor: &StoredTensor,
    (format, n_rows, n_columns): (BlockFormat, usize, usize),
) -> Result<Place, CheckpointError> {
    let found = header.metadata.get(LAYOUT_KEY).cloned();
    if found != Some(LAYOUT_VERSION.to_string()) {
        return Err(CheckpointError::Layout {
            file: header.file.clone(),
            found: found.unwrap_or_else(|| "none".to_owned()),
            expected: LAYOUT_VERSION,
        });
    }
    let expected = packed_bytes(format, n_rows, n_columns).unwrap_or_default();
    check_shape(header, tensor, &[expected])?;
    if tensor.dtype != StoredType::U8 {
        let (file, tensor, found) = (header.file.clone(), tensor.name.clone(), tensor.dtype.clone());
        return Err(CheckpointError::NumberType { file, tensor, found });
    }
    Ok(Place::Packed { span: span(file_idx, tensor), format, n_rows, n_columns })
}
