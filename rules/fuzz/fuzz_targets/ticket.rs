//! A ticket that was changed anywhere is none, and there is one way to write each.
#![no_main]

use libfuzzer_sys::fuzz_target;
use rules::ticket::{Key, Ticket};

fuzz_target!(|data: (&str, &str, Option<&str>, usize, u8)| {
    let (registry, realm, service, at, byte) = data;
    let key = Key::new([7; Key::LENGTH]);
    let field = |text: &str| text.replace('\n', "");
    let ticket = Ticket::Realm {
        registry: field(registry),
        realm: field(realm),
        service: service.map(field),
        for_all: byte % 2 == 0,
    };
    let text = ticket.seal(&key);
    assert_eq!(Ticket::open(&text, &key), Some(ticket));
    assert_eq!(Ticket::open(&text, &Key::new([8; Key::LENGTH])), None);

    let mut changed = text.clone().into_bytes();
    let at = at % (changed.len() + 1);
    match changed.get_mut(at) {
        Some(old) if *old != byte => *old = byte,
        Some(_) => drop(changed.remove(at)),
        None => changed.push(byte),
    }
    if let Ok(changed) = str::from_utf8(&changed) {
        assert_eq!(Ticket::open(changed, &key), None);
    }
    for made_up in [registry, realm, &text[..at.min(text.len())]] {
        // The fuzzer sees what a MAC is compared with, and makes up what no client can: that, too,
        // is what `seal` would write, byte for byte.
        let opened = Ticket::open(made_up, &key);
        assert!(opened.is_none_or(|ticket| ticket.seal(&key) == made_up));
    }
    assert!(Key::parse(registry.as_bytes()).is_none() || registry.trim().len() == 64);
});
