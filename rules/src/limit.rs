//! The forms in which a registry refuses with 429, as Docker Hub has them.

use crate::kind::Class;
use crate::syntax;

/// Of a longer body the rest is not looked at.
const MAX_BODY: usize = 4096;

/// What is limited.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Limit {
    /// Manifests of one account, or of the mirror's address: JSON of the code `TOOMANYREQUESTS`.
    Pull,
    /// All that comes from the mirror's address: plain text, such as
    /// `Too Many Requests (HAP429).`
    Abuse,
    /// Logins of one user name: nobody else's concern.
    Login,
}

impl Limit {
    /// Tells what a 429 means that answered a request of `class`. `body` may be cut or, as for
    /// `HEAD`, empty: then the content type is what there is. What tells nothing is taken for the
    /// limit that concerns fewer.
    pub fn of(class: Class, content_type: &[u8], body: &[u8]) -> Self {
        let body = body.get(..MAX_BODY).unwrap_or(body).trim_ascii();
        let says = |text: &[u8]| body.windows(text.len()).any(|w| w.eq_ignore_ascii_case(text));
        let is_text = || {
            syntax::strip_prefix_any_case(syntax::trim_ows(content_type), b"text/").is_some()
                || (content_type.is_empty() && !body.is_empty())
        };
        // JSON names accounts and repositories, which may be called anything.
        let is_json = body.first() == Some(&b'{');
        if !is_json && says(b"HAP429") {
            Self::Abuse
        } else if class == Class::Token || says(b"login attempts") {
            Self::Login
        } else if !is_json && is_text() {
            Self::Abuse
        } else {
            Self::Pull
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const JSON: &str = "application/json";
    const PULL: &str = r#"{"errors":[{"code":"TOOMANYREQUESTS","message":"You have reached your unauthenticated pull rate limit. https://www.docker.com/increase-rate-limit"}]}"#;
    const NAMED: &str = r#"{"errors":[{"code":"TOOMANYREQUESTS","message":"You have reached your pull rate limit as 'hap429'."}]}"#;
    const LOGIN: &str = r#"{"errors":[{"code":"TOOMANYREQUESTS","message":"too many failed login attempts for username or IP address"}]}"#;

    #[test]
    fn the_form_of_a_429_tells_what_is_limited() {
        use Class::{Blob, ManifestGet, ManifestHead, Token};
        let rows = [
            ("pull limit", ManifestGet, JSON, PULL, Limit::Pull),
            ("pull limit at HEAD", ManifestHead, JSON, "", Limit::Pull),
            ("pull limit called text", ManifestGet, "text/plain", PULL, Limit::Pull),
            ("pull limit of an account of any name", ManifestGet, JSON, NAMED, Limit::Pull),
            ("JSON behind white space", ManifestGet, "text/plain", "\r\n {}", Limit::Pull),
            ("of no type", ManifestGet, "", PULL, Limit::Pull),
            ("of nothing", ManifestGet, "", "", Limit::Pull),
            (
                "abuse limit",
                ManifestGet,
                "text/plain",
                "Too Many Requests (HAP429).\n",
                Limit::Abuse,
            ),
            ("abuse limit of a blob", Blob, "text/plain", "Too Many Requests", Limit::Abuse),
            ("abuse limit at HEAD", ManifestHead, "text/plain; charset=utf-8", "", Limit::Abuse),
            ("abuse limit of no type", Blob, "", "Too Many Requests", Limit::Abuse),
            ("abuse limit called JSON", ManifestGet, JSON, "too many (hap429)", Limit::Abuse),
            ("page of a firewall", ManifestGet, "Text/HTML", "<html>", Limit::Abuse),
            ("login limit", Token, JSON, LOGIN, Limit::Login),
            ("login limit in plain text", Token, "text/plain", "Too Many Requests", Limit::Login),
            ("login limit at the registry", ManifestGet, JSON, LOGIN, Limit::Login),
            ("abuse limit of tokens", Token, "text/plain", "(HAP429)", Limit::Abuse),
        ];

        for (name, class, content_type, body, want) in rows {
            assert_eq!(Limit::of(class, content_type.as_bytes(), body.as_bytes()), want, "{name}");
        }
    }

    #[test]
    fn only_the_beginning_of_a_body_counts() {
        let late = [b" ".repeat(MAX_BODY), b"HAP429".to_vec()].concat();
        assert_eq!(Limit::of(Class::ManifestGet, b"application/json", &late), Limit::Pull);
        assert_eq!(
            Limit::of(Class::ManifestGet, b"application/json", late.get(6..).unwrap()),
            Limit::Abuse
        );
    }
}
