//! Tensors in files, read where they lie when somebody asks for them.
//!
//! Read and not mapped, because pages of a mapped file count as the program's own memory; except for packed tensors, which
//! are used as they lie, so that these pages are all the memory they take.

#![expect(unsafe_code, reason = "a mapped file is memory that somebody else could change")]

use std::{
    collections::HashMap,
    fs, io,
    ops::Range,
    os::unix::fs::FileExt,
    sync::{Arc, Mutex, PoisonError},
};

use memmap2::Mmap;

use super::{
    error::CheckpointError,
    file_header::Header,
    gptq::{PartBytes, Quantized},
    layout::{EMBEDDINGS, LM_HEAD},
    place::{Place, Span},
};
use crate::engine::{
    backend::cpu::quantized::{PackedBytes, QuantizedError, QuantizedMatrix, layout::TILE_ROWS, pack, packed_bytes},
    format::Format,
    regular_file,
    weights::{NumberType, TensorInfo, Weights, WeightsError},
};

/// All files of a checkpoint, and where in them each tensor is.
#[derive(Debug)]
pub(super) struct StoredTensors {
    files: Vec<OpenFile>,
    places: HashMap<String, Place>,
    is_tied: bool,
    /// Rows of a GPTQ projection are columns of its file, so the one that is being read is kept as it is stored.
    last: Mutex<Option<(String, Arc<Quantized>)>>,
}

#[derive(Debug)]
struct OpenFile {
    name: String,
    file: fs::File,
    /// Where it holds packed tensors.
    map: Option<Arc<Mmap>>,
}

impl StoredTensors {
    /// Opens the files that `headers` are of; `places` were checked against them.
    pub(super) fn open(
        headers: &[Header],
        places: HashMap<String, Place>,
        is_tied: bool,
    ) -> Result<Self, CheckpointError> {
        let mut files = Vec::with_capacity(headers.len());
        for (file_idx, header) in headers.iter().enumerate() {
            let unreadable = |source| CheckpointError::Unreadable { path: header.path.clone(), source };
            let (file, _) = regular_file::open(&header.path).map_err(unreadable)?;
            let is_packed = |place: &Place| matches!(place, Place::Packed { span, .. } if span.file_idx == file_idx);
            let map = if places.values().any(is_packed) {
                // SAFETY: nobody changes a copy that was made: it gets its name when it is whole, and is replaced, never
                // written to, as the documentation of `Checkpoint` asks of all its files.
                Some(Arc::new(unsafe { Mmap::map(&file) }.map_err(unreadable)?))
            } else {
                None
            };
            files.push(OpenFile { name: header.file.clone(), file, map });
        }
        Ok(Self { files, places, is_tied, last: Mutex::new(None) })
    }

    fn place(&self, name: &str) -> Option<&Place> {
        self.places.get(self.storage_name(name))
    }

    fn storage_name<'n>(&self, name: &'n str) -> &'n str {
        if self.is_tied && name == LM_HEAD { EMBEDDINGS } else { name }
    }

    fn read_at(&self, file_idx: usize, begin: u64, bytes: &mut [u8]) -> Result<(), WeightsError> {
        let OpenFile { name, file, .. } = &self.files[file_idx];
        file.read_exact_at(bytes, begin).map_err(|source| WeightsError::Unreadable {
            file: name.clone(),
            source: match source.kind() {
                io::ErrorKind::UnexpectedEof => io::Error::new(source.kind(), "it has become shorter"),
                _ => source,
            },
        })
    }

    fn read_span(&self, span: Span) -> Result<Vec<u8>, WeightsError> {
        let mut bytes = vec![0; span.n_bytes() as usize];
        self.read_at(span.file_idx, span.begin, &mut bytes)?;
        Ok(bytes)
    }

    /// The GPTQ projection at `place`, as it is stored.
    fn quantized(&self, name: &str, place: &Place) -> Result<Arc<Quantized>, WeightsError> {
        let Place::Gptq { qweight, qzeros, scales, g_idx, sizes, .. } = place else { return Err(missing(name)) };
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((of, quantized)) = last.as_ref()
            && of == name
        {
            return Ok(Arc::clone(quantized));
        }
        *last = None;
        let bytes = PartBytes {
            qweight: self.read_span(*qweight)?,
            qzeros: self.read_span(*qzeros)?,
            scales: self.read_span(*scales)?,
            g_idx: g_idx.map(|g_idx| self.read_span(g_idx)).transpose()?,
        };
        let quantized =
            Quantized::new(name, *sizes, bytes).map_err(|error| WeightsError::Content(error.to_string()))?;
        let quantized = Arc::new(quantized);
        *last = Some((name.to_owned(), Arc::clone(&quantized)));
        Ok(quantized)
    }

    fn mapped(&self, span: Span) -> Option<PackedBytes> {
        let map = self.files.get(span.file_idx)?.map.clone()?;
        PackedBytes::shared(map, span.begin as usize..span.end as usize)
    }
}

