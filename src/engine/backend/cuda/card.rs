//! A CUDA card behind [`Device`].
//!
//! The driver and cuBLAS are loaded while the program runs, so one that was built for cards starts on every machine. Everything goes
//! through one stream. What the host writes passes through a ring of pinned memory, so that reading files and copying overlap.

#![expect(unsafe_code, reason = "the driver's functions take addresses")]

use std::{collections::HashMap, ffi::CString, fmt::Write as _, sync::Arc};

use cudarc::{
    cublas::{result as blas, sys as blas_sys},
    driver::{CudaContext, CudaGraph, CudaStream, DriverError, result, sys},
};

use super::{
    card_error::{CardError, DRIVER},
    device::{Address, Argument, Device, DeviceError, GraphId, LargeProduct, Launch, MOST_READ_AHEAD, Reading},
};

/// What `make cuda` compiled: the kernels for some kinds of cards in one file.
static KERNELS: &[u8] = include_bytes!(concat!(env!("CARGO_MANIFEST_DIR"), "/target/kernels/kernels.fatbin"));
/// The kinds of cards, such as `80 90`.
static ARCHITECTURES: &str = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/target/kernels/architectures"));
/// Bytes that cuBLAS computes in; what its authors recommend for Hopper.
const BLAS_BYTES: usize = 32 << 20;
/// Bytes of a piece of pinned memory, and how many there are.
const PIECE_BYTES: usize = 4 << 20;
const N_PIECES: usize = 4;
/// Readings that may be on their way, and one more whose bytes are looked at.
const N_READINGS: usize = 3;

/// Whether this program was built for cards.
pub const IS_BUILT: bool = true;

/// The card.
struct Card {
    name: String,
    context: Arc<CudaContext>,
    stream: Arc<CudaStream>,
    module: sys::CUmodule,
    functions: HashMap<&'static str, sys::CUfunction>,
    blas: Option<blas_sys::cublasHandle_t>,
    allocations: Vec<sys::CUdeviceptr>,
    ring: Vec<Piece>,
    next_piece: usize,
    readings: Vec<Piece>,
    next_reading: usize,
    graphs: Vec<CudaGraph>,
    is_recording: bool,
}

/// Pinned memory that copies to the card begin in, or such from it end in.
#[derive(Clone, Copy)]
struct Piece {
    bytes: *mut u8,
    /// When the last copy was done.
    copied: sys::CUevent,
}

// SAFETY: the handles belong to the context, which is made current before each use, and one thread at a time has the card.
unsafe impl Send for Card {}

impl From<DriverError> for CardError {
    fn from(error: DriverError) -> Self {
        Self::Driver(words_of(error))
    }
}

/// The card of this number.
///
/// # Errors
/// [`CardError`].
pub fn open(index: usize) -> Result<Box<dyn Device>, CardError> {
    // SAFETY: looking for a library runs its initialisers, which are the driver's own.
    if !unsafe { sys::is_culib_present() } {
        return Err(CardError::NoDriver);
    }
    result::init()?;
    let mut found = 0;
    // SAFETY: it writes one number.
    unsafe { sys::cuDriverGetVersion(&raw mut found) }.result()?;
    if found < DRIVER {
        return Err(CardError::OldDriver { found });
    }
    let count = usize::try_from(result::device::get_count()?).unwrap_or(0);
    if index >= count {
        return Err(CardError::NoCard { index, count });
    }
    let context = CudaContext::new(index)?;
    let name = format!("{} (cuda:{index})", context.name()?);
    let (major, minor) = context.compute_capability()?;
    // SAFETY: the kernels are a whole file that the compiler made.
    let module = unsafe { result::module::load_data(KERNELS.as_ptr().cast()) }.map_err(|error| match error.0 {
        sys::CUresult::CUDA_ERROR_NO_BINARY_FOR_GPU | sys::CUresult::CUDA_ERROR_UNSUPPORTED_PTX_VERSION => {
            CardError::Architecture { name: name.clone(), major, minor, built: architectures() }
        }
        _ => error.into(),
    })?;
    let stream = context.new_stream()?;
    let mut card = Card {
        name,
        context,
        stream,
        module,
        functions: HashMap::new(),
        blas: None,
        allocations: Vec::new(),
        ring: Vec::new(),
        next_piece: 0,
        readings: Vec::new(),
        next_reading: 0,
        graphs: Vec::new(),
        is_recording: false,
    };
    card.make_ring()?;
    card.make_blas();
    Ok(Box::new(card))
}

