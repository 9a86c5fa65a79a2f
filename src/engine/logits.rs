//! The logits of given token ids, for comparing with other programs and one way of computing with another.

use std::{
    io::{self, Write},
    path::PathBuf,
};

use super::{
    backend::{BackendError, cuda::CudaSettings},
    checkpoint::Checkpoint,
    load::{self, DeviceChoice, LoadError},
    precision::Precision,
    reading::{self, Reader},
    room::KvSize,
    sampling::SamplingError,
    target::Target,
};

/// What to compute and how.
#[derive(Debug, Clone)]
pub struct LogitsOptions {
    /// A checkpoint.
    pub model_path: PathBuf,
    /// Which backend.
    pub device: DeviceChoice,
    /// In which formats weights are held.
    pub precision: Precision,
    /// Tokens of a sequence that are computed in a step.
    pub chunk: usize,
    /// Whether all sequences take part in each step, or one after the other.
    pub together: bool,
    /// What a card may use.
    pub cuda: CudaSettings,
    /// Threads that compute.
    pub threads: usize,
}

/// Why there are none.
#[derive(Debug, thiserror::Error)]
pub enum LogitsError {
    /// The model was refused.
    #[error(transparent)]
    Load(#[from] LoadError),
    /// The device failed.
    #[error(transparent)]
    Backend(#[from] BackendError),
    /// The model gave no numbers.
    #[error(transparent)]
    Sampling(#[from] SamplingError),
    /// They could not be written.
    #[error("the logits cannot be written: {0}")]
    Write(#[from] io::Error),
    /// An id is none of the model's, or there is nothing to compute.
    #[error("sequence {sequence} is empty or has an id outside the vocabulary of {vocab_size}")]
    Ids {
        /// Which sequence, from 0.
        sequence: usize,
        /// How many ids there are.
        vocab_size: usize,
    },
}

/// Writes the logits of each position of each sequence, f32, little endian, shape (position, vocabulary), one sequence after the
/// other.
///
/// # Errors
/// [`LogitsError`].
pub fn write(options: &LogitsOptions, ids: &[Vec<u32>], to: &mut dyn Write) -> Result<(), LogitsError> {
    let target = Target::choose(options.device, options.cuda)?;
    let holding = target.holding(options.precision, None)?;
    let (_, config) = load::read_config(&options.model_path)?;
    let vocab_size = config.vocab_size;
    for (sequence, ids) in ids.iter().enumerate() {
        if ids.is_empty() || ids.iter().any(|id| *id as usize >= vocab_size) {
            return Err(LogitsError::Ids { sequence, vocab_size });
        }
    }
    let checkpoint = Checkpoint::open(&options.model_path, &config).map_err(LoadError::from)?;
    let natural = |name: &str| target.natural(checkpoint.natural(name));
    let sequences: Vec<&[u32]> = ids.iter().map(Vec::as_slice).collect();
    let at_once = if options.together { sequences.len().max(1) } else { 1 };
    let n_tokens = sequences.chunks(at_once).map(reading::n_positions).max().unwrap_or(0);
    let n_blocks = target.n_blocks(&config, holding, natural, (KvSize::Tokens(n_tokens), None))?;
    let made = target.make(&config, checkpoint.into_weights(), holding, (n_blocks, options.threads));
    let backend = made.map_err(|error| match error {
        error if error.is_of_the_device() => LogitsError::Backend(error),
        error => LogitsError::Load(error.into()),
    })?;
    let mut reader = Reader::new(backend, options.chunk);
    for some in sequences.chunks(at_once) {
        // The first one's turn is now, that of those beside it when it has been written.
        let mut later = vec![Vec::new(); some.len()];
        reader.read(some, |piece| {
            match later.get_mut(piece.sequence) {
                Some(later) if piece.sequence > 0 => later.extend(piece.logits),
                _ => to.write_all(bytemuck::cast_slice(&piece.logits))?,
            }
            Ok::<_, LogitsError>(())
        })?;
        for logits in later {
            to.write_all(bytemuck::cast_slice(&logits))?;
        }
    }
    Ok(to.flush()?)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn the_ways_of_computing_give_the_same_on_the_cpu() {
        let options = |chunk, together| LogitsOptions {
            model_path: Path::new(env!("CARGO_MANIFEST_DIR")).join("models/xverse-mini"),
            device: DeviceChoice::Cpu,
            precision: Precision::default(),
            chunk,
            together,
            cuda: CudaSettings::default(),
            threads: 1,
        };
        let ids = [vec![5, 6, 7, 8, 9], (10..40).collect(), vec![4]];
        let of = |chunk, together| {
            let mut bytes = Vec::new();
            write(&options(chunk, together), &ids, &mut bytes).unwrap();
            bytes
        };
        let expected = of(100, false);
        assert_eq!(expected.len(), 36 * 2048 * 4);
        for (chunk, together) in [(1, false), (7, false), (100, true), (1, true)] {
            assert_eq!(of(chunk, together), expected, "{chunk} {together}");
        }
        let error = write(&options(1, true), &[vec![5], vec![2048]], &mut Vec::new()).unwrap_err();
        assert!(matches!(error, LogitsError::Ids { sequence: 1, vocab_size: 2048 }));
    }
}
