//! The list of tensors: names, shapes, types and places.
//!
//! **Architecture Invariant:** a list whose tensors overlap, lie outside the file or are not known is an error.

use std::{collections::HashSet, ops::Range};

use super::{
    error::GgufError,
    metadata::Draft,
    names::{self, Meaning},
    reader::Reader,
};
use crate::engine::block_format::BlockFormat;
use crate::engine::checkpoint::{
    file_header::{StoredTensor, overlapping},
    stored_type::StoredType,
};

const MAX_TENSORS: u64 = 1 << 16;
const MAX_NAME_BYTES: u64 = 256;
const MAX_AXES: u32 = 4;

/// A tensor as the list describes it.
pub(super) struct Claim {
    name: String,
    /// As stored: the shortest step first.
    sizes: Vec<u64>,
    number: u32,
    /// From the beginning of the data.
    offset: u64,
}

pub(super) fn check_count(file: &str, n_tensors: u64) -> Result<(), GgufError> {
    if n_tensors > MAX_TENSORS {
        let what = "the number of tensors";
        return Err(GgufError::TooLarge { file: file.to_owned(), what, found: n_tensors, limit: MAX_TENSORS });
    }
    Ok(())
}

/// Reads the list.
pub(super) fn read(reader: &mut Reader<'_>, n_tensors: u64) -> Result<Vec<Claim>, GgufError> {
    let mut claims = Vec::new();
    for _ in 0..n_tensors {
        let name = reader.text("a tensor's name", MAX_NAME_BYTES)?;
        let n_axes = reader.u32()?;
        if !(1..=MAX_AXES).contains(&n_axes) {
            return Err(GgufError::Shape { file: reader.file(), tensor: name, shape: Vec::new() });
        }
        let sizes = (0..n_axes).map(|_| reader.u64()).collect::<Result<_, _>>()?;
        let number = reader.u32()?;
        let offset = reader.u64()?;
        claims.push(Claim { name, sizes, number, offset });
    }
    Ok(claims)
}

/// Finds the tensors' bytes in `data`, which ends with the file, and gives them the names that the model has.
pub(super) fn place(
    file: &str,
    claims: Vec<Claim>,
    draft: &Draft,
    data: Range<u64>,
) -> Result<Vec<StoredTensor>, GgufError> {
    let mut names = HashSet::new();
    let mut tensors = Vec::with_capacity(claims.len());
    let mut redundant = HashSet::new();
    for claim in claims {
        let name = match names::meaning(&claim.name) {
            Meaning::Weight(name, layer_idx) if layer_idx.is_none_or(|layer_idx| draft.has_layer(layer_idx)) => name,
            Meaning::Redundant => {
                redundant.insert(claim.name.clone());
                claim.name.clone()
            }
            Meaning::Weight(..) | Meaning::Unknown => {
                return Err(GgufError::UnknownTensor { file: file.to_owned(), tensor: claim.name });
            }
        };
        if !names.insert(name.clone()) {
            return Err(GgufError::Duplicate { file: file.to_owned(), tensor: name });
        }
        tensors.push(place_one(file, name, &claim, (draft.alignment, &data))?);
    }
    tensors.sort_by_key(|tensor| (tensor.begin, tensor.end));
    let same_place = tensors.iter().zip(tensors.iter().skip(1)).find(|(a, b)| a.begin < a.end && a.begin == b.begin);
    if let Some((first, second)) = overlapping(&tensors).or(same_place) {
        let (first, second) = (first.name.clone(), second.name.clone());
        return Err(GgufError::Overlap { file: file.to_owned(), first, second });
    }
    tensors.retain(|tensor| !redundant.contains(&tensor.name));
    Ok(tensors)
}

fn place_one(
    file: &str,
    name: String,
    claim: &Claim,
    (alignment, data): (u64, &Range<u64>),
) -> Result<StoredTensor, GgufError> {
    let file = || file.to_owned();
    let Some(dtype) = stored_type(claim.number) else {
        return Err(GgufError::NumberType { file: file(), tensor: name, found: claim.number });
    };
    let shape = claim.sizes.iter().rev().map(|&size| usize::try_from(size)).collect::<Result<Vec<_>, _>>();
    let sized = shape.ok().and_then(|shape| Some((dtype.tensor_bytes(&shape)?, shape)));
    let Some((n_bytes, shape)) = sized.filter(|(_, shape)| !shape.contains(&0)) else {
        let shape = claim.sizes.iter().rev().copied().collect();
        return Err(GgufError::Shape { file: file(), tensor: name, shape });
    };
    if !claim.offset.is_multiple_of(alignment) {
        return Err(GgufError::Unaligned { file: file(), tensor: name, found: claim.offset, alignment });
    }
    let begin = data.start.checked_add(claim.offset);
    match begin.and_then(|begin| Some((begin, begin.checked_add(n_bytes)?))) {
        Some((begin, end)) if end <= data.end => Ok(StoredTensor { name, dtype, shape, begin, end }),
        place => {
            let expected = place.map_or(u64::MAX, |(_, end)| end);
            Err(GgufError::Outside { file: file(), tensor: name, found: data.end, expected })
        }
    }
}

/// The type that ggml gives this number.
fn stored_type(number: u32) -> Option<StoredType> {
    Some(match number {
        0 => StoredType::F32,
        1 => StoredType::F16,
        2 => StoredType::Block(BlockFormat::Q4_0),
        3 => StoredType::Block(BlockFormat::Q4_1),
        6 => StoredType::Block(BlockFormat::Q5_0),
        7 => StoredType::Block(BlockFormat::Q5_1),
        8 => StoredType::Block(BlockFormat::Q8_0),
        10 => StoredType::Block(BlockFormat::Q2K),
        11 => StoredType::Block(BlockFormat::Q3K),
        12 => StoredType::Block(BlockFormat::Q4K),
        13 => StoredType::Block(BlockFormat::Q5K),
        14 => StoredType::Block(BlockFormat::Q6K),
        30 => StoredType::BF16,
        _ => return None,
    })
}
