//! Why an adapter was refused.
//!
//! It owns the words only.

use std::{io, path::PathBuf};

use crate::engine::{checkpoint::stored_type::StoredType, regular_file};

/// Why an adapter was refused.
#[derive(Debug, thiserror::Error)]
pub enum AdapterError {
    /// A file cannot be opened or read.
    #[error("{} cannot be read: {source}\nhint: {}", .path.display(), regular_file::hint(.source))]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The folder has no configuration.
    #[error("there is no adapter_config.json in {}\nhint: --adapter_path takes the folder that PEFT's save_pretrained wrote", .dir.display())]
    NoConfig {
        /// The folder.
        dir: PathBuf,
    },
    /// The configuration is too large.
    #[error(
        "adapter_config.json has {found} bytes, at most {limit} are expected\nhint: the file is damaged; save the adapter again"
    )]
    TooLarge {
        /// Its size.
        found: u64,
        /// The bound.
        limit: u64,
    },
    /// The configuration is not JSON, or has a field of another kind.
    #[error("adapter_config.json cannot be understood: {source}\nhint: the file is damaged, or not of a LoRA adapter")]
    Broken {
        /// What the parser says.
        source: serde_json::Error,
    },
    /// A setting that is not computed.
    #[error(
        "adapter_config.json: {field} is {found}, expected {expected}\nhint: merge the adapter with PEFT's merge_and_unload() and save the whole model"
    )]
    Unsupported {
        /// The setting.
        field: String,
        /// Its value.
        found: String,
        /// What is taken.
        expected: &'static str,
    },
    /// Two patterns that say different things of a projection.
    #[error(
        "adapter_config.json: {field} has more than one value for {module}, expected one\nhint: merge the adapter with PEFT's merge_and_unload() and save the whole model"
    )]
    Ambiguous {
        /// `rank_pattern` or `alpha_pattern`.
        field: &'static str,
        /// The projection.
        module: String,
    },
    /// The folder has no tensors.
    #[error("there is neither adapter_model.safetensors nor adapter_model.bin in {}\nhint: --adapter_path takes the folder that PEFT's save_pretrained wrote", .dir.display())]
    NoWeights {
        /// The folder.
        dir: PathBuf,
    },
    /// The file has no tensor.
    #[error(
        "{file} has no tensors, expected lora_A and lora_B of some projections\nhint: the file is damaged; save the adapter again"
    )]
    Empty {
        /// The file.
        file: String,
    },
    /// A tensor that means nothing here.
    #[error(
        "the adapter has the tensor {tensor}, expected {}model.….lora_A.weight and lora_B.weight only\nhint: adapters of embeddings, with biases, magnitudes or whole modules are not supported; merge the adapter with PEFT's merge_and_unload() and save the whole model",
        super::PREFIX
    )]
    UnknownTensor {
        /// The tensor.
        tensor: String,
    },
    /// A tensor that comes twice.
    #[error("the adapter has {tensor} twice, expected once\nhint: the file is damaged; save the adapter again")]
    Duplicate {
        /// The tensor.
        tensor: String,
    },
    /// A projection that the model does not have, or that the configuration does not name.
    #[error(
        "the adapter changes {module}, which is not among the model's projections that adapter_config.json names\nhint: the adapter is for another model; it must be trained on this one"
    )]
    NotATarget {
        /// The projection.
        module: String,
    },
    /// A tensor that is not there.
    #[error(
        "the adapter has no {tensor}, expected it\nhint: the adapter is for another model, or incomplete; save it again"
    )]
    Missing {
        /// The tensor.
        tensor: String,
    },
    /// A tensor of another shape.
    #[error(
        "the adapter's {tensor} has shape {found:?}, expected {expected:?}\nhint: the adapter is for another model, or adapter_config.json is not its own"
    )]
    Shape {
        /// The tensor.
        tensor: String,
        /// Its shape.
        found: Vec<usize>,
        /// The shape that follows from the model and `adapter_config.json`.
        expected: Vec<usize>,
    },
    /// A matrix that was saved with the adapter and is not the model's.
    #[error(
        "the adapter's {tensor} has other numbers than the model, expected those it was trained on\nhint: the adapter is for another model, or this matrix was trained itself; merge the adapter with PEFT's merge_and_unload() and save the whole model"
    )]
    OtherBase {
        /// The tensor.
        tensor: String,
    },
    /// A tensor of another number type.
    #[error(
        "the adapter's {tensor} has numbers of type {found}, expected F32, F16 or BF16\nhint: save the adapter in one of these types"
    )]
    NumberType {
        /// The tensor.
        tensor: String,
        /// Its type.
        found: StoredType,
    },
    /// A tensor with infinite numbers or none.
    #[error(
        "the adapter's {tensor} has numbers that are not finite\nhint: the training went wrong, or the file is damaged"
    )]
    NotFinite {
        /// The tensor.
        tensor: String,
    },
}
