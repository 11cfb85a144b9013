//! The bit-fields that the module touches lie where the C compiler puts them.
//!
//! bindgen 0.72 misplaced those of `ngx_http_request_t` from nginx 1.29.3 on (see `build.rs`);
//! nothing else would notice, but requests would.

use std::fmt::Write as _;
use std::process::Command;

#[allow(
    clippy::all,
    clippy::ptr_as_ptr,
    clippy::borrow_as_ptr,
    clippy::undocumented_unsafe_blocks,
    clippy::indexing_slicing,
    clippy::semicolon_if_nothing_returned,
    dead_code,
    missing_docs,
    non_camel_case_types,
    non_snake_case,
    non_upper_case_globals,
    unnecessary_transmutes,
    unreachable_pub,
    unsafe_code,
    unsafe_op_in_unsafe_fn
)]
mod bits {
    include!(concat!(env!("OUT_DIR"), "/request.rs"));
}

/// The bytes of a zeroed `T` after `set`, as the C program below prints them.
#[allow(unsafe_code)]
fn image<T>(set: impl FnOnce(&mut T)) -> String {
    // SAFETY: nginx itself zeroes these structures: integers, pointers and bit-fields.
    let mut value = unsafe { Box::new(std::mem::zeroed::<T>()) };
    set(&mut value);
    // SAFETY: the bytes of a value whose padding was zeroed with it.
    let bytes = unsafe {
        std::slice::from_raw_parts(std::ptr::from_ref::<T>(&value).cast::<u8>(), size_of::<T>())
    };
    let mut text = bytes.len().to_string();
    for (offset, byte) in bytes.iter().enumerate().filter(|(_, byte)| **byte != 0) {
        let _ = write!(text, " {offset}:{byte:02x}");
    }
    text
}

/// `[C's name of the structure: type, field => setter, ...]`
macro_rules! fields {
    ($($c:literal: $type:ty [$($field:literal => $set:ident),+ $(,)?])+) => {
        [$($((
            $c, $field,
            image::<$type>(|value| { value.$set(u32::MAX); }),
        )),+),+]
    };
}

