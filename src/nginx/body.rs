//! What passes through a body filter.

use core::marker::PhantomData;
use core::ops::ControlFlow;

use nginx_sys::{ngx_buf_t, ngx_chain_t, ngx_read_file};

use super::log::Level;
use super::request::Request;

/// Files are read so many bytes at a time.
const PIECE: usize = 64 * 1024;

/// nginx's log says why.
pub(crate) struct Unreadable;

/// The buffers of one call of a body filter; none if nginx only asks to go on sending.
#[derive(Clone, Copy)]
pub(crate) struct Chain<'r>(*mut ngx_chain_t, PhantomData<&'r ()>);

impl<'r> Chain<'r> {
    /// # Safety
    ///
    /// `chain` is null or a chain of buffers that nginx keeps for `'r`.
    pub(crate) unsafe fn new(chain: *mut ngx_chain_t) -> Self {
        Self(chain, PhantomData)
    }

    fn buffers(self) -> impl Iterator<Item = *mut ngx_buf_t> + use<'r> {
        let mut link = self.0;
        core::iter::from_fn(move || {
            if link.is_null() {
                return None;
            }
            // SAFETY: `new`'s promise: links are valid up to the null pointer.
            unsafe {
                let buffer = (*link).buf;
                link = (*link).next;
                Some(buffer)
            }
        })
    }

    /// How many bytes there are.
    pub(crate) fn length(self) -> u64 {
        self.buffers()
            .map(|buffer| {
                // SAFETY: `new`'s promise. Where a buffer is in memory and in a file, both hold
                // the same bytes; nginx's own macro looks at the memory first.
                unsafe {
                    if is_in_memory(buffer) {
                        (*buffer).last.addr().saturating_sub((*buffer).pos.addr()) as u64
                    } else {
                        u64::try_from((*buffer).file_last - (*buffer).file_pos).unwrap_or(0)
                    }
                }
            })
            .sum()
    }

    /// Passes the bytes to `take`, piece by piece, until it has enough; those that nginx has put
    /// into a file are read. A buffer without any is an empty piece.
    pub(crate) fn read(
        self,
        r: Request<'_>,
        mut take: impl FnMut(&[u8]) -> ControlFlow<()>,
    ) -> Result<(), Unreadable> {
        for buffer in self.buffers() {
            // SAFETY: `new`'s promise; nginx keeps `pos <= last`, and a buffer that is in a file
            // only has its file open.
            unsafe {
                let (mut at, end) = ((*buffer).file_pos, (*buffer).file_last);
                let in_memory = is_in_memory(buffer);
                if in_memory || (*buffer).in_file() == 0 || at >= end {
                    let length = (*buffer).last.addr().saturating_sub((*buffer).pos.addr());
                    let bytes = if in_memory && length > 0 {
                        core::slice::from_raw_parts((*buffer).pos, length)
                    } else {
                        &[]
                    };
                    if take(bytes).is_break() {
                        return Ok(());
                    }
                    continue;
                }
                let mut piece = vec![0; PIECE];
                while at < end {
                    let left = usize::try_from(end - at).unwrap_or(PIECE);
                    let size = left.min(PIECE);
                    let got = ngx_read_file((*buffer).file, piece.as_mut_ptr(), size, at);
                    let got = usize::try_from(got).unwrap_or(0);
                    let Some(bytes) = piece.get(..got).filter(|bytes| !bytes.is_empty()) else {
                        r.log(Level::Error, format_args!("a buffered body cannot be read"));
                        return Err(Unreadable);
                    };
                    if take(bytes).is_break() {
                        return Ok(());
                    }
                    at += got as nginx_sys::off_t;
                }
            }
        }
        Ok(())
    }

    /// The response ends with it.
    pub(crate) fn is_last(self) -> bool {
        // SAFETY: `new`'s promise.
        self.buffers().any(|buffer| unsafe { (*buffer).last_buf() } != 0)
    }

    /// Takes all bytes out, as if they had been sent.
    pub(crate) fn discard(self) {
        for buffer in self.buffers() {
            // SAFETY: `new`'s promise; consumed buffers are what every filter leaves behind.
            unsafe {
                (*buffer).pos = (*buffer).last;
                (*buffer).file_pos = (*buffer).file_last;
            }
        }
    }
}

/// # Safety
///
/// `buffer` is valid.
unsafe fn is_in_memory(buffer: *const ngx_buf_t) -> bool {
    // SAFETY: the caller's promise.
    unsafe { (*buffer).memory() != 0 || (*buffer).temporary() != 0 || (*buffer).mmap() != 0 }
}
