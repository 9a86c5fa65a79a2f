//! The functions and classes that a dictionary of tensors names.
//!
//! Names only: none of them is called. **Architecture Invariant:** what is not in the table does not exist.

use crate::engine::checkpoint::stored_type::StoredType;

/// Something that a pickle may name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Global {
    OrderedDict,
    RebuildTensor,
    RebuildParameter,
    Storage(Number),
}

/// The number type of a storage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Number {
    F64,
    F32,
    F16,
    BF16,
    I64,
    I32,
    I16,
    I8,
    U8,
    Bool,
}

impl Global {
    pub(super) fn find(module: &str, name: &str) -> Option<Self> {
        Some(match (module, name) {
            ("collections", "OrderedDict") => Self::OrderedDict,
            ("torch._utils", "_rebuild_tensor_v2") => Self::RebuildTensor,
            ("torch._utils", "_rebuild_parameter") => Self::RebuildParameter,
            ("torch", "DoubleStorage") => Self::Storage(Number::F64),
            ("torch", "FloatStorage") => Self::Storage(Number::F32),
            ("torch", "HalfStorage") => Self::Storage(Number::F16),
            ("torch", "BFloat16Storage") => Self::Storage(Number::BF16),
            ("torch", "LongStorage") => Self::Storage(Number::I64),
            ("torch", "IntStorage") => Self::Storage(Number::I32),
            ("torch", "ShortStorage") => Self::Storage(Number::I16),
            ("torch", "CharStorage") => Self::Storage(Number::I8),
            ("torch", "ByteStorage") => Self::Storage(Number::U8),
            ("torch", "BoolStorage") => Self::Storage(Number::Bool),
            _ => return None,
        })
    }
}

impl Number {
    pub(super) fn item_bytes(self) -> u64 {
        match self {
            Self::F64 | Self::I64 => 8,
            Self::F32 | Self::I32 => 4,
            Self::F16 | Self::BF16 | Self::I16 => 2,
            Self::I8 | Self::U8 | Self::Bool => 1,
        }
    }

    pub(super) fn stored_type(self) -> StoredType {
        match self {
            Self::F32 => StoredType::F32,
            Self::F16 => StoredType::F16,
            Self::BF16 => StoredType::BF16,
            Self::I32 => StoredType::I32,
            Self::F64 | Self::I64 | Self::I16 | Self::I8 | Self::U8 | Self::Bool => {
                StoredType::Other(format!("{self:?}").to_uppercase())
            }
        }
    }
}
