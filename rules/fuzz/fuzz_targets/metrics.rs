//! Whatever a label's value is, a sample is one line that Prometheus can read; the buckets of a
//! histogram only grow.
#![no_main]

use libfuzzer_sys::fuzz_target;
use rules::metrics::{BUCKETS, Page, bucket, is_label, series};

fuzz_target!(|input: (&str, &str, u64, [u8; 4])| {
    let (host, kind, number, times) = input;
    let name = series("docker_redirects_total", &[("host", host)]);
    assert!(name.len() < 224);
    let shown = if is_label(host) { host } else { "other" };
    assert_eq!(name, format!("docker_redirects_total{{host=\"{shown}\"}}"));

    assert!(bucket(number) < BUCKETS);
    let mut buckets = [0; BUCKETS];
    for time in times {
        buckets[bucket(u64::from(time) * 100)] += 1;
    }
    let mut page = Page::default();
    page.add(name.clone(), number);
    page.add_first_byte(kind, &buckets, number);
    let text = page.finish();
    assert!(text.is_ascii() && text.ends_with('\n'));
    assert!(text.lines().any(|line| line == format!("{name} {number}")));
    let mut last = 0;
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        assert_eq!(line.matches('"').count() % 2, 0);
        let (series, value) = line.rsplit_once(' ').expect("a value");
        if series.starts_with("docker_first_byte_seconds_bucket{") {
            let value = value.parse::<u64>().expect("a number");
            assert!(value >= last);
            last = value;
        }
    }
    assert_eq!(last, times.len() as u64);
});
