//! Bounded waiting.

use std::time::{Duration, Instant};

const STEP: Duration = Duration::from_millis(5);

/// Asks `condition` every few milliseconds until it holds, at most for `limit`.
///
/// Returns whether it held in the end.
pub fn until(limit: Duration, mut condition: impl FnMut() -> bool) -> bool {
    let start = Instant::now();
    loop {
        if condition() {
            return true;
        }
        if start.elapsed() > limit {
            return false;
        }
        std::thread::sleep(STEP);
    }
}

/// Waits at most ten seconds for `condition`.
///
/// # Panics
///
/// When it does not hold by then; `what` completes the sentence "timed out waiting for".
#[track_caller]
pub fn wait_for(what: &str, condition: impl FnMut() -> bool) {
    assert!(until(Duration::from_secs(10), condition), "timed out waiting for {what}");
}
