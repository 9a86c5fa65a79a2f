//! A folder with the smallest checkpoint there is, of which one file is the input's.
//!
//! Invariant: whatever the input's file says, the others are right.

use std::{
    fs,
    path::{Path, PathBuf},
};

use xverse_chat::engine::{
    checkpoint::{Checkpoint, error::CheckpointError},
    config::ModelConfig,
    weights,
};

const WIDTH: usize = 2;
const VOCABULARY: usize = 3;

/// Its names and shapes, in the order of their bytes.
pub const TENSORS: [(&str, &[usize]); 12] = [
    ("model.embed_tokens.weight", &[VOCABULARY, WIDTH]),
    ("model.layers.0.input_layernorm.weight", &[WIDTH]),
    ("model.layers.0.self_attn.q_proj.weight", &[WIDTH, WIDTH]),
    ("model.layers.0.self_attn.k_proj.weight", &[WIDTH, WIDTH]),
    ("model.layers.0.self_attn.v_proj.weight", &[WIDTH, WIDTH]),
    ("model.layers.0.self_attn.o_proj.weight", &[WIDTH, WIDTH]),
    ("model.layers.0.post_attention_layernorm.weight", &[WIDTH]),
    ("model.layers.0.mlp.gate_proj.weight", &[WIDTH, WIDTH]),
    ("model.layers.0.mlp.up_proj.weight", &[WIDTH, WIDTH]),
    ("model.layers.0.mlp.down_proj.weight", &[WIDTH, WIDTH]),
    ("model.norm.weight", &[WIDTH]),
    ("lm_head.weight", &[VOCABULARY, WIDTH]),
];

/// The folder, alone in another.
pub struct Folder {
    outer: tempfile::TempDir,
    path: PathBuf,
    config: ModelConfig,
}

impl Folder {
    /// An empty one.
    ///
    /// # Panics
    /// Where none can be made.
    #[must_use]
    pub fn new() -> Self {
        let config = ModelConfig {
            hidden_size: WIDTH,
            intermediate_size: WIDTH,
            num_hidden_layers: 1,
            num_attention_heads: 1,
            num_key_value_heads: 1,
            head_dim: WIDTH,
            vocab_size: VOCABULARY,
            max_position_embeddings: 16,
            max_tokenizer_truncation: None,
            rms_norm_eps: 1e-6,
            rope_theta: 10_000.0,
            pad_token_id: 1,
            bos_token_id: 2,
            eos_token_id: 2,
            other_end_ids: Vec::new(),
            tie_word_embeddings: false,
        };
        let outer = tempfile::tempdir().expect("a folder can be made");
        let path = outer.path().join("checkpoint");
        fs::create_dir(&path).expect("a folder can be made");
        Self { outer, path, config }
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes a file outside of it.
    ///
    /// # Panics
    /// Where the disk is full.
    pub fn write_beside(&self, name: &str, content: &[u8]) {
        fs::write(self.outer.path().join(name), content).expect("a file can be written");
    }

    /// Writes a file of it.
    ///
    /// # Panics
    /// Where the disk is full.
    pub fn write(&self, name: &str, content: &[u8]) -> PathBuf {
        let path = self.path.join(name);
        fs::write(&path, content).expect("a file can be written");
        path
    }

    /// Opens what is in it.
    ///
    /// # Errors
    /// As the checkpoint says.
    pub fn open(&self) -> Result<Checkpoint, CheckpointError> {
        Checkpoint::open(&self.path, &self.config)
    }
}

/// Reads every tensor that the model needs.
///
/// # Panics
/// Where one is not there or has another shape.
pub fn can_be_read(checkpoint: Checkpoint) {
    let weights = checkpoint.into_weights();
    for (name, shape) in TENSORS {
        let (n_rows, n_columns) = if let [n_rows, n_columns] = *shape { (n_rows, n_columns) } else { (1, shape[0]) };
        let numbers = weights::tensor_f32(weights.as_ref(), name, n_rows, n_columns);
        assert_eq!(numbers.expect("an opened checkpoint has every tensor").len(), n_rows * n_columns, "{name}");
    }
}

/// A file with these tensors, all zero.
#[must_use]
pub fn file_of(tensors: &[(&str, &[usize])]) -> Vec<u8> {
    let mut header = serde_json::Map::new();
    let mut end = 0;
    for (name, shape) in tensors {
        let begin = end;
        end += 4 * shape.iter().product::<usize>();
        let entry = serde_json::json!({ "dtype": "F32", "shape": shape, "data_offsets": [begin, end] });
        header.insert((*name).to_owned(), entry);
    }
    let header = serde_json::Value::Object(header).to_string();
    file_with(header.as_bytes(), end)
}

/// A file with this header and so many zeros behind it.
#[must_use]
pub fn file_with(header: &[u8], n_zeros: usize) -> Vec<u8> {
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend(header);
    file.resize(file.len() + n_zeros, 0);
    file
}
