//! Hands nginx-sys's feature flags on, and binds the request's bit-fields anew.
//!
//! From nginx 1.29.3 on, `in_port_t port` precedes the bit-fields of `ngx_http_request_t`; bindgen
//! 0.72, which nginx-sys 0.5.0 is pinned to, misplaces every bit-field behind it. bindgen 0.73 is
//! right, so `ngx_http_request_t` is bound here a second time; `tests/layout.rs` compares the
//! result with C's. What `proxy_pass` keeps is bound with it, from nginx 1.29.4 on.

use std::env;
use std::path::PathBuf;

type Error = Box<dyn std::error::Error>;

const PROXY_HEADER: &str = "ngx_http_proxy_module.h";

fn main() -> Result<(), Error> {
    println!("cargo::rerun-if-changed=build.rs");
    for name in ["FEATURES", "INCLUDE", "CFLAGS", "VERSION_NUMBER"] {
        println!("cargo::rerun-if-env-changed=DEP_NGINX_{name}");
    }

    println!("cargo::rustc-check-cfg=cfg(ngx_feature, values(any()))");
    for feature in env::var("DEP_NGINX_FEATURES")?.split(',') {
        println!("cargo::rustc-cfg=ngx_feature=\"{feature}\"");
    }

    let mut clang_args = Vec::new();
    for directory in env::split_paths(&env::var_os("DEP_NGINX_INCLUDE").unwrap_or_default()) {
        clang_args.push(format!("-I{}", directory.display()));
    }
    let definitions = env::var("DEP_NGINX_CFLAGS").unwrap_or_default();
    clang_args.extend(definitions.split_whitespace().map(str::to_owned));
    println!("cargo::rustc-env=NGINX_C_ARGS={}", clang_args.join("\u{1f}"));

    // Where nginx asks upstreams over HTTP/2, it tells others how `proxy_pass` makes a URI.
    println!("cargo::rustc-check-cfg=cfg(proxy_header)");
    let include = env::var_os("DEP_NGINX_INCLUDE").unwrap_or_default();
    let mut headers =
        "#include <ngx_config.h>\n#include <ngx_core.h>\n#include <ngx_http.h>\n".to_owned();
    if env::split_paths(&include).any(|path| path.join(PROXY_HEADER).is_file()) {
        println!("cargo::rustc-cfg=proxy_header");
        headers.push_str(&format!("#include <{PROXY_HEADER}>\n"));
    }

    let out_dir = PathBuf::from(env::var("OUT_DIR")?);
    bindgen::Builder::default()
        .header_contents("request.h", &headers)
        .clang_args(clang_args)
        .allowlist_type("ngx_http_request_s")
        .allowlist_type("ngx_http_proxy_(ctx|loc_conf)_t")
        .layout_tests(false)
        .use_core()
        .generate()?
        .write_to_file(out_dir.join("request.rs"))?;
    Ok(())
}
