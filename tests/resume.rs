//! `docker_resume`: a download that breaks off is finished from where it stopped.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test that cannot go on says so and stops"
)]

use std::sync::atomic::{AtomicU64, Ordering};

use support::{
    Answer, CLOUDFLARE, End, Hub, Nginx, NginxBuilder, REGISTRY, Reply, Shape, get, noise,
};

const MB: usize = 1 << 20;

/// A hub with one blob, and the blob's path.
fn hub(size: usize) -> (Hub, String, Vec<u8>) {
    let hub = Hub::start();
    hub.authentication(false);
    let blob = noise(7, size);
    let digest = hub.add_blob(blob.clone());
    (hub, format!("/v2/library/x/blobs/{digest}"), blob)
}

/// An nginx before the hub.
fn mirror(hub: &Hub) -> NginxBuilder {
    let private = hub.network();
    Nginx::builder()
        .allow_log("prematurely closed")
        .allow_log("timed out")
        .allow_log("recv() failed")
        .http(&hub.http_conf())
        .http(&format!(
            "log_format resumes '$uri $docker_resumes $docker_origin_host';
         proxy_connect_timeout 2s;
         docker_follow_redirect on private={private};"
        ))
}

fn start(hub: &Hub, directives: &str) -> Nginx {
    let location = format!("location / {{ {directives} proxy_pass https://{REGISTRY}; }}");
    mirror(hub).server(&location).start()
}

/// The first so many answers of `host` to a GET end after so many bytes.
fn cut(hub: &Hub, host: &str, times: u64, after: usize, end: End) {
    let left = AtomicU64::new(times);
    hub.route(host, move |request| {
        let is_first = || {
            left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1))
                .is_ok()
        };
        if request.method == "GET" && is_first() {
            Reply::Shaped(Shape::CutBody(after, end))
        } else {
            Reply::Normal
        }
    });
}

#[track_caller]
fn assert_whole(answer: &Answer, blob: &[u8], name: &str) {
    assert_eq!(answer.status, 200, "{name}");
    assert!(answer.complete, "{name}: {} bytes, {:?}", answer.body.len(), answer.problem);
    assert!(answer.body == blob, "{name}: {} bytes, of other content", answer.body.len());
}

#[test]
fn a_download_that_breaks_off_is_finished() {
    let (hub, path, blob) = hub(5 * MB);
    for (name, settings) in [
        ("buffered", "proxy_buffering on;"),
        ("unbuffered", "proxy_buffering off; proxy_buffer_size 64k; proxy_buffers 4 64k;"),
    ] {
        let nginx = start(&hub, &format!("docker_resume on; {settings}"));
        for (how, end) in
            [("close", End::Close), ("truncate", End::Truncate), ("reset", End::Reset)]
        {
            hub.off(CLOUDFLARE);
            cut(&hub, CLOUDFLARE, 4, MB, end);

            let answer = get(&nginx.url(&path)).send();

            assert_whole(&answer, &blob, &format!("{name}, {how}"));
        }
    }
}
