//! Parameters may come in any order; what is accepted is within its bounds; what is refused is one
//! of the arguments.
#![no_main]

use libfuzzer_sys::fuzz_target;
use rules::directive::{
    ArgError, MAX_ATTEMPTS, Realm, breaker, errors, fallback, fallback_on, fallback_reserve,
    follow_redirect, keepalive, manifest_cache, push, realm_rewrite, registry, resume, token_key,
    verify, zone,
};

fuzz_target!(|text: &str| {
    let args: Vec<&str> = text.split_whitespace().collect();
    let reversed: Vec<&str> = args.iter().rev().copied().collect();

    let policy = checked(&args, follow_redirect(&args));
    let other = checked(&args, follow_redirect(&reversed));
    assert_eq!(policy.is_some(), other.is_some());
    if let (Some(Some(policy)), Some(Some(other))) = (policy, other) {
        assert!((1..=MAX_ATTEMPTS).contains(&usize::from(policy.hops)));
        assert_eq!((policy.hops, policy.verify), (other.hops, other.verify));
        assert_eq!(policy.allow.len(), other.allow.len());
        assert_eq!(policy.private.iter().rev().copied().collect::<Vec<_>>(), other.private);
    }

    let targets = checked(&args, fallback(&args));
    let other = checked(&args, fallback(&reversed));
    if let Some(Some(targets)) = &targets {
        assert!((1..=MAX_ATTEMPTS).contains(&targets.len()));
        assert!(targets.iter().all(|target| target.url("/x").uri.ends_with("/x")));
    }
    let other = other.map(|targets| targets.map(|targets| targets.into_iter().rev().collect()));
    assert_eq!(targets, other);

    let conditions = checked(&args, fallback_on(&args));
    let other = checked(&args, fallback_on(&reversed));
    assert_eq!(conditions.is_some(), other.is_some());
    if let (Some(conditions), Some(other)) = (conditions, other) {
        assert!(conditions.statuses().all(|status| (400..600).contains(&status)));
        assert_eq!(conditions.statuses().count(), other.statuses().count());
    }

    let kept = checked(&args, keepalive(&args));
    assert_eq!(kept, checked(&args, keepalive(&reversed)));
    assert!(kept.is_none_or(|kept| kept.timeout > 0 && kept.time > 0 && kept.requests > 0));

    if let Some((name, params)) = args.split_first() {
        let declared = checked(&args, registry(&args));
        let mut other = vec![*name];
        other.extend(params.iter().rev());
        let other = checked(&args, registry(&other));
        assert_eq!(declared.is_some(), other.is_some());
        if let (Some(declared), Some(other)) = (declared, other) {
            assert_eq!(declared.origin, other.origin);
            assert_eq!(declared.realms.len(), other.realms.len());
            assert!(declared.realms.iter().all(|realm| declared.trusts(realm)));
        }
    }
    let settings = checked(&args, breaker(&args));
    assert_eq!(settings, checked(&args, breaker(&reversed)));
    if let Some(Some(settings)) = settings {
        assert!((1..=1000).contains(&settings.failures));
        assert!((1..=settings.max_backoff).contains(&settings.backoff));
        assert!((1..=settings.max_retry_after).contains(&settings.retry_after));
    }
    let _ = checked(&args, fallback_reserve(&args));
    for switch in [errors, verify, push] {
        assert_eq!(checked(&args, switch(&args)).is_some(), matches!(args[..], ["on"] | ["off"]));
    }
    assert_eq!(checked(&args, token_key(&args)).is_some(), args.len() == 1);
    if let Some((name, size)) = checked(&args, zone(&args, 32 << 10)) {
        assert!(args[0].starts_with(&format!("{name}:")) && (32 << 10..=1 << 40).contains(&size));
    }

    let resumed = checked(&args, resume(&args));
    assert_eq!(resumed, checked(&args, resume(&reversed)));
    assert!(resumed.flatten().is_none_or(|resume| resume.tries > 0 && resume.stall > 0));

    let cache = checked(&args, manifest_cache(&args));
    assert_eq!(cache, checked(&args, manifest_cache(&reversed)));
    if let Some(Some(cache)) = cache {
        assert!(!cache.zone.is_empty() && (1..=16 << 20).contains(&cache.max));
        assert!(cache.stale.is_none_or(|time| time > 0));
    }

    if let Some(Realm::Url(url)) = checked(&args, realm_rewrite(&args)) {
        assert_eq!(args, [url]);
    }
});

fn checked<T>(args: &[&str], result: Result<T, ArgError>) -> Option<T> {
    match result {
        Ok(value) => Some(value),
        Err(error) => {
            assert!(args.contains(&error.value.as_str()) || args.is_empty());
            assert!(!error.allowed.is_empty() && !error.to_string().contains('\n'));
            None
        }
    }
}
