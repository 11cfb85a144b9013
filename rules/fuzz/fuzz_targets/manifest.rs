//! What is kept is what its digest says, however it came; one at
//! a time fetches, and nobody waits for ever.
#![no_main]

use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use rules::digest::Digest;
use rules::manifest::{Capture, Described, Entry, Kept, Progress, Reference, Turn};

#[derive(Arbitrary, Debug)]
struct Input<'a> {
    status: u16,
    lines: Vec<(&'a [u8], &'a [u8])>,
    body: &'a [u8],
    media_type: &'a str,
    has_length: bool,
    is_lying: bool,
    piece: u8,
    max: u16,
    words: [u64; 5],
    steps: Vec<(u8, u16, bool)>,
}

fuzz_target!(|input: Input<'_>| {
    if let Some(described) = Described::read(input.status, input.lines.iter().copied()) {
        assert_eq!(input.status, 200);
        let digest = described.digest.to_string();
        let named = |name: &'static str| {
            let name = name.as_bytes();
            input.lines.iter().filter(move |(line, _)| line.eq_ignore_ascii_case(name))
        };
        assert_eq!(named("Docker-Content-Digest").count(), 1);
        assert!(named("Docker-Content-Digest").all(|(_, value)| *value == digest.as_bytes()));
        assert_eq!(named("Content-Type").count(), 1);
        assert!(described.is_for(&Reference::Digest(described.digest)));
    }
    kept(&input);
    let _ = Kept::read(input.body);
    locked(&input);
});

fn kept(input: &Input<'_>) {
    let digest = Digest::of(input.body);
    let said = if input.is_lying { Digest::of(&digest.as_bytes()[..]) } else { digest };
    let length = input.has_length.then_some(input.body.len() as u64);
    let length_text = input.body.len().to_string();
    let said_text = said.to_string();
    let mut lines = vec![
        (&b"Docker-Content-Digest"[..], said_text.as_bytes()),
        (b"Content-Type", input.media_type.as_bytes()),
    ];
    if input.has_length {
        lines.push((b"Content-Length", length_text.as_bytes()));
    }
    let Some(described) = Described::read(200, lines.into_iter()) else { return };
    assert_eq!(described.length, length);
    let max = usize::from(input.max);
    let Some(mut capture) = Capture::new(&described, max) else {
        assert!(input.body.len() > max);
        return;
    };

    let mut progress = capture.take(b"");
    for piece in input.body.chunks(usize::from(input.piece).max(1)) {
        if progress == Progress::Partial {
            progress = capture.take(piece);
        }
    }
    if progress == Progress::Whole {
        let kept = Kept::read(capture.bytes()).expect("what was kept");
        assert_eq!(Digest::of(kept.body), said);
        assert!(kept.body.len() <= max && input.body.starts_with(kept.body));
        let head = Described { length: Some(kept.body.len() as u64), ..described };
        assert!(head.grants(&kept));
    } else {
        assert!(input.is_lying || input.body.len() > max);
    }
}

fn locked(input: &Input<'_>) {
    assert_eq!(Entry::from(input.words).words(), input.words);
    let mut entry = Entry::default();
    let mut waits = [None; 256];
    let (mut leader, mut since, mut now) = (None, 0, 0);
    for &(me, later, ends) in &input.steps {
        now += u64::from(later);
        let id = u64::from(me) + 1;
        if ends {
            entry.end(id, None);
            if leader == Some(id) {
                leader = None;
            }
            continue;
        }
        let wait = &mut waits[usize::from(me)];
        match entry.turn(id, *wait, now) {
            Turn::Lead => {
                assert!(leader.is_none() || now >= since + 5_000);
                (leader, since) = (Some(id), now);
                *wait = None;
            }
            Turn::Wait(next) => {
                assert_eq!(Some(next.leader), leader);
                assert!(now < since + 5_000 && now < next.since + 10_000);
                *wait = Some(next);
            }
            Turn::Alone => *wait = None,
        }
    }
}
