//! Whatever lies in the shared memory, and whatever is reported: a backend is asked again after a
//! bounded time, by one request at a time, and what is written is read back.
#![no_main]

use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use rules::breaker::{Admit, Breaker, PROBE, Quota, Records, Settings, Way, decide};
use rules::kind::Class;
use rules::rate_limit::RateLimit;

#[derive(Arbitrary, Debug)]
enum Event {
    Pass(u16),
    Ask { class: usize, reserve: u32 },
    Succeeded { ago: u16 },
    Failed { ago: u16 },
    Limited { delay: u16 },
    Learned { requests: u32, window: u32 },
}

#[derive(Arbitrary, Debug)]
struct Input {
    words: [[u64; 4]; 4],
    now: u64,
    failures: u32,
    backoff: u16,
    max_backoff: u16,
    events: Vec<Event>,
}

fuzz_target!(|input: Input| {
    let settings = Settings {
        failures: input.failures % 5 + 1,
        backoff: input.backoff.into(),
        max_backoff: input.max_backoff.into(),
        ..Settings::default()
    };
    // Memory of any content must not panic; times are of the clock, so what follows is of one that
    // began empty.
    let [backend, class, owner, quota] = input.words;
    let mut wild = Records {
        backend: Breaker::from(backend),
        class: Breaker::from(class),
        owner: Breaker::from(owner),
        quota: Quota::from(quota),
    };
    run(&mut wild, input.now, &settings, &input.events);

    let mut records = Records::default();
    let now = run(&mut records, input.now >> 1, &settings, &input.events);
    let later = now + u64::from(u16::MAX).max(PROBE);
    assert_eq!(Breaker::from(records.backend.words()), records.backend);
    assert_eq!(Quota::from(records.quota.words()), records.quota);
    // Longer than any delay above: one may ask, and if it was a probe, nobody else.
    let way = decide(&mut records, Class::Other, 0, later);
    assert!(matches!(way, Way::Ask | Way::Probe));
    let next = decide(&mut records, Class::Other, 0, later);
    assert_eq!(way == Way::Probe, matches!(next, Way::PassBy(_)));
    records.backend.succeeded(later);
    records.class.succeeded(later);
    assert_eq!(decide(&mut records, Class::Other, 0, later), Way::Ask);
});

fn run(records: &mut Records, mut now: u64, settings: &Settings, events: &[Event]) -> u64 {
    for event in events {
        match *event {
            Event::Pass(time) => now = now.saturating_add(time.into()),
            Event::Ask { class, reserve } => {
                let before = *records;
                let class = Class::ALL[class % Class::ALL.len()];
                if let Way::PassBy(_) = decide(records, class, reserve, now) {
                    assert_eq!(*records, before);
                }
            }
            Event::Succeeded { ago } => {
                records.backend.succeeded(now.saturating_sub(ago.into()));
                records.class.succeeded(now.saturating_sub(ago.into()));
            }
            Event::Failed { ago } => {
                records.class.failed(now.saturating_sub(ago.into()), now, settings);
            }
            Event::Limited { delay } => {
                records.backend.limited(now, delay.into());
                assert!(delay == 0 || now == u64::MAX || records.backend.state(now) != Admit::Pass);
            }
            Event::Learned { requests, window } => {
                records.quota.learn(now, None, RateLimit { requests, window });
            }
        }
    }
    now
}
