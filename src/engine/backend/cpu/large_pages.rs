//! Memory on large pages where the system has them: what is read from end to end at every token should not be looked up in
//! pages of 4 KiB.

use std::{io, marker::PhantomData};

use bytemuck::{AnyBitPattern, NoUninit};
use memmap2::MmapMut;

/// Bytes of a large page.
const LARGE_PAGE: usize = 2 << 20;

/// So many zeros, which take no memory before they are written.
pub(super) struct LargePages<N> {
    pages: MmapMut,
    n: usize,
    numbers: PhantomData<N>,
}

impl<N: AnyBitPattern + NoUninit> LargePages<N> {
    /// Room for `n` numbers.
    ///
    /// # Errors
    /// Where the system gives no room.
    pub(super) fn new(n: usize) -> io::Result<Self> {
        let n_bytes = n * size_of::<N>();
        // Of whole large pages, so that it begins at one; at least one, because nothing cannot be mapped.
        let pages = MmapMut::map_anon(n_bytes.max(1).next_multiple_of(LARGE_PAGE))?;
        // A wish, and for those that are filled only: without large pages everything works, a little slower.
        #[cfg(target_os = "linux")]
        let _ = pages.advise_range(memmap2::Advice::HugePage, 0, n_bytes / LARGE_PAGE * LARGE_PAGE);
        Ok(Self { pages, n, numbers: PhantomData })
    }

    /// All of them.
    pub(super) fn as_slice(&self) -> &[N] {
        bytemuck::cast_slice(&self.pages[..self.n * size_of::<N>()])
    }

    /// All of them, to be written.
    pub(super) fn as_mut_slice(&mut self) -> &mut [N] {
        bytemuck::cast_slice_mut(&mut self.pages[..self.n * size_of::<N>()])
    }
}

impl AsRef<[u8]> for LargePages<u8> {
    fn as_ref(&self) -> &[u8] {
        self.as_slice()
    }
}