/// What there are kernels for, such as `8.0 and 9.0`.
fn architectures() -> String {
    let all: Vec<String> = ARCHITECTURES
        .split_whitespace()
        .map(|architecture| {
            let (major, minor) = architecture.split_at(architecture.len().saturating_sub(1));
            format!("{major}.{minor}")
        })
        .collect();
    all.join(" and ")
}

impl Piece {
    fn new(n_bytes: usize) -> Result<Self, DriverError> {
        // SAFETY: both are given back when the card is dropped, and by nobody else.
        let bytes = unsafe { result::malloc_host(n_bytes, 0) }?.cast();
        let copied = result::event::create(sys::CUevent_flags::CU_EVENT_DISABLE_TIMING)?;
        Ok(Self { bytes, copied })
    }
}

impl Card {
    fn make_ring(&mut self) -> Result<(), DriverError> {
        for _ in 0..N_PIECES {
            self.ring.push(Piece::new(PIECE_BYTES)?);
        }
        for _ in 0..N_READINGS {
            self.readings.push(Piece::new(MOST_READ_AHEAD)?);
        }
        Ok(())
    }

    /// Products of many rows are slower without it, and no less right.
    fn make_blas(&mut self) {
        // SAFETY: looking for a library runs its initialisers, which are cuBLAS's own.
        if !unsafe { blas_sys::is_culib_present() } {
            tracing::warn!(
                "cuBLAS was not found, prompts are read slowly; hint: install CUDA's libcublas, or set LD_LIBRARY_PATH to where it is"
            );
            return;
        }
        let made = blas::create_handle().map_err(|error| error.to_string()).and_then(|handle| {
            let room = self.allocate(BLAS_BYTES).map_err(|error| error.to_string())?;
            // SAFETY: the handle is new, the stream and the room live as long as the card does.
            unsafe {
                blas::set_stream(handle, self.stream.cu_stream().cast()).map_err(|error| error.to_string())?;
                blas_sys::cublasSetWorkspace_v2(handle, room.0 as *mut _, BLAS_BYTES)
                    .result()
                    .map_err(|error| error.to_string())?;
            }
            Ok(handle)
        });
        match made {
            Ok(handle) => self.blas = Some(handle),
            Err(why) => tracing::warn!(why, "cuBLAS does not start, prompts are read slowly"),
        }
    }

    fn function(&mut self, name: &'static str) -> Result<sys::CUfunction, DeviceError> {
        if let Some(function) = self.functions.get(name) {
            return Ok(*function);
        }
        let c_name = CString::new(name).map_err(|_| DeviceError::NoKernel(name))?;
        // SAFETY: the module is loaded as long as the card lives.
        let function =
            unsafe { result::module::get_function(self.module, c_name) }.map_err(|_| DeviceError::NoKernel(name))?;
        self.functions.insert(name, function);
        Ok(function)
    }

    fn bind(&self) -> Result<(), DeviceError> {
        self.context.bind_to_thread().map_err(lost)
    }

    fn may_copy(&self) -> Result<(), DeviceError> {
        if self.is_recording {
            return Err(DeviceError::Recording("memory was copied or asked for".into()));
        }
        self.bind()
    }
}

impl Device for Card {
    fn name(&self) -> &str {
        &self.name
    }

    fn free_bytes(&self) -> Result<usize, DeviceError> {
        self.bind()?;
        Ok(result::mem_get_info().map_err(lost)?.0)
    }

    fn allocate(&mut self, n_bytes: usize) -> Result<Address, DeviceError> {
        self.may_copy()?;
        // SAFETY: given back when the card is dropped.
        match unsafe { result::malloc_sync(n_bytes.max(1)) } {
            Ok(address) => {
                self.allocations.push(address);
                Ok(Address(address))
            }
            Err(DriverError(sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY)) => {
                Err(DeviceError::NoRoom { wanted: n_bytes, free: self.free_bytes()? })
            }
            Err(error) => Err(lost(error)),
        }
    }

