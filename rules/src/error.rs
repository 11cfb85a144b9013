//! The registry's JSON error body (OCI distribution-spec, "Error Codes").

use std::fmt::Write;

/// The code of an error. `UNAVAILABLE` and `UNKNOWN` are not in the specification's table, but
/// every registry that descends from Docker's has them.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Code {
    /// `UNAUTHORIZED`: credentials are needed.
    Unauthorized,
    /// `DENIED`: access is refused.
    Denied,
    /// `UNSUPPORTED`: there is no such operation.
    Unsupported,
    /// `TOOMANYREQUESTS`: a rate limit is exceeded.
    TooManyRequests,
    /// `UNAVAILABLE`: who should answer does not.
    Unavailable,
    /// `UNKNOWN`: anything else.
    Unknown,
}

impl Code {
    /// As it stands in the body.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unauthorized => "UNAUTHORIZED",
            Self::Denied => "DENIED",
            Self::Unsupported => "UNSUPPORTED",
            Self::TooManyRequests => "TOOMANYREQUESTS",
            Self::Unavailable => "UNAVAILABLE",
            Self::Unknown => "UNKNOWN",
        }
    }
}

/// The code for an answer of this status.
pub fn code_for(status: u16) -> Code {
    match status {
        401 => Code::Unauthorized,
        403 => Code::Denied,
        405 => Code::Unsupported,
        429 => Code::TooManyRequests,
        502..=504 => Code::Unavailable,
        _ => Code::Unknown,
    }
}

/// The body of an answer of type `application/json`, with a line feed at its end.
pub fn body(code: Code, message: &str) -> String {
    let mut body = format!(r#"{{"errors":[{{"code":"{}","message":""#, code.as_str());
    for char in message.chars() {
        match char {
            '"' | '\\' => body.extend(['\\', char]),
            '\0'..='\x1f' => {
                // Writing to a string does not fail.
                let _ = write!(body, "\\u{:04x}", u32::from(char));
            }
            _ => body.push(char),
        }
    }
    body.push_str("\"}]}\n");
    body
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_is_json_whatever_the_message() {
        let rows = [
            ("plain", "a", "a"),
            ("empty", "", ""),
            ("quote and backslash", r#"a "b" \c"#, r#"a \"b\" \\c"#),
            ("control characters", "a\n\t\0\x1f", r"a\u000a\u0009\u0000\u001f"),
            ("DEL and beyond ASCII", "\x7f\u{fc}\u{1f433}", "\x7f\u{fc}\u{1f433}"),
        ];

        for (name, message, escaped) in rows {
            let want = format!(
                "{{\"errors\":[{{\"code\":\"UNAVAILABLE\",\"message\":\"{escaped}\"}}]}}\n"
            );
            assert_eq!(body(Code::Unavailable, message), want, "{name}");
        }
    }

    #[test]
    fn statuses_have_codes() {
        let rows = [
            (401, "UNAUTHORIZED"),
            (403, "DENIED"),
            (404, "UNKNOWN"),
            (405, "UNSUPPORTED"),
            (429, "TOOMANYREQUESTS"),
            (500, "UNKNOWN"),
            (502, "UNAVAILABLE"),
            (503, "UNAVAILABLE"),
            (504, "UNAVAILABLE"),
        ];

        for (status, want) in rows {
            assert_eq!(code_for(status).as_str(), want, "{status}");
        }
    }
}
