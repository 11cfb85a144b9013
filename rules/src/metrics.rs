//! The status page: Prometheus' text format, version 0.0.4.

use std::fmt::Write;

/// The type of the page.
pub const CONTENT_TYPE: &str = "text/plain; version=0.0.4; charset=utf-8";

/// No host or backend of a registry has a longer name.
const MAX_LABEL: usize = 128;

/// The value of a label that stands for all that are not told apart.
pub const OTHER: &str = "other";

/// All metrics: name, type, and what they count.
const FAMILIES: [(&str, &str, &str); 20] = [
    (
        "docker_requests_total",
        "counter",
        "Requests of clients, by what they ask for and by who answered.",
    ),
    (
        "docker_body_bytes_total",
        "counter",
        "Bytes of bodies sent to clients, by what they ask for and by who answered.",
    ),
    (FIRST_BYTE, "histogram", "Time until the answer to a client begins, by what it asks for."),
    (
        "docker_upstream_requests_total",
        "counter",
        "Requests made to backends, where redirects lead not included.",
    ),
    ("docker_redirects_total", "counter", "Redirects followed, by the host they lead to."),
    ("docker_redirects_refused_total", "counter", "Redirects not followed, by the reason."),
    (
        "docker_fallbacks_total",
        "counter",
        "Requests that left their first upstream, by the reason.",
    ),
    (
        "docker_manifest_cache_total",
        "counter",
        "Manifests asked for where they are kept in memory, by the result.",
    ),
    (
        "docker_manifest_gets_saved_total",
        "counter",
        "GETs of manifests that a registry would have counted, and was not asked for.",
    ),
    (
        "docker_resumes_total",
        "counter",
        "Requests for the rest of a download that broke off, by the result.",
    ),
    (
        "docker_connections_opened_total",
        "counter",
        "New connections that brought an answer, by what they were opened for.",
    ),
    (
        "docker_connections_resumed_total",
        "counter",
        "New connections with a resumed TLS session, of those that were opened.",
    ),
    ("docker_connections_reused_total", "counter", "Answers over connections that were kept open."),
    (
        "docker_breaker_state",
        "gauge",
        "0: closed, requests are made; 1: half-open, one may try; 2: open, requests go elsewhere.",
    ),
    (
        "docker_ratelimit_limit",
        "gauge",
        "Pulls in a window, as the backend said to anonymous ones.",
    ),
    (
        "docker_ratelimit_remaining",
        "gauge",
        "Pulls left, as the backend said last to anonymous ones.",
    ),
    ("docker_zone_locks_total", "counter", "Times that the zone was locked."),
    ("docker_zone_lock_waits_total", "counter", "Times that a worker waited for another's lock."),
    ("docker_zone_evictions_total", "counter", "What the zone forgot for lack of room."),
    ("docker_zone_free_bytes", "gauge", "Pages of the zone that hold nothing."),
];

const FIRST_BYTE: &str = "docker_first_byte_seconds";

/// The upper bounds of the histogram's buckets, in milliseconds and as they are written; what is
/// longer is in a last one.
const BOUNDS: [(u64, &str); BUCKETS - 1] = [
    (1, "0.001"),
    (5, "0.005"),
    (10, "0.01"),
    (25, "0.025"),
    (50, "0.05"),
    (100, "0.1"),
    (250, "0.25"),
    (500, "0.5"),
    (1000, "1"),
    (2500, "2.5"),
    (5000, "5"),
    (10_000, "10"),
    (30_000, "30"),
];

/// The histogram's buckets.
pub const BUCKETS: usize = 14;

/// The bucket of a time in milliseconds.
pub fn bucket(milliseconds: u64) -> usize {
    BOUNDS.iter().position(|(bound, _)| milliseconds <= *bound).unwrap_or(BUCKETS - 1)
}

/// The value may stand in a label: it is short, and nothing in it needs an escape.
pub fn is_label(value: &str) -> bool {
    let is_plain = |byte| matches!(byte, b' '..=b'~') && !matches!(byte, b'"' | b'\\');
    value.len() <= MAX_LABEL && value.bytes().all(is_plain)
}

/// A sample's name and its labels, as they are written. What is no label's value ([`is_label`]) is
/// [`OTHER`].
pub fn series(name: &str, labels: &[(&str, &str)]) -> String {
    let mut out = name.to_owned();
    let mut before = '{';
    for (label, value) in labels {
        let value = if is_label(value) { value } else { OTHER };
        // Writing to a string does not fail.
        let _ = write!(out, "{before}{label}=\"{value}\"");
        before = ',';
    }
    if before == ',' {
        out.push('}');
    }
    out
}

/// The samples of a page.
#[derive(Default)]
pub struct Page(Vec<(String, String)>);

impl Page {
    /// A sample, by its [`series`]. What is none of the page's metrics is not on it.
    pub fn add(&mut self, series: String, value: u64) {
        self.0.push((series, value.to_string()));
    }

    /// How long answers to requests of `kind` took to begin: how many were in each bucket, and the
    /// sum of all in milliseconds.
    pub fn add_first_byte(&mut self, kind: &str, buckets: &[u64], sum: u64) {
        let kind = ("kind", kind);
        let mut total: u64 = 0;
        let bounds = BOUNDS.iter().map(|(_, text)| *text).chain(["+Inf"]);
        for (bound, count) in bounds.zip(buckets) {
            total = total.saturating_add(*count);
            let name = format!("{FIRST_BYTE}_bucket");
            self.add(series(&name, &[kind, ("le", bound)]), total);
        }
        let sum = format!("{}.{:03}", sum / 1000, sum % 1000);
        self.0.push((series(&format!("{FIRST_BYTE}_sum"), &[kind]), sum));
        self.add(series(&format!("{FIRST_BYTE}_count"), &[kind]), total);
    }

