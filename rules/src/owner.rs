//! Whose quota a request uses.

use base64::Engine as _;
use base64::alphabet::{STANDARD, URL_SAFE};
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use serde::Deserialize;

use crate::digest::Key;
use crate::syntax;

/// A token that is longer is not looked into; nginx takes no longer line by default.
const MAX_TOKEN: usize = 8192;

const LENIENT: GeneralPurposeConfig =
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
const BASE64URL: GeneralPurpose = GeneralPurpose::new(&URL_SAFE, LENIENT);
const BASE64: GeneralPurpose = GeneralPurpose::new(&STANDARD, LENIENT);

/// Who is counted when a registry counts. Nothing of the credentials can be read back from it.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Owner {
    /// The address of the mirror.
    Anonymous,
    /// An account.
    Account(Key),
}

#[derive(Deserialize)]
struct Claims {
    #[serde(default)]
    sub: Option<String>,
}

impl Owner {
    /// Reads the value of an `Authorization` header.
    ///
    /// A token that is a JWT (RFC 7519) belongs to its subject, and one without a subject, or with
    /// an empty one, as Docker Hub gives to anybody, is anonymous. Its signature is not checked:
    /// anybody can claim to be anybody, so what is recorded of an owner must come from an answer to
    /// that very token. Any other token stands for itself, and a user's password for the user.
    pub fn of(authorization: Option<&[u8]>) -> Self {
        let Some(value) = authorization.map(syntax::trim_ows) else { return Self::Anonymous };
        if let Some(token) = of_scheme(value, b"Bearer") {
            return match claims(token).map(|claims| claims.sub.unwrap_or_default()) {
                Some(subject) if subject.is_empty() => Self::Anonymous,
                Some(subject) => Self::account(b"sub", subject.as_bytes()),
                None => Self::account(b"token", token),
            };
        }
        let user = of_scheme(value, b"Basic").and_then(user);
        match user {
            Some(user) => Self::account(b"user", &user),
            None => Self::account(b"other", value),
        }
    }

    /// Reads the value of an `Authorization` header: a token that was given to nobody in particular,
    /// as Docker Hub gives them, whose subject is there and empty. One without a subject may be of
    /// somebody all the same, as a deploy token of GitLab's is.
    pub fn is_nobodys(authorization: &[u8]) -> bool {
        let claims = of_scheme(syntax::trim_ows(authorization), b"Bearer").and_then(claims);
        claims.is_some_and(|claims| claims.sub.is_some_and(|subject| subject.is_empty()))
    }

    fn account(what: &[u8], name: &[u8]) -> Self {
        Self::Account(Key::of(&[b"owner", what, name]))
    }
}

/// The credentials in an `Authorization` of this scheme.
fn of_scheme<'a>(authorization: &'a [u8], scheme: &[u8]) -> Option<&'a [u8]> {
    let rest = syntax::strip_prefix_any_case(authorization, scheme)?;
    rest.strip_prefix(b" ").map(<[u8]>::trim_ascii_start)
}

/// What a JWT claims; `None` if this is no JWT.
fn claims(token: &[u8]) -> Option<Claims> {
    if token.len() > MAX_TOKEN {
        return None;
    }
    let mut parts = token.split(|byte| *byte == b'.');
    let (Some(_), Some(payload), Some(_), None) =
        (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return None;
    };
    let payload = BASE64URL.decode(payload).ok()?;
    serde_json::from_slice(&payload).ok()
}

