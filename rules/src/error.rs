//! The errors of a registry (OCI distribution-spec, "Error Codes"), in words for the person who
//! pulls.

use std::fmt::Write;

use crate::kind::{self, Kind};
use crate::syntax;

/// The longest reason phrase; the body has the message whole.
const MAX_REASON: usize = 400;

/// The most that all `Warning` fields of an answer may hold together.
const MAX_WARNINGS: usize = 4096;

/// The code of an error. `UNAVAILABLE` and `UNKNOWN` are not in the specification's table, but
/// every registry that descends from Docker's has them.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Code {
    /// `BLOB_UNKNOWN`: there is no such blob.
    BlobUnknown,
    /// `BLOB_UPLOAD_UNKNOWN`: there is no such upload.
    BlobUploadUnknown,
    /// `MANIFEST_UNKNOWN`: there is no such manifest.
    ManifestUnknown,
    /// `NAME_UNKNOWN`: there is no such repository.
    NameUnknown,
    /// `SIZE_INVALID`: the body is too large, or its length is not told.
    SizeInvalid,
    /// `UNAUTHORIZED`: credentials are needed.
    Unauthorized,
    /// `DENIED`: access is refused.
    Denied,
    /// `UNSUPPORTED`: there is no such operation.
    Unsupported,
    /// `TOOMANYREQUESTS`: a rate limit is exceeded.
    TooManyRequests,
    /// `NAME_INVALID`: no repository can have this name.
    NameInvalid,
    /// `UNAVAILABLE`: who should answer does not.
    Unavailable,
    /// `UNKNOWN`: anything else.
    Unknown,
}

impl Code {
    /// As it stands in the body.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::BlobUnknown => "BLOB_UNKNOWN",
            Self::BlobUploadUnknown => "BLOB_UPLOAD_UNKNOWN",
            Self::ManifestUnknown => "MANIFEST_UNKNOWN",
            Self::NameUnknown => "NAME_UNKNOWN",
            Self::SizeInvalid => "SIZE_INVALID",
            Self::Unauthorized => "UNAUTHORIZED",
            Self::Denied => "DENIED",
            Self::Unsupported => "UNSUPPORTED",
            Self::TooManyRequests => "TOOMANYREQUESTS",
            Self::NameInvalid => "NAME_INVALID",
            Self::Unavailable => "UNAVAILABLE",
            Self::Unknown => "UNKNOWN",
        }
    }

    /// The code for an answer of `status` to a request for `uri`.
    pub fn of(status: u16, uri: &[u8]) -> Self {
        match status {
            // nginx itself refuses a path with a NUL, which no name holds.
            400 if uri.windows(3).any(|escape| escape == b"%00") => Self::NameInvalid,
            401 => Self::Unauthorized,
            403 => Self::Denied,
            404 => match kind::Request::of(b"GET", uri).kind {
                Kind::Manifest => Self::ManifestUnknown,
                Kind::Blob => Self::BlobUnknown,
                Kind::Upload => Self::BlobUploadUnknown,
                Kind::Tags | Kind::Referrers => Self::NameUnknown,
                Kind::Ping | Kind::Token | Kind::Catalog | Kind::Other => Self::Unknown,
            },
            405 | 501 => Self::Unsupported,
            411 | 413 => Self::SizeInvalid,
            429 => Self::TooManyRequests,
            502..=504 => Self::Unavailable,
            _ => Self::Unknown,
        }
    }
}

/// What a status means that this server itself answers with.
pub fn own_message(status: u16) -> String {
    let text = match status {
        400 => "this mirror does not understand the request",
        401 => "this mirror wants credentials of its own",
        403 => "this mirror denies access",
        404 => "this mirror has nothing here",
        405 => "this mirror does not allow the method here",
        413 => "the body is larger than this mirror accepts",
        414 => "the URI is longer than this mirror accepts",
        429 => "too many requests to this mirror, try again later",
        500 => "this mirror has failed, its error log says why",
        502..=504 => "this mirror is not available now, try again later",
        _ => return format!("this mirror answers with status {status}"),
    };
    text.to_owned()
}

/// Who answers with this status is out of order, or who is behind it. 501 says that there is no such
/// thing there (RFC 9110, section 15.6.2), and nothing of what there is.
pub fn is_outage(status: u16) -> bool {
    matches!(status, 500 | 502..=599)
}

/// The words for a status that upstreams are known to answer with (RFC 9110, section 15).
pub fn phrase(status: u16) -> Option<&'static str> {
    Some(match status {
        400 => "Bad Request",
        401 => "Unauthorized",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        408 => "Request Timeout",
        410 => "Gone",
        416 => "Range Not Satisfiable",
        429 => "Too Many Requests",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        _ => return None,
    })
}

/// The status line of a 5xx, which tells `message` as its reason phrase (RFC 9112, section 4):
/// clients do not read the body of one, and print that line. `None` for any other status.
pub fn status_line(status: u16, message: &str) -> Option<String> {
    if !(500..=599).contains(&status) {
        return None;
    }
    let name = phrase(status).unwrap_or("Server Error");
    Some(format!("{status} {name} ({})", printable(message, MAX_REASON)))
}

/// The first `max` characters of a text, for a line of a header: those that are not printable ASCII
/// are question marks.
fn printable(text: &str, max: usize) -> String {
    text.chars().map(|char| if matches!(char, ' '..='~') { char } else { '?' }).take(max).collect()
}