fn fields() -> Vec<(&'static str, &'static str, String)> {
    let mut fields = Vec::from(fields! {
        "ngx_http_request_t": bits::ngx_http_request_s [
            "count" => set_count,
            "uri_changes" => set_uri_changes,
            "uri_changed" => set_uri_changed,
            "internal" => set_internal,
            "error_page" => set_error_page,
            "buffered" => set_buffered,
            "header_only" => set_header_only,
            "header_sent" => set_header_sent,
            "keepalive" => set_keepalive,
            "expect_trailers" => set_expect_trailers,
            "allow_ranges" => set_allow_ranges,
            "done" => set_done,
            "post_action" => set_post_action,
            "cached" => set_cached,
            "valid_unparsed_uri" => set_valid_unparsed_uri,
            "request_body_no_buffering" => set_request_body_no_buffering,
        ]
        "ngx_http_upstream_t": nginx_sys::ngx_http_upstream_t [
            "header_sent" => set_header_sent,
            "keepalive" => set_keepalive,
            "request_sent" => set_request_sent,
            "request_body_sent" => set_request_body_sent,
            "cacheable" => set_cacheable,
            "store" => set_store,
            "upgrade" => set_upgrade,
        ]
        "ngx_http_upstream_headers_in_t": nginx_sys::ngx_http_upstream_headers_in_t [
            "chunked" => set_chunked,
            "connection_close" => set_connection_close,
        ]
        "ngx_http_headers_in_t": nginx_sys::ngx_http_headers_in_t ["chunked" => set_chunked]
        "ngx_connection_t": nginx_sys::ngx_connection_t [
            "buffered" => set_buffered,
            "close" => set_close,
            "error" => set_error,
            "idle" => set_idle,
            "timedout" => set_timedout,
        ]
        "ngx_event_t": nginx_sys::ngx_event_t [
            "delayed" => set_delayed,
            "eof" => set_eof,
            "error" => set_error,
            "ready" => set_ready,
            "timedout" => set_timedout,
            "timer_set" => set_timer_set,
        ]
        "ngx_peer_connection_t": nginx_sys::ngx_peer_connection_t ["cached" => set_cached]
        "ngx_ssl_connection_t": nginx_sys::ngx_ssl_connection_t [
            "handshaked" => set_handshaked,
            "no_send_shutdown" => set_no_send_shutdown,
            "no_wait_shutdown" => set_no_wait_shutdown,
        ]
        "ngx_buf_t": nginx_sys::ngx_buf_t [
            "flush" => set_flush,
            "in_file" => set_in_file,
            "last_buf" => set_last_buf,
            "last_in_chain" => set_last_in_chain,
            "memory" => set_memory,
            "mmap" => set_mmap,
            "temporary" => set_temporary,
        ]
        "ngx_http_core_loc_conf_t": nginx_sys::ngx_http_core_loc_conf_t [
            "named" => set_named,
            "noname" => set_noname,
        ]
        "ngx_slab_pool_t": nginx_sys::ngx_slab_pool_t ["log_nomem" => set_log_nomem]
        "ngx_url_t": nginx_sys::ngx_url_t ["no_resolve" => set_no_resolve]
        "ngx_variable_value_t": nginx_sys::ngx_variable_value_t [
            "len" => set_len,
            "no_cacheable" => set_no_cacheable,
            "not_found" => set_not_found,
            "valid" => set_valid,
        ]
    });
    let all = |field: &mut *mut u8| *field = std::ptr::without_provenance_mut(usize::MAX);
    let request = "ngx_http_request_t";
    let mut pointer = |field, set: fn(&mut bits::ngx_http_request_s) -> &mut *mut u8| {
        fields.push((request, field, image(|r| all(set(r)))));
    };
    pointer("host_start", |r| &mut r.host_start);
    pointer("host_end", |r| &mut r.host_end);
    pointer("uri_start", |r| &mut r.uri_start);
    pointer("uri_end", |r| &mut r.uri_end);
    fields
}

#[test]
fn bit_fields_lie_where_c_puts_them() {
    let fields = fields();
    let mut source = String::from(
        "#include <ngx_config.h>\n#include <ngx_core.h>\n#include <ngx_http.h>\n\
         static void image(unsigned char *p, size_t n) {\n\
           size_t i; printf(\"%zu\", n);\n\
           for (i = 0; i < n; i++) if (p[i]) printf(\" %zu:%02x\", i, p[i]);\n\
           printf(\"\\n\");\n\
         }\n\
         int main(void) {\n",
    );
    for (structure, field, _) in &fields {
        let _ = writeln!(
            source,
            "{{ static {structure} x; x.{field} = (__typeof__(x.{field} + 0)) ~0ULL; \
             image((unsigned char *) &x, sizeof x); }}"
        );
    }
    source.push_str("return 0; }\n");

    let directory = std::path::Path::new(env!("CARGO_TARGET_TMPDIR"));
    let (c, program) = (directory.join("layout.c"), directory.join("layout"));
    std::fs::write(&c, source).expect("a source file in cargo's directory for tests");
    let compiler = std::env::var_os("CC").unwrap_or_else(|| "cc".into());
    let compiled = Command::new(compiler)
        .args(env!("NGINX_C_ARGS").split('\u{1f}'))
        .args(["-w", "-o"])
        .args([&program, &c])
        .output()
        .expect("a C compiler");
    assert!(compiled.status.success(), "{}", String::from_utf8_lossy(&compiled.stderr));
    let printed = Command::new(&program).output().expect("the compiled program runs");
    let printed = String::from_utf8(printed.stdout).expect("numbers");

    assert_eq!(printed.lines().count(), fields.len());
    for ((structure, field, ours), c) in fields.iter().zip(printed.lines()) {
        assert_eq!(ours, c, "{structure}.{field}");
    }
}
