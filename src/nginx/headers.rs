//! Lines of a response header.

use core::marker::PhantomData;
use core::ptr;

use nginx_sys::{ngx_list_push, ngx_str_t, ngx_table_elt_t};

use super::bits::ngx_http_request_s as Bits;
use super::request::Request;
use super::{ListIter, NoMemory, address, bytes, copy, literal};

/// One line of the response header that goes to the client.
#[derive(Clone, Copy)]
pub(crate) struct Line<'r>(*mut ngx_table_elt_t, PhantomData<&'r ()>);

impl<'r> Line<'r> {
    pub(super) fn as_ptr(self) -> *mut ngx_table_elt_t {
        self.0
    }

    pub(crate) fn name(self) -> &'r [u8] {
        // SAFETY: a line of the request's own list; names live in the request's pool.
        unsafe { bytes((*self.0).key) }
    }

    /// Names are compared in any case (RFC 9110, section 5.1).
    pub(crate) fn is(self, name: &str) -> bool {
        self.name().eq_ignore_ascii_case(name.as_bytes())
    }

    pub(crate) fn value(self) -> &'r [u8] {
        // SAFETY: as for the name.
        unsafe { bytes((*self.0).value) }
    }

    /// Gives the line another value, copied into the request's pool.
    pub(crate) fn set_value(self, r: Request<'r>, value: &[u8]) -> Result<(), NoMemory> {
        // SAFETY: the line belongs to `r`, whose pool is live; nobody else writes headers now.
        unsafe { (*self.0).value = copy(r.pool(), value)? };
        Ok(())
    }

    /// Takes the line out, as nginx's own modules do: filters skip lines without a hash.
    pub(crate) fn remove(self) {
        // SAFETY: a line of the request's own list.
        unsafe { (*self.0).hash = 0 };
    }

    /// Where the value lies: two lines with the same value in memory are the same line, copied.
    pub(crate) fn origin(self) -> usize {
        // SAFETY: a line of the request's own list.
        address(unsafe { (*self.0).value.data })
    }
}

/// The lines of a list of headers that are still in.
pub(super) unsafe fn lines<'r>(
    list: *mut nginx_sys::ngx_list_t,
) -> impl Iterator<Item = Line<'r>> + use<'r> {
    // SAFETY: the caller passes an initialized list of table elements that lives for `'r`.
    unsafe { ListIter::<ngx_table_elt_t>::new(list) }
        // SAFETY: the iterator yields elements of that list.
        .filter(|&line| unsafe { (*line).hash } != 0)
        .map(|line| Line(line, PhantomData))
}

/// Appends a line to a list of `r`'s headers.
///
/// # Safety
///
/// `list` is initialized and holds table elements.
pub(super) unsafe fn push(
    list: *mut nginx_sys::ngx_list_t,
    r: Request<'_>,
    name: &[u8],
    value: &[u8],
) -> Result<*mut ngx_table_elt_t, NoMemory> {
    // SAFETY: the caller's promise; the new element is written whole before anyone reads.
    unsafe {
        let line = ngx_list_push(list).cast::<ngx_table_elt_t>();
        if line.is_null() {
            return Err(NoMemory);
        }
        ptr::write_bytes(line, 0, 1);
        (*line).key = copy(r.pool(), name)?;
        (*line).value = copy(r.pool(), value)?;
        (*line).lowcase_key = copy(r.pool(), &name.to_ascii_lowercase())?.data;
        (*line).hash = 1;
        Ok(line)
    }
}

impl<'r> Request<'r> {
    /// The response's lines, but for those that have a field of their own (Content-Type, ...).
    pub(crate) fn response_lines(self) -> impl Iterator<Item = Line<'r>> + use<'r> {
        // SAFETY: nginx initializes the list before it runs any phase.
        unsafe { lines(ptr::addr_of_mut!((*self.as_ptr()).headers_out.headers)) }
    }

    /// Adds a line to the response.
    pub(crate) fn add_response_line(self, name: &[u8], value: &[u8]) -> Result<(), NoMemory> {
        // SAFETY: nginx initializes the list before it runs any phase.
        unsafe {
            let list = ptr::addr_of_mut!((*self.as_ptr()).headers_out.headers);
            let line = push(list, self, name, value)?;
            if name.eq_ignore_ascii_case(b"Content-Encoding") {
                // What is encoded already is not to be encoded again by gzip.
                (*self.as_ptr()).headers_out.content_encoding = line;
            }
        }
        Ok(())
    }

    /// The Content-Type of the response, without nginx's charset.
    pub(crate) fn content_type(self) -> &'r [u8] {
        // SAFETY: the value lies in the request's pool.
        unsafe { bytes((*self.as_ptr()).headers_out.content_type) }
    }

    /// The status of the response; 0 if none is set yet.
    pub(crate) fn response_status(self) -> u16 {
        // SAFETY: plain field of a live request.
        unsafe { u16::try_from((*self.as_ptr()).headers_out.status).unwrap_or(0) }
    }

    /// The length of the response as the filters have left it, in bytes.
    pub(crate) fn response_length(self) -> Option<u64> {
        // SAFETY: plain field of a live request; -1 is "not known".
        unsafe { u64::try_from((*self.as_ptr()).headers_out.content_length_n).ok() }
    }

    /// Sets status, type and length of the response, and takes out what nginx itself says of the
    /// body that it was made for.
    pub(crate) fn set_response(
        self,
        status: u16,
        status_line: Option<&str>,
        content_type: &[u8],
        length: usize,
    ) -> Result<(), NoMemory> {
        // SAFETY: plain fields of a live request; lines are null or in the request's list.
        unsafe {
            let status_line = copy(self.pool(), status_line.unwrap_or_default().as_bytes())?;
            let content_type: ngx_str_t = copy(self.pool(), content_type)?;
            let out = ptr::addr_of_mut!((*self.as_ptr()).headers_out);
            (*out).status = usize::from(status);
            (*out).status_line = status_line;
            (*out).content_type = content_type;
            (*out).content_type_len = content_type.len;
            (*out).content_type_lowcase = ptr::null_mut();
            (*out).charset = literal("");
            (*out).content_length_n = length as nginx_sys::off_t;
            (*out).last_modified_time = -1;
            for line in [
                ptr::addr_of_mut!((*out).content_length),
                ptr::addr_of_mut!((*out).content_encoding),
                ptr::addr_of_mut!((*out).accept_ranges),
                ptr::addr_of_mut!((*out).last_modified),
                ptr::addr_of_mut!((*out).etag),
            ] {
                if !(*line).is_null() {
                    (**line).hash = 0;
                    *line = ptr::null_mut();
                }
            }
            Bits::set_allow_ranges_raw(self.as_ptr().cast(), 0);
            Bits::set_expect_trailers_raw(self.as_ptr().cast(), 0);
        }
        Ok(())
    }
}