/// The value of a `Warning` field (OCI distribution-spec, "Warnings"), which clients print. All
/// that an answer has must be short: `None` if `others` bytes are so many that none may be added.
pub fn warning(text: &str, others: usize) -> Option<String> {
    let mut value = String::from("299 - \"");
    let room = MAX_WARNINGS.checked_sub(others.checked_add(value.len() + 1)?)?;
    let quoted = printable(text, room);
    for char in quoted.chars() {
        let length = if matches!(char, '"' | '\\') { 2 } else { 1 };
        if value.len() + length + 1 + others > MAX_WARNINGS {
            break;
        }
        if length > 1 {
            value.push('\\');
        }
        value.push(char);
    }
    value.push('"');
    Some(value)
}

/// A body of this type is for a browser, or for the client of a storage service: HTML or XML.
pub fn is_markup(content_type: &[u8]) -> bool {
    let media_type = syntax::media_type(content_type).to_ascii_lowercase();
    matches!(media_type.as_slice(), b"text/html" | b"text/xml" | b"application/xml")
        || media_type.ends_with(b"+xml")
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
            (400, "", "UNKNOWN"),
            (400, "/v2/a%00/manifests/1", "NAME_INVALID"),
            (401, "", "UNAUTHORIZED"),
            (403, "", "DENIED"),
            (404, "/v2/library/x/manifests/latest", "MANIFEST_UNKNOWN"),
            (404, "/v2/library/x/blobs/sha256:0", "BLOB_UNKNOWN"),
            (404, "/v2/library/x/blobs/uploads/1", "BLOB_UPLOAD_UNKNOWN"),
            (404, "/v2/library/x/tags/list", "NAME_UNKNOWN"),
            (404, "/v2/library/x/referrers/sha256:0", "NAME_UNKNOWN"),
            (404, "/v2/", "UNKNOWN"),
            (404, "", "UNKNOWN"),
            (403, "/v2/library/x/manifests/latest", "DENIED"),
            (405, "", "UNSUPPORTED"),
            (411, "", "SIZE_INVALID"),
            (413, "", "SIZE_INVALID"),
            (414, "", "UNKNOWN"),
            (429, "", "TOOMANYREQUESTS"),
            (500, "", "UNKNOWN"),
            (501, "", "UNSUPPORTED"),
            (502, "", "UNAVAILABLE"),
            (503, "", "UNAVAILABLE"),
            (504, "", "UNAVAILABLE"),
            (599, "", "UNKNOWN"),
        ];

        for (status, path, want) in rows {
            assert_eq!(Code::of(status, path.as_bytes()).as_str(), want, "{status} {path}");
        }
    }

    #[test]
    fn a_status_line_is_one_line_of_printable_characters() {
        let long = "x".repeat(1000);
        let cut = format!("502 Bad Gateway ({})", "x".repeat(MAX_REASON));
        let rows = [
            ("plain", 502, "a: timed out", Some("502 Bad Gateway (a: timed out)")),
            ("500", 500, "a", Some("500 Internal Server Error (a)")),
            ("503", 503, "a", Some("503 Service Unavailable (a)")),
            ("504", 504, "a", Some("504 Gateway Timeout (a)")),
            ("another", 520, "a", Some("520 Server Error (a)")),
            ("a second line", 502, "a\r\nb: c", Some("502 Bad Gateway (a??b: c)")),
            ("beyond ASCII", 502, "\u{fc}\x7f", Some("502 Bad Gateway (??)")),
            ("too long", 502, long.as_str(), Some(cut.as_str())),
            ("no 5xx", 429, "a", None),
            ("no status", 600, "a", None),
        ];

        for (name, status, message, want) in rows {
            assert_eq!(status_line(status, message).as_deref(), want, "{name}");
        }
    }

    #[test]
    fn a_warning_is_a_quoted_string_of_bounded_length() {
        let full = "x".repeat(MAX_WARNINGS - 9);
        let quotes = "\"".repeat(MAX_WARNINGS);
        let rows = [
            ("plain", "a (b): c", 0, Some(r#"299 - "a (b): c""#.to_owned())),
            ("quote and backslash", r#"a "b" \c"#, 0, Some(r#"299 - "a \"b\" \\c""#.to_owned())),
            ("a second line", "a\r\nb: c", 0, Some(r#"299 - "a??b: c""#.to_owned())),
            ("beyond ASCII", "\u{fc}\x7f", 0, Some(r#"299 - "??""#.to_owned())),
            ("longest", &format!("{full}xy"), 1, Some(format!(r#"299 - "{full}""#))),
            ("room for one", "ab", MAX_WARNINGS - 9, Some(r#"299 - "a""#.to_owned())),
            ("no room for an escaped one", "\"", MAX_WARNINGS - 9, Some(r#"299 - """#.to_owned())),
            ("no room", "a", MAX_WARNINGS - 7, None),
            ("less than none", "a", usize::MAX, None),
        ];

        for (name, text, others, want) in rows {
            assert_eq!(warning(text, others), want, "{name}");
        }
        assert_eq!(warning(&quotes, 0).unwrap_or_default().len(), MAX_WARNINGS);
    }

    #[test]
    fn markup_is_known_by_its_type() {
        let rows = [
            ("text/html", true),
            ("Text/HTML; charset=utf-8", true),
            ("text/html ;charset=utf-8", true),
            ("application/xml", true),
            ("text/xml", true),
            ("application/xhtml+xml", true),
            ("application/json", false),
            ("application/vnd.oci.image.index.v1+json", false),
            ("text/plain", false),
            ("text/htmlx", false),
            ("", false),
            (";", false),
        ];

        for (content_type, want) in rows {
            assert_eq!(is_markup(content_type.as_bytes()), want, "{content_type}");
        }
    }
}
