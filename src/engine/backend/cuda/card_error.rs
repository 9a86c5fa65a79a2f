//! Why there is no card to compute on.

/// The driver's version of CUDA that the kernels were compiled for: major * 1000 + minor * 10.
pub const DRIVER: i32 = 13_000;

/// Why there is no card to compute on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CardError {
    /// The program was built without.
    #[error(
        "this build has no cuda backend, asked for cuda:{index}\nhint: build it with `make cuda`, or run with --device cpu"
    )]
    NotBuilt {
        /// Which one was asked for.
        index: usize,
    },
    /// The driver is not installed.
    #[error("no NVIDIA driver was found (libcuda.so)\nhint: install it, or run with --device cpu")]
    NoDriver,
    /// The driver does not start.
    #[error(
        "the NVIDIA driver does not start: {0}\nhint: nvidia-smi says what is wrong with it; --device cpu runs without"
    )]
    Driver(String),
    /// The driver is older than what the kernels were compiled with.
    #[error(
        "the NVIDIA driver supports CUDA {}.{}, expected {}.{} or newer\nhint: update the driver to 580 or newer, or run with --device cpu",
        found / 1000, found % 1000 / 10, DRIVER / 1000, DRIVER % 1000 / 10
    )]
    OldDriver {
        /// As the driver says it.
        found: i32,
    },
    /// There is no card of this number.
    #[error(
        "cuda:{index} was asked for, {count} cards are there\nhint: they are numbered from 0; CUDA_VISIBLE_DEVICES hides some"
    )]
    NoCard {
        /// Which one.
        index: usize,
        /// How many there are.
        count: usize,
    },
    /// The kernels were not compiled for it.
    #[error(
        "{name} has compute capability {major}.{minor}, this program was built for {built}\nhint: build it with XVERSE_CUDA_ARCHS={major}{minor} make cuda"
    )]
    Architecture {
        /// Of the card.
        name: String,
        /// Of its compute capability.
        major: i32,
        /// Of its compute capability.
        minor: i32,
        /// What there are kernels for.
        built: String,
    },
}