/// The user of `Basic` credentials (RFC 7617).
fn user(credentials: &[u8]) -> Option<Vec<u8>> {
    let mut user = BASE64.decode(credentials.get(..MAX_TOKEN).unwrap_or(credentials)).ok()?;
    let colon = user.iter().position(|byte| *byte == b':')?;
    user.truncate(colon);
    Some(user)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn jwt(claims: &str) -> String {
        format!("Bearer {}.{}.c2ln", BASE64URL.encode("{}"), BASE64URL.encode(claims))
    }

    fn owner(value: &str) -> Owner {
        Owner::of(Some(value.as_bytes()))
    }

    #[test]
    fn who_has_no_subject_is_anonymous() {
        assert_eq!(Owner::of(None), Owner::Anonymous);
        let rows = [
            ("Docker Hub's", r#"{"access":[{"type":"repository","actions":["pull"]}],"sub":""}"#),
            ("no subject", r#"{"iss":"auth.docker.io"}"#),
            ("null", r#"{"sub":null}"#),
            ("subject within another claim", r#"{"act":{"sub":"alice"}}"#),
        ];
        for (name, claims) in rows {
            assert_eq!(owner(&jwt(claims)), Owner::Anonymous, "{name}");
        }
    }

    #[test]
    fn nobodys_token_says_so() {
        let rows = [
            ("Docker Hub's", jwt(r#"{"sub":""}"#), true),
            ("another case", jwt(r#"{"sub":""}"#).replace("Bearer ", "bEARER   "), true),
            ("no subject", jwt(r#"{"iss":"gitlab"}"#), false),
            ("null", jwt(r#"{"sub":null}"#), false),
            ("a subject", jwt(r#"{"sub":"alice"}"#), false),
            ("no JWT", "Bearer opaque".to_owned(), false),
            ("Basic", "Basic YTpi".to_owned(), false),
            ("nothing", String::new(), false),
        ];
        for (name, value, want) in rows {
            assert_eq!(Owner::is_nobodys(value.as_bytes()), want, "{name}");
        }
    }

    #[test]
    fn all_tokens_of_a_subject_are_its_own() {
        let alice = owner(&jwt(r#"{"sub":"alice"}"#));
        let rows = [
            ("more claims", jwt(r#"{"iat":1,"sub":"alice","exp":2}"#)),
            ("escape", jwt(r#"{"sub":"\u0061lice"}"#)),
            ("another case", jwt(r#"{"sub":"alice"}"#).replace("Bearer", "bEARER")),
            ("spaces", jwt(r#"{"sub":"alice"}"#).replace(' ', "   ")),
            ("another signature", jwt(r#"{"sub":"alice"}"#) + "x"),
        ];
        for (name, value) in rows {
            assert_eq!(owner(&value), alice, "{name}");
        }
        assert_ne!(alice, Owner::Anonymous);
        assert_ne!(alice, owner(&jwt(r#"{"sub":"bob"}"#)));
    }

    #[test]
    fn what_cannot_be_read_stands_for_itself() {
        let long = format!("Bearer {}", "a".repeat(MAX_TOKEN + 1));
        let rows = [
            ("opaque", "Bearer abc".to_owned()),
            ("two parts", "Bearer a.b".to_owned()),
            ("four parts", jwt(r#"{"sub":"alice"}"#) + ".x"),
            ("no base64", "Bearer a.!!.c".to_owned()),
            ("no JSON", jwt("alice")),
            ("no object", jwt(r#""alice""#)),
            ("number", jwt(r#"{"sub":1}"#)),
            ("two subjects", jwt(r#"{"sub":"alice","sub":"bob"}"#)),
            ("more behind it", jwt(r#"{"sub":"alice"} x"#)),
            ("deep", jwt(&("{\"a\":".to_owned() + &"[".repeat(5000)))),
            ("long", long),
            ("another scheme", "Digest a=b".to_owned()),
            ("scheme alone", "Bearer".to_owned()),
            ("nothing", String::new()),
            ("password without a user", "Basic YQ==".to_owned()),
        ];
        let mut owners: Vec<Owner> = Vec::new();
        for (name, value) in rows {
            let owner = owner(&value);
            assert!(!owners.contains(&owner) && owner != Owner::Anonymous, "{name}");
            assert_eq!(Owner::of(Some(value.as_bytes())), owner, "{name}, again");
            owners.push(owner);
        }
    }

    #[test]
    fn a_user_is_one_whatever_the_password() {
        let alice = owner("Basic YWxpY2U6YQ==");
        assert_eq!(owner("basic YWxpY2U6Yg"), alice);
        assert_ne!(owner("Basic Ym9iOmE="), alice);
        assert_ne!(owner(&jwt(r#"{"sub":"alice"}"#)), alice);
    }
}
