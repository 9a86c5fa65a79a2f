//! What the backend needs of a device: memory of its own, kernels that run on it, large products.
//!
//! Narrow on purpose, so that a card and the host's stand-in can both be behind it.

/// A place in the device's memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Address(pub u64);

impl Address {
    /// Nothing, where a kernel may do without.
    pub const NONE: Self = Self(0);

    /// The place so many bytes on.
    #[must_use]
    pub fn plus(self, n_bytes: usize) -> Self {
        Self(self.0 + n_bytes as u64)
    }
}

/// One thing that a kernel is given.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Argument {
    /// A place in the device's memory.
    Address(Address),
    /// A size, as the kernels' `int`.
    Int(i32),
    /// A number.
    Float(f32),
}

impl From<Address> for Argument {
    fn from(address: Address) -> Self {
        Self::Address(address)
    }
}

impl From<usize> for Argument {
    fn from(size: usize) -> Self {
        Self::Int(i32::try_from(size).expect("invariant: what a kernel is given fits 31 bits"))
    }
}

impl From<f32> for Argument {
    fn from(number: f32) -> Self {
        Self::Float(number)
    }
}

/// A kernel that is to run.
#[derive(Debug, Clone, Copy)]
pub struct Launch<'a> {
    /// Its name.
    pub kernel: &'static str,
    /// How many blocks, along three axes.
    pub grid: [usize; 3],
    /// How many threads each has.
    pub threads: usize,
    /// Bytes of memory that a block's threads share.
    pub shared_bytes: usize,
    /// In the kernel's order.
    pub arguments: &'a [Argument],
}

/// A product of many rows: `out` f32 of shape (`n_rows`, `n_out`), its rows `width` numbers apart, is `x` · `weights`ᵀ, both bf16, of
/// shapes (`n_rows`, `n_in`) and (`n_out`, `n_in`).
#[derive(Debug, Clone, Copy)]
pub struct LargeProduct {
    /// The activations.
    pub x: Address,
    /// The weights.
    pub weights: Address,
    /// Where the products go.
    pub out: Address,
    /// Rows of activations.
    pub n_rows: usize,
    /// Columns of both.
    pub n_in: usize,
    /// Rows of weights.
    pub n_out: usize,
    /// Numbers from one row of the products to the next.
    pub width: usize,
    /// Whether they are added to what is there.
    pub adds: bool,
}

/// Launches that were recorded, to be run again and again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct GraphId(pub usize);

/// Bytes that are on their way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reading(pub usize);

/// Bytes of one [`Device::begin_reading`] at most.
pub const MOST_READ_AHEAD: usize = 4096;

/// Why the device did not do what it was asked for.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum DeviceError {
    /// There is no such kernel in what was built for it.
    #[error("the device has no kernel {0}\nhint: the program was not built for this card, or in parts")]
    NoKernel(&'static str),
    /// It has no room left.
    #[error("the device has no room for {wanted} bytes more, {free} are free")]
    NoRoom {
        /// How many bytes were asked for.
        wanted: usize,
        /// How many there are.
        free: usize,
    },
    /// It computes wrong, and nothing can stand in for that.
    #[error("{0} go wrong on this device\nhint: the card or its driver may be defective; --device cpu runs without")]
    Wrong(&'static str),
    /// Everything that multiplies is turned off.
    #[error(
        "nothing is left to multiply with: cuda_products is off, and cuBLAS is off or was not found\nhint: turn one of them on in Leptos.toml"
    )]
    NoProducts,
    /// Something was asked for that cannot be recorded.
    #[error("the launches could not be recorded: {0}")]
    Recording(String),
    /// It answers nothing any more.
    #[error("the device failed: {0}")]
    Lost(String),
}

/// Something that runs kernels, one after the other.
pub trait Device: Send {
    /// What it is called.
    fn name(&self) -> &str;

    /// Bytes that are free.
    ///
    /// # Errors
    /// [`DeviceError`].
    fn free_bytes(&self) -> Result<usize, DeviceError>;

    /// Room for so many bytes, aligned to 256, of any content.
    ///
    /// # Errors
    /// [`DeviceError::NoRoom`].
    fn allocate(&mut self, n_bytes: usize) -> Result<Address, DeviceError>;

    /// Puts bytes into the device's memory.
    ///
    /// # Errors
    /// [`DeviceError`].
    fn write(&mut self, to: Address, bytes: &[u8]) -> Result<(), DeviceError>;

    /// Gets bytes from it, after all that was launched before.
    ///
    /// # Errors
    /// [`DeviceError`].
    fn read(&mut self, from: Address, bytes: &mut [u8]) -> Result<(), DeviceError>;

    /// Begins to get bytes, at most [`MOST_READ_AHEAD`], after all that was launched before; what is launched from now on does not
    /// hold them up. At most two such readings are not finished at a time; one that is not wanted any more needs no finish.
    ///
    /// # Errors
    /// [`DeviceError`].
    fn begin_reading(&mut self, from: Address, n_bytes: usize) -> Result<Reading, DeviceError>;

    /// Waits for the bytes.
    ///
    /// # Errors
    /// [`DeviceError`].
    fn finish_reading(&mut self, reading: Reading, bytes: &mut [u8]) -> Result<(), DeviceError>;

    /// Copies within its memory, after what was launched before.
    ///
    /// # Errors
    /// [`DeviceError`].
    fn copy(&mut self, from: Address, to: Address, n_bytes: usize) -> Result<(), DeviceError>;

    /// Runs a kernel after those before it.
    ///
    /// # Errors
    /// [`DeviceError`].
    fn launch(&mut self, launch: &Launch<'_>) -> Result<(), DeviceError>;

    /// Whether there are [`Self::multiply`]'s products.
    fn has_large_products(&self) -> bool;

    /// Computes a product after what was launched before.
    ///
    /// # Errors
    /// [`DeviceError`].
    fn multiply(&mut self, product: &LargeProduct) -> Result<(), DeviceError>;

    /// From now on launches are recorded and not run; nothing else may be asked for.
    ///
    /// # Errors
    /// [`DeviceError::Recording`].
    fn begin_recording(&mut self) -> Result<(), DeviceError>;

    /// What was recorded.
    ///
    /// # Errors
    /// [`DeviceError::Recording`].
    fn end_recording(&mut self) -> Result<GraphId, DeviceError>;

    /// Runs what was recorded.
    ///
    /// # Errors
    /// [`DeviceError`].
    fn replay(&mut self, graph: GraphId) -> Result<(), DeviceError>;
}

/// Puts numbers into the device's memory, as they lie in this machine's.
///
/// # Errors
/// [`DeviceError`].
pub fn write_numbers<T: bytemuck::NoUninit>(
    device: &mut dyn Device,
    to: Address,
    numbers: &[T],
) -> Result<(), DeviceError> {
    device.write(to, bytemuck::cast_slice(numbers))
}

/// Gets numbers from the device's memory.
///
/// # Errors
/// [`DeviceError`].
pub fn read_numbers<T: bytemuck::AnyBitPattern + bytemuck::NoUninit>(
    device: &mut dyn Device,
    from: Address,
    numbers: &mut [T],
) -> Result<(), DeviceError> {
    device.read(from, bytemuck::cast_slice_mut(numbers))
}
