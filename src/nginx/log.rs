//! nginx's log, at nginx's levels.

use core::fmt;

use nginx_sys::ngx_log_t;
use ngx::log::{LOG_BUFFER_SIZE, log_error, write_fmt};

/// nginx's levels; what each is for is in nginx's own modules.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Level {
    /// A broken invariant.
    Alert = nginx_sys::NGX_LOG_ALERT as isize,
    /// This request fails.
    Error = nginx_sys::NGX_LOG_ERR as isize,
    /// Something broke a rule, and we go on.
    Warn = nginx_sys::NGX_LOG_WARN as isize,
    /// Worth knowing, and rare.
    Notice = nginx_sys::NGX_LOG_NOTICE as isize,
    /// What happens in the normal course of things.
    Info = nginx_sys::NGX_LOG_INFO as isize,
    /// For who looks for a cause.
    Debug = nginx_sys::NGX_LOG_DEBUG as isize,
}

/// Writes a line to `log` if it wants this level.
///
/// # Safety
///
/// `log` is a live log of nginx.
pub(super) unsafe fn write(log: *mut ngx_log_t, level: Level, message: fmt::Arguments<'_>) {
    // SAFETY: the caller's promise; the buffer is ours.
    unsafe {
        if (*log).log_level < level as usize {
            return;
        }
        let mut buffer = [const { core::mem::MaybeUninit::<u8>::uninit() }; LOG_BUFFER_SIZE];
        log_error(level as usize, log, 0, write_fmt(&mut buffer, message));
    }
}

/// Writes a line to the log of the running configuration.
pub(crate) fn cycle(level: Level, message: fmt::Arguments<'_>) {
    // SAFETY: nginx creates its first cycle, and the cycle's log, before it loads any module.
    unsafe { write((*nginx_sys::ngx_cycle).log, level, message) }
}