impl Weights for StoredTensors {
    fn info(&self, name: &str) -> Option<TensorInfo> {
        let place = self.place(name)?;
        Some(match *place {
            Place::Rows { info, .. } => info,
            Place::Gptq { sizes, promised, .. } => {
                let (n_rows, n_columns) = sizes.shape();
                // Whatever keeps it from being read will show again when rows are read.
                let format = self.quantized(name, place).map_or(promised, |quantized| quantized.format());
                let natural = if let Format::Dense(_) = format { Format::Dense(NumberType::F16) } else { format };
                TensorInfo { format, natural, n_rows, n_columns }
            }
            Place::Packed { format, n_rows, n_columns, .. } => {
                let natural = Format::Blocks(format);
                TensorInfo { format: Format::Dense(NumberType::F32), natural, n_rows, n_columns }
            }
        })
    }

    fn read(&self, name: &str, rows: Range<usize>, bytes: &mut [u8]) -> Result<(), WeightsError> {
        let place = self.place(name).filter(|place| rows.end <= place.n_rows()).ok_or_else(|| missing(name))?;
        match place {
            Place::Rows { span, info, order } => {
                debug_assert_eq!(bytes.len(), info.row_bytes(rows.len()), "{name}");
                let Some(order) = order else {
                    let begin = span.begin + info.row_bytes(rows.start) as u64;
                    return self.read_at(span.file_idx, begin, bytes);
                };
                let row_bytes = info.row_bytes(1);
                rows.zip(bytes.chunks_exact_mut(row_bytes)).try_for_each(|(row, bytes)| {
                    let begin = span.begin + info.row_bytes(order.stored_row(row)) as u64;
                    self.read_at(span.file_idx, begin, bytes)
                })
            }
            Place::Gptq { .. } => {
                self.quantized(name, place)?.read(rows, bytes);
                Ok(())
            }
            Place::Packed { span, format, n_columns, .. } => {
                let unpacked = |error: QuantizedError| WeightsError::Content(format!("{name}: {error}"));
                let tile_bytes = packed_bytes(*format, TILE_ROWS, *n_columns).map_err(unpacked)?;
                let tiles = rows.start / TILE_ROWS..rows.end.div_ceil(TILE_ROWS);
                let mut packed = vec![0; tiles.len() * tile_bytes];
                self.read_at(span.file_idx, span.begin + (tiles.start * tile_bytes) as u64, &mut packed)?;
                let mut numbers = vec![0.0; tiles.len() * TILE_ROWS * n_columns];
                pack::dequantize(*format, *n_columns, &packed, &mut numbers).map_err(unpacked)?;
                let first = (rows.start - tiles.start * TILE_ROWS) * n_columns;
                NumberType::F32.narrow(&numbers[first..first + rows.len() * n_columns], bytes);
                Ok(())
            }
        }
    }

    fn packed(&self, name: &str) -> Result<Option<QuantizedMatrix>, WeightsError> {
        let Some(&Place::Packed { span, format, n_rows, n_columns }) = self.place(name) else { return Ok(None) };
        let Some(bytes) = self.mapped(span) else { return Ok(None) };
        QuantizedMatrix::new(format, n_rows, n_columns, bytes)
            .map(Some)
            .map_err(|error| WeightsError::Content(format!("{name}: {error}")))
    }

    fn content(&self, name: &str) -> String {
        self.storage_name(name).to_owned()
    }
}

fn missing(name: &str) -> WeightsError {
    WeightsError::Missing { name: name.to_owned(), n_rows: 0, n_columns: 0 }
}