    fn write(&mut self, to: Address, bytes: &[u8]) -> Result<(), DeviceError> {
        self.may_copy()?;
        for (index, bytes) in bytes.chunks(PIECE_BYTES).enumerate() {
            let piece = &self.ring[self.next_piece];
            self.next_piece = (self.next_piece + 1) % self.ring.len();
            // SAFETY: the piece is as long as what is put into it, and was copied before it is written again.
            unsafe {
                result::event::synchronize(piece.copied).map_err(lost)?;
                std::ptr::copy_nonoverlapping(bytes.as_ptr(), piece.bytes, bytes.len());
                let pinned = std::slice::from_raw_parts(piece.bytes, bytes.len());
                let to = to.plus(index * PIECE_BYTES).0;
                result::memcpy_htod_async(to, pinned, self.stream.cu_stream()).map_err(lost)?;
                result::event::record(piece.copied, self.stream.cu_stream()).map_err(lost)?;
            }
        }
        Ok(())
    }

    fn read(&mut self, from: Address, bytes: &mut [u8]) -> Result<(), DeviceError> {
        self.may_copy()?;
        // SAFETY: nobody reads the bytes before the stream is done.
        unsafe {
            result::memcpy_dtoh_async(bytes, from.0, self.stream.cu_stream()).map_err(lost)?;
            result::stream::synchronize(self.stream.cu_stream()).map_err(lost)
        }
    }

    fn begin_reading(&mut self, from: Address, n_bytes: usize) -> Result<Reading, DeviceError> {
        self.may_copy()?;
        assert!(n_bytes <= MOST_READ_AHEAD, "invariant: what is read ahead is short");
        let index = self.next_reading;
        self.next_reading = (index + 1) % self.readings.len();
        let Piece { bytes, copied } = self.readings[index];
        // SAFETY: the piece is as long, and nobody looks at it before the copy is done.
        unsafe {
            let pinned = std::slice::from_raw_parts_mut(bytes, n_bytes);
            result::memcpy_dtoh_async(pinned, from.0, self.stream.cu_stream()).map_err(lost)?;
            result::event::record(copied, self.stream.cu_stream()).map_err(lost)?;
        }
        Ok(Reading(index))
    }

    fn finish_reading(&mut self, reading: Reading, bytes: &mut [u8]) -> Result<(), DeviceError> {
        self.bind()?;
        let Piece { bytes: pinned, copied } = self.readings[reading.0];
        assert!(bytes.len() <= MOST_READ_AHEAD, "invariant: what is read ahead is short");
        // SAFETY: the copy is done, and the next one into this piece is not begun yet.
        unsafe {
            result::event::synchronize(copied).map_err(lost)?;
            std::ptr::copy_nonoverlapping(pinned, bytes.as_mut_ptr(), bytes.len());
        }
        Ok(())
    }

    fn copy(&mut self, from: Address, to: Address, n_bytes: usize) -> Result<(), DeviceError> {
        self.may_copy()?;
        // SAFETY: both places are the caller's.
        unsafe { result::memcpy_dtod_async(to.0, from.0, n_bytes, self.stream.cu_stream()) }.map_err(lost)
    }

    fn launch(&mut self, launch: &Launch<'_>) -> Result<(), DeviceError> {
        self.bind()?;
        let function = self.function(launch.kernel)?;
        let mut words = launch.arguments.iter().map(|argument| match argument {
            Argument::Address(address) => address.0,
            Argument::Int(number) => u64::from(number.cast_unsigned()),
            Argument::Float(number) => u64::from(number.to_bits()),
        });
        let words: [u64; MOST_ARGUMENTS] = std::array::from_fn(|_| words.next().unwrap_or(0));
        let mut parameters = words.each_ref().map(|word| std::ptr::from_ref(word).cast_mut().cast());
        let [x, y, z] = launch.grid.map(|n| n as u32);
        // SAFETY: the arguments are those that `kernels.rs` gives this kernel; the emulator's tests hold them to that.
        unsafe {
            result::launch_kernel(
                function,
                (x, y, z),
                (launch.threads as u32, 1, 1),
                launch.shared_bytes as u32,
                self.stream.cu_stream(),
                &mut parameters[..launch.arguments.len()],
            )
        }
        .map_err(|error| DeviceError::Lost(format!("{}: {}", launch.kernel, words_of(error))))
    }

