//! `docker_status`: the page of what was counted.

use core::ffi::CStr;
use std::collections::HashMap;

use nginx_sys::ngx_int_t;
use rules::breaker::Admit;
use rules::digest::Key;
use rules::kind::Kind;
use rules::metrics::{BUCKETS, CONTENT_TYPE, Page, series};

use crate::breaker;
use crate::conf::LocConf;
use crate::metrics::{BACKEND, FIRST_BYTE, SUM};
use crate::module::{self, Docker};
use crate::nginx::conf::{Conf, Directive, SetError};
use crate::nginx::request::Request;
use crate::nginx::shm::Zone;
use crate::nginx::{ERROR, now};

/// `docker_status`
pub(crate) struct Status;

impl Directive for Status {
    type Conf = LocConf;
    const NAME: &'static CStr = c"docker_status";

    fn set(conf: &mut LocConf, cf: Conf, _args: &[&str]) -> Result<(), SetError> {
        if conf.is_status {
            return Err(SetError::Duplicate);
        }
        conf.is_status = true;
        cf.main_conf::<Docker>().has_status = true;
        cf.answer_with(module::status);
        Ok(())
    }
}

/// Sends the page.
pub(crate) fn answer(r: Request<'_>) -> ngx_int_t {
    const NOT_ALLOWED: ngx_int_t = nginx_sys::NGX_HTTP_NOT_ALLOWED as ngx_int_t;
    if !r.is_get_or_head() {
        return NOT_ALLOWED;
    }
    if let Err(status) = r.discard_body() {
        return status;
    }
    let page = r.main_conf::<Docker>().zone().map(page).unwrap_or_default();
    if r.set_response(200, None, CONTENT_TYPE.as_bytes(), page.len()).is_err() {
        return ERROR;
    }
    r.send(page.as_bytes())
}

fn page(zone: Zone) -> String {
    let mut page = Page::default();
    let mut parts = HashMap::new();
    for (name, value) in zone.counters() {
        if name.starts_with('=') {
            parts.insert(name, value);
        } else {
            page.add(name, value);
        }
    }

    for kind in Kind::ALL.map(Kind::as_str) {
        let part = |part: &str| parts.get(&format!("{FIRST_BYTE}{kind} {part}")).copied();
        if let Some(sum) = part(SUM) {
            let buckets = (0..BUCKETS).map(|bucket| part(&bucket.to_string()).unwrap_or(0));
            page.add_first_byte(kind, &buckets.collect::<Vec<_>>(), sum);
        }
    }

    let [low, high] = BACKEND;
    for (part, first) in &parts {
        let Some(name) = part.strip_prefix(low) else { continue };
        let Some(second) = parts.get(&format!("{high}{name}")) else { continue };
        if (*first, *second) != (0, 0) {
            add_backend(&mut page, zone, name, Key([*first, *second]));
        }
    }

    let usage = zone.usage();
    page.add("docker_zone_locks_total".to_owned(), usage.locks);
    page.add("docker_zone_lock_waits_total".to_owned(), usage.waits);
    page.add("docker_zone_evictions_total".to_owned(), usage.evictions);
    page.add("docker_zone_free_bytes".to_owned(), usage.free);
    page.finish()
}

fn add_backend(page: &mut Page, zone: Zone, name: &str, key: Key) {
    let (breakers, quota) = breaker::look(zone, key);
    if let Some(remaining) = quota.remaining(now()) {
        let of = |name_of: &str| series(name_of, &[("backend", name)]);
        page.add(of("docker_ratelimit_remaining"), remaining.into());
        page.add(of("docker_ratelimit_limit"), quota.limit().into());
    }
    for (class, breaker) in breakers {
        let state = match breaker.state(now()) {
            Admit::Pass => 0,
            Admit::Probe => 1,
            Admit::Open(_) => 2,
        };
        page.add(series("docker_breaker_state", &[("backend", name), ("class", class)]), state);
    }
}
