//! Variables with a getter of ours.

use nginx_sys::{
    NGX_HTTP_VAR_NOCACHEABLE, ngx_conf_t, ngx_http_add_variable, ngx_http_request_t,
    ngx_http_variable_value_t, ngx_int_t, ngx_uint_t,
};

use super::bits::ngx_variable_value_t as Bits;
use super::request::Request;
use super::{ERROR, NoMemory, OK, bytes, copy, guard, literal};

/// Computes a variable's value anew at every use; `None` is "not found", printed as "-".
#[derive(Clone, Copy)]
pub(crate) enum Getter {
    /// The value is made for this use.
    Made(fn(Request<'_>) -> Option<Vec<u8>>),
    /// It lives as long as the request.
    Lent(for<'r> fn(Request<'r>) -> Option<&'r [u8]>),
}

/// Declares variables in `preconfiguration`. The index of each in `table` tells them apart.
pub(crate) fn declare(
    cf: *mut ngx_conf_t,
    table: &'static [(&'static str, Getter)],
) -> Result<(), NoMemory> {
    for entry in table {
        let mut name = literal(entry.0);
        // SAFETY: nginx passes a live `cf`; it copies the name.
        let variable = unsafe {
            ngx_http_add_variable(
                cf,
                core::ptr::addr_of_mut!(name),
                NGX_HTTP_VAR_NOCACHEABLE as ngx_uint_t,
            )
        };
        if variable.is_null() {
            return Err(NoMemory);
        }
        // SAFETY: nginx returned a variable to fill in; the entry is static.
        unsafe {
            (*variable).get_handler = Some(get);
            (*variable).data = core::ptr::from_ref(entry).expose_provenance();
        }
    }
    Ok(())
}

unsafe extern "C" fn get(
    r: *mut ngx_http_request_t,
    value: *mut ngx_http_variable_value_t,
    data: usize,
) -> ngx_int_t {
    guard(ERROR, || {
        // SAFETY: `declare` put the address of a static entry there; nginx passes a live request
        // and a value to fill in.
        unsafe {
            let entry = &*core::ptr::with_exposed_provenance::<(&'static str, Getter)>(data);
            let r = Request::new(r);
            // Those of bindgen 0.72 go bit by bit.
            let bits = value.cast::<Bits>();
            Bits::set_no_cacheable_raw(bits, 1);
            let text = match entry.1 {
                Getter::Made(get) => match get(r).map(|text| copy(r.pool(), &text)) {
                    Some(Ok(text)) => Some(bytes(text)),
                    Some(Err(NoMemory)) => return ERROR,
                    None => None,
                },
                Getter::Lent(get) => get(r),
            };
            match text {
                Some(text) => {
                    Bits::set_len_raw(bits, text.len() as u32);
                    (*value).data = text.as_ptr().cast_mut();
                    Bits::set_valid_raw(bits, 1);
                    Bits::set_not_found_raw(bits, 0);
                }
                None => {
                    Bits::set_valid_raw(bits, 0);
                    Bits::set_not_found_raw(bits, 1);
                }
            }
        }
        OK
    })
}
