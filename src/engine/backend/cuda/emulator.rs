//! The device on this machine: the kernels' own source, compiled for the host, over memory that is watched.
//!
//! What is not written is no number, what is written beside an allocation is found out, and where asked for every kernel runs in
//! several orders of its threads, which must not change a bit.

#![allow(unsafe_code, reason = "kernels are foreign code that gets addresses")]

use std::{
    ffi::{CString, c_char, c_void},
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

use half::bf16;
use libloading::Library;

use super::device::{Address, Argument, Device, DeviceError, GraphId, LargeProduct, Launch, MOST_READ_AHEAD, Reading};

type LaunchFn =
    unsafe extern "C" fn(*const c_char, *const [u32; 3], *const [u32; 3], usize, *const *const c_void, u32) -> bool;

/// Bytes before and after an allocation that nobody may write.
const GUARD: usize = 256;
const GUARD_BYTE: u8 = 0xa5;
/// Of what was not written: NaN as f32, f16 and bf16.
const UNWRITTEN: u8 = 0xff;
/// From the first thread on, from the last one on, and mixed.
const ORDERS: [u32; 3] = [0, 1, 5];

/// The device.
pub(super) struct Emulator {
    name: &'static str,
    allocations: Vec<Allocation>,
    is_thorough: bool,
    room: usize,
    recording: Option<Vec<Recorded>>,
    graphs: Vec<Vec<Recorded>>,
    readings: Vec<Vec<u8>>,
    /// How many kernels ran by themselves, and how many as parts of graphs.
    pub(super) n_launched: usize,
    pub(super) n_replayed: usize,
    /// Kernels that do nothing.
    pub(super) broken: Vec<&'static str>,
    /// Whether it has a library for them.
    pub(super) has_large_products: bool,
    /// Fails every call once it is told to.
    pub(super) is_lost: bool,
}

struct Allocation {
    /// Guard, content, guard; in words, so that it is aligned.
    bytes: Vec<[u64; 32]>,
    n_bytes: usize,
}

#[derive(Clone)]
enum Recorded {
    Kernel { kernel: &'static str, grid: [usize; 3], threads: usize, shared_bytes: usize, arguments: Vec<Argument> },
    Product(LargeProduct),
}

impl Allocation {
    fn new(n_bytes: usize) -> Self {
        let n_words = (n_bytes.div_ceil(GUARD) + 2) * GUARD / 256;
        let mut this = Self { bytes: vec![[u64::MAX; 32]; n_words + 1], n_bytes };
        let (start, end) = (this.start(), this.start() + n_bytes);
        let all = this.all_mut();
        all[..start].fill(GUARD_BYTE);
        all[start..end].fill(UNWRITTEN);
        all[end..].fill(GUARD_BYTE);
        this
    }

    /// Where the content begins, so that its address is a multiple of 256.
    fn start(&self) -> usize {
        GUARD + (256 - self.bytes.as_ptr().addr() % 256) % 256
    }

    fn all_mut(&mut self) -> &mut [u8] {
        bytemuck::cast_slice_mut(&mut self.bytes)
    }

    fn content(&self) -> &[u8] {
        &bytemuck::cast_slice(&self.bytes)[self.start()..][..self.n_bytes]
    }

    fn content_mut(&mut self) -> &mut [u8] {
        let (start, n_bytes) = (self.start(), self.n_bytes);
        &mut self.all_mut()[start..][..n_bytes]
    }

    fn is_whole(&self) -> bool {
        let all: &[u8] = bytemuck::cast_slice(&self.bytes);
        let (before, rest) = all.split_at(self.start());
        before.iter().chain(&rest[self.n_bytes..]).all(|byte| *byte == GUARD_BYTE)
    }

    fn address(&self) -> u64 {
        self.bytes.as_ptr().addr() as u64 + self.start() as u64
    }
}

impl Emulator {
    /// Runs each kernel once.
    pub(super) fn new() -> Self {
        Self {
            name: "emulator",
            allocations: Vec::new(),
            is_thorough: false,
            room: usize::MAX,
            recording: None,
            graphs: Vec::new(),
            readings: Vec::new(),
            n_launched: 0,
            n_replayed: 0,
            broken: Vec::new(),
            has_large_products: true,
            is_lost: false,
        }
    }

    /// Runs each kernel in several orders of its threads.
    pub(super) fn thorough() -> Self {
        Self { is_thorough: true, ..Self::new() }
    }

    /// Has room for so many bytes.
    pub(super) fn with_room(room: usize) -> Self {
        Self { room, ..Self::new() }
    }

    fn used(&self) -> usize {
        self.allocations.iter().map(|allocation| allocation.n_bytes).sum()
    }

    fn place(&mut self, at: Address, n_bytes: usize) -> &mut [u8] {
        let found = self.allocations.iter_mut().find_map(|allocation| {
            let offset = usize::try_from(at.0.checked_sub(allocation.address())?).ok()?;
            (offset + n_bytes <= allocation.n_bytes).then_some((allocation, offset))
        });
        let (allocation, offset) = found.unwrap_or_else(|| panic!("{n_bytes} bytes at {at:?} are no allocation's"));
        &mut allocation.content_mut()[offset..][..n_bytes]
    }

    fn check(&self, what: &str) {
        assert!(self.allocations.iter().all(Allocation::is_whole), "{what} wrote beside what it was given");
    }

    fn contents(&self) -> Vec<Vec<u8>> {
        self.allocations.iter().map(|allocation| allocation.content().to_vec()).collect()
    }

    fn answers(&self) -> Result<(), DeviceError> {
        if self.is_lost { Err(DeviceError::Lost("it was told to be".into())) } else { Ok(()) }
    }

    fn run(&mut self, recorded: &Recorded) {
        match recorded {
            Recorded::Kernel { kernel, grid, threads, shared_bytes, arguments } => {
                let launch = Launch { kernel, grid: *grid, threads: *threads, shared_bytes: *shared_bytes, arguments };
                self.run_kernel(&launch);
            }
            Recorded::Product(product) => self.run_product(product),
        }
    }

    fn run_kernel(&mut self, launch: &Launch<'_>) {
        if self.broken.contains(&launch.kernel) {
            return;
        }
        if !self.is_thorough {
            call(launch, 0);
            return self.check(launch.kernel);
        }
        let before = self.contents();
        let mut first = None;
        for order in ORDERS {
            for (allocation, before) in self.allocations.iter_mut().zip(&before) {
                allocation.content_mut().copy_from_slice(before);
            }
            call(launch, order);
            self.check(launch.kernel);
            let after = self.contents();
            let first = first.get_or_insert_with(|| after.clone());
            assert!(*first == after, "{} depends on the order of its threads", launch.kernel);
        }
    }

    fn run_product(&mut self, product: &LargeProduct) {
        let LargeProduct { x, weights, out, n_rows, n_in, n_out, width, adds } = *product;
        let mut numbers = |at: Address, n: usize| -> Vec<f32> {
            self.place(at, 2 * n)
                .chunks_exact(2)
                .map(|bytes| bf16::from_le_bytes([bytes[0], bytes[1]]).to_f32())
                .collect()
        };
        let (x, weights) = (numbers(x, n_rows * n_in), numbers(weights, n_out * n_in));
        let out = self.place(out, 4 * ((n_rows - 1) * width + n_out));
        for (row, out) in x.chunks_exact(n_in).zip(out.chunks_mut(4 * width)) {
            for (weights, out) in weights.chunks_exact(n_in).zip(out.chunks_exact_mut(4)) {
                let before = f32::from_le_bytes([out[0], out[1], out[2], out[3]]);
                let sum: f32 = row.iter().zip(weights).map(|(x, weight)| x * weight).sum();
                out.copy_from_slice(&if adds { before + sum } else { sum }.to_le_bytes());
            }
        }
    }
}

impl Device for Emulator {
    fn name(&self) -> &str {
        self.name
    }

    fn free_bytes(&self) -> Result<usize, DeviceError> {
        Ok(self.room - self.used())
    }

    fn allocate(&mut self, n_bytes: usize) -> Result<Address, DeviceError> {
        assert!(self.recording.is_none(), "an allocation while launches are recorded");
        self.answers()?;
        if n_bytes > self.room - self.used() {
            return Err(DeviceError::NoRoom { wanted: n_bytes, free: self.room - self.used() });
        }
        self.allocations.push(Allocation::new(n_bytes));
        Ok(Address(self.allocations.last().map_or(0, Allocation::address)))
    }

    fn write(&mut self, to: Address, bytes: &[u8]) -> Result<(), DeviceError> {
        assert!(self.recording.is_none(), "a copy while launches are recorded");
        self.answers()?;
        self.place(to, bytes.len()).copy_from_slice(bytes);
        Ok(())
    }

    fn read(&mut self, from: Address, bytes: &mut [u8]) -> Result<(), DeviceError> {
        assert!(self.recording.is_none(), "a copy while launches are recorded");
        self.answers()?;
        bytes.copy_from_slice(self.place(from, bytes.len()));
        Ok(())
    }

    fn begin_reading(&mut self, from: Address, n_bytes: usize) -> Result<Reading, DeviceError> {
        assert!(n_bytes <= MOST_READ_AHEAD, "{n_bytes} bytes are read ahead");
        let mut bytes = vec![0; n_bytes];
        self.read(from, &mut bytes)?;
        self.readings.push(bytes);
        Ok(Reading(self.readings.len() - 1))
    }

    fn finish_reading(&mut self, reading: Reading, bytes: &mut [u8]) -> Result<(), DeviceError> {
        self.answers()?;
        assert!(self.readings.len() - reading.0 <= 2, "more than two readings at a time");
        bytes.copy_from_slice(&self.readings[reading.0]);
        Ok(())
    }

    fn copy(&mut self, from: Address, to: Address, n_bytes: usize) -> Result<(), DeviceError> {
        self.answers()?;
        let bytes = self.place(from, n_bytes).to_vec();
        self.place(to, n_bytes).copy_from_slice(&bytes);
        Ok(())
    }

    fn launch(&mut self, launch: &Launch<'_>) -> Result<(), DeviceError> {
        self.answers()?;
        let Launch { kernel, grid, threads, shared_bytes, arguments } = *launch;
        let recorded = Recorded::Kernel { kernel, grid, threads, shared_bytes, arguments: arguments.to_vec() };
        if let Some(recording) = &mut self.recording {
            recording.push(recorded);
        } else {
            self.n_launched += 1;
            self.run(&recorded);
        }
        Ok(())
    }

    fn has_large_products(&self) -> bool {
        self.has_large_products
    }

    fn multiply(&mut self, product: &LargeProduct) -> Result<(), DeviceError> {
        self.answers()?;
        let recorded = Recorded::Product(*product);
        if let Some(recording) = &mut self.recording {
            recording.push(recorded);
        } else {
            self.run(&recorded);
        }
        Ok(())
    }

    fn begin_recording(&mut self) -> Result<(), DeviceError> {
        self.answers()?;
        assert!(self.recording.replace(Vec::new()).is_none(), "a recording within another");
        Ok(())
    }

    fn end_recording(&mut self) -> Result<GraphId, DeviceError> {
        self.graphs.push(self.recording.take().expect("a recording that was begun"));
        Ok(GraphId(self.graphs.len() - 1))
    }

    fn replay(&mut self, graph: GraphId) -> Result<(), DeviceError> {
        self.answers()?;
        for recorded in self.graphs[graph.0].clone() {
            self.n_replayed += 1;
            self.run(&recorded);
        }
        Ok(())
    }
}

fn call(launch: &Launch<'_>, order: u32) {
    let grid = launch.grid.map(|n| n as u32);
    let threads = [launch.threads as u32, 1, 1];
    let words: Vec<u64> = launch
        .arguments
        .iter()
        .map(|argument| match argument {
            Argument::Address(address) => address.0,
            Argument::Int(number) => u64::from(number.cast_unsigned()),
            Argument::Float(number) => u64::from(number.to_bits()),
        })
        .collect();
    let parameters: Vec<*const c_void> = words.iter().map(|word| std::ptr::from_ref(word).cast()).collect();
    let name = CString::new(launch.kernel).unwrap();
    // SAFETY: the kernels take what `kernels.rs` gives them, and what they write is checked above.
    let is_known = unsafe {
        let function = library().get::<LaunchFn>(b"xverse_launch").unwrap();
        function(name.as_ptr(), &raw const grid, &raw const threads, launch.shared_bytes, parameters.as_ptr(), order)
    };
    assert!(is_known, "there is no kernel {}", launch.kernel);
}

/// The kernels as a library for this machine, compiled by the first who needs it.
fn library() -> &'static Library {
    static LIBRARY: OnceLock<Library> = OnceLock::new();
    LIBRARY.get_or_init(|| {
        let folder = tempfile::tempdir().unwrap();
        let path = compile(folder.path());
        // SAFETY: the library has no initialisers but those of its thread-local variables.
        unsafe { Library::new(path) }.unwrap()
    })
}

fn compile(folder: &Path) -> PathBuf {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/engine/backend/cuda/kernels/kernels.cu");
    let library = folder.join("kernels.so");
    let compiler = std::env::var_os("CXX").unwrap_or_else(|| "c++".into());
    let outcome = Command::new(&compiler)
        .args([
            "-std=c++20",
            "-O2",
            "-ffp-contract=off",
            "-Wall",
            "-Wextra",
            "-Werror",
            "-shared",
            "-fPIC",
            "-x",
            "c++",
        ])
        .arg(&source)
        .arg("-o")
        .arg(&library)
        .output()
        .unwrap_or_else(|error| {
            panic!("no C++ compiler {compiler:?}: {error}\nhint: install g++, or name another in CXX")
        });
    assert!(outcome.status.success(), "the kernels do not compile:\n{}", String::from_utf8_lossy(&outcome.stderr));
    library
}