    /// The text of the page.
    pub fn finish(mut self) -> String {
        // Series come in the order in which they were first counted, which differs from page to
        // page; but the parts of a histogram stay as they are.
        self.0.sort_by(|(one, _), (other, _)| {
            let name =
                |series: &str| series.split_once(",le=").map_or(series, |(name, _)| name).len();
            one.get(..name(one)).cmp(&other.get(..name(other)))
        });
        let mut out = String::new();
        for (family, kind, help) in FAMILIES {
            let is_of_family = |(series, _): &&(String, String)| {
                let name = series.split('{').next().unwrap_or_default();
                let rest = name.strip_prefix(family);
                rest == Some("")
                    || (kind == "histogram" && matches!(rest, Some("_bucket" | "_sum" | "_count")))
            };
            let mut samples = self.0.iter().filter(is_of_family).peekable();
            if samples.peek().is_none() {
                continue;
            }
            // Writing to a string does not fail.
            let _ = writeln!(out, "# HELP {family} {help}\n# TYPE {family} {kind}");
            for (series, value) in samples {
                let _ = writeln!(out, "{series} {value}");
            }
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_plain_and_bounded() {
        let long = "a".repeat(MAX_LABEL + 1);
        type Row<'r> = (&'r str, &'r [(&'r str, &'r str)], &'r str);
        let rows: [Row<'_>; 9] = [
            ("none", &[], "x"),
            ("one", &[("a", "b")], "x{a=\"b\"}"),
            ("two", &[("a", "b"), ("c", "")], "x{a=\"b\",c=\"\"}"),
            ("no escapes", &[("a", "{} ~,=")], "x{a=\"{} ~,=\"}"),
            ("a quote", &[("a", "\"")], "x{a=\"other\"}"),
            ("a backslash", &[("a", "b\\")], "x{a=\"other\"}"),
            ("a new line", &[("a", "\n")], "x{a=\"other\"}"),
            ("no ASCII", &[("a", "é")], "x{a=\"other\"}"),
            ("long", &[("a", &long)], "x{a=\"other\"}"),
        ];

        for (name, labels, want) in rows {
            assert_eq!(series("x", labels), want, "{name}");
        }
    }

    #[test]
    fn every_time_has_a_bucket() {
        let rows =
            [(0, 0), (1, 0), (2, 1), (5, 1), (6, 2), (30_000, 12), (30_001, 13), (u64::MAX, 13)];
        for (milliseconds, want) in rows {
            assert_eq!(bucket(milliseconds), want, "{milliseconds}");
        }
    }

    #[test]
    fn a_page_has_its_metrics_in_order_and_no_others() {
        let mut page = Page::default();
        page.add("docker_redirects_total{host=\"b\"}".to_owned(), 2);
        page.add("=hidden".to_owned(), 3);
        page.add("docker_requests_total".to_owned(), u64::MAX);
        page.add("docker_redirects_total{host=\"a\"}".to_owned(), 1);
        page.add("docker_requests_total_more".to_owned(), 4);
        let lines: Vec<String> = page.finish().lines().map(str::to_owned).collect();
        assert_eq!(
            lines,
            [
                "# HELP docker_requests_total Requests of clients, by what they ask for and by who \
             answered.",
                "# TYPE docker_requests_total counter",
                "docker_requests_total 18446744073709551615",
                "# HELP docker_redirects_total Redirects followed, by the host they lead to.",
                "# TYPE docker_redirects_total counter",
                "docker_redirects_total{host=\"a\"} 1",
                "docker_redirects_total{host=\"b\"} 2",
            ]
        );
    }

    #[test]
    fn buckets_are_cumulative() {
        let mut page = Page::default();
        let mut buckets = [0; BUCKETS];
        buckets[1] = 2;
        buckets[13] = 1;
        page.add_first_byte("ping", &buckets, 61_007);
        page.add_first_byte("blob", &[0; BUCKETS], 0);
        let text = page.finish();
        let of = |what: &str| {
            text.lines().filter(|line| line.contains(what)).map(str::to_owned).collect::<Vec<_>>()
        };
        let ping = of("_bucket{kind=\"ping\"");
        assert_eq!(ping.len(), BUCKETS);
        assert_eq!(ping[0], "docker_first_byte_seconds_bucket{kind=\"ping\",le=\"0.001\"} 0");
        assert_eq!(ping[1], "docker_first_byte_seconds_bucket{kind=\"ping\",le=\"0.005\"} 2");
        assert_eq!(ping[12], "docker_first_byte_seconds_bucket{kind=\"ping\",le=\"30\"} 2");
        assert_eq!(ping[13], "docker_first_byte_seconds_bucket{kind=\"ping\",le=\"+Inf\"} 3");
        assert_eq!(
            of("_sum{kind=\"ping\"}"),
            ["docker_first_byte_seconds_sum{kind=\"ping\"} 61.007"]
        );
        assert_eq!(
            of("_count{kind=\"ping\"}"),
            ["docker_first_byte_seconds_count{kind=\"ping\"} 3"]
        );
        assert_eq!(of("# TYPE"), ["# TYPE docker_first_byte_seconds histogram"]);
    }
}