    fn has_large_products(&self) -> bool {
        self.blas.is_some()
    }

    fn multiply(&mut self, product: &LargeProduct) -> Result<(), DeviceError> {
        self.bind()?;
        let Some(handle) = self.blas else { return Err(DeviceError::NoKernel("cublasGemmEx")) };
        let LargeProduct { x, weights, out, n_rows, n_in, n_out, width, adds } = *product;
        let (one, kept) = (1.0_f32, if adds { 1.0_f32 } else { 0.0 });
        let size = |n: usize| i32::try_from(n).expect("invariant: sizes of products fit 31 bits");
        // cuBLAS counts along columns: to it rows are columns, and all of this is the other way round.
        // SAFETY: the places are as large as the sizes say, which the model's plan gives.
        unsafe {
            blas::gemm_ex(
                handle,
                blas_sys::cublasOperation_t::CUBLAS_OP_T,
                blas_sys::cublasOperation_t::CUBLAS_OP_N,
                size(n_out),
                size(n_rows),
                size(n_in),
                (&raw const one).cast(),
                weights.0 as *const _,
                blas_sys::cudaDataType_t::CUDA_R_16BF,
                size(n_in),
                x.0 as *const _,
                blas_sys::cudaDataType_t::CUDA_R_16BF,
                size(n_in),
                (&raw const kept).cast(),
                out.0 as *mut _,
                blas_sys::cudaDataType_t::CUDA_R_32F,
                size(width),
                blas_sys::cublasComputeType_t::CUBLAS_COMPUTE_32F,
                blas_sys::cublasGemmAlgo_t::CUBLAS_GEMM_DEFAULT,
            )
        }
        .map_err(|error| DeviceError::Lost(error.to_string()))
    }

    fn begin_recording(&mut self) -> Result<(), DeviceError> {
        self.stream
            .begin_capture(sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_THREAD_LOCAL)
            .map_err(|error| DeviceError::Recording(words_of(error)))?;
        self.is_recording = true;
        Ok(())
    }

    fn end_recording(&mut self) -> Result<GraphId, DeviceError> {
        self.is_recording = false;
        let graph = self
            .stream
            .end_capture(sys::CUgraphInstantiate_flags_enum(0))
            .map_err(|error| DeviceError::Recording(words_of(error)))?;
        self.graphs.push(graph.ok_or_else(|| DeviceError::Recording("nothing was launched".into()))?);
        Ok(GraphId(self.graphs.len() - 1))
    }

    fn replay(&mut self, graph: GraphId) -> Result<(), DeviceError> {
        self.graphs[graph.0].launch().map_err(lost)
    }
}

/// More arguments than any kernel has.
const MOST_ARGUMENTS: usize = 16;

impl Drop for Card {
    fn drop(&mut self) {
        // Where the card is lost nothing of this succeeds, and nothing of it matters any more.
        let _ = self.context.bind_to_thread();
        self.graphs.clear();
        // SAFETY: everything is given back once, after all that uses it is done.
        unsafe {
            let _ = result::stream::synchronize(self.stream.cu_stream());
            if let Some(handle) = self.blas.take() {
                let _ = blas::destroy_handle(handle);
            }
            for piece in self.ring.drain(..).chain(self.readings.drain(..)) {
                let _ = result::free_host(piece.bytes.cast());
                let _ = result::event::destroy(piece.copied);
            }
            for address in self.allocations.drain(..) {
                let _ = result::free_sync(address);
            }
            let _ = result::module::unload(self.module);
        }
    }
}

fn lost(error: DriverError) -> DeviceError {
    DeviceError::Lost(words_of(error))
}

/// The driver's name for an error, and what it says of it.
fn words_of(error: DriverError) -> String {
    let mut words = String::new();
    for part in [error.error_name(), error.error_string()].into_iter().flatten() {
        let separator = if words.is_empty() { "" } else { ": " };
        // Writing to a string cannot fail.
        let _ = write!(words, "{separator}{}", part.to_string_lossy());
    }
    words
}
