//! Faults that a test switches on and off.

use std::time::Duration;

use serde_json::json;

use super::exchange::{End, Reply, Response, Shape, Step};

/// What a host does instead of its normal answer.
#[derive(Clone, Debug)]
pub enum Fault {
    /// Answers this.
    Answer(Reply),
    /// Answers this status with a registry's JSON error.
    Status(u16),
    /// Hub's pull limit: JSON `TOOMANYREQUESTS`, Retry-After and the rate limit's headers.
    TooManyRequests,
    /// Hub's abuse limit: plain text.
    Hap429,
    /// Hub's login limit.
    LoginLimit,
    /// Ends the connection without an answer.
    Close(End),
    /// Never answers.
    Stall,
    /// Answers normally, in this shape.
    Shape(Shape),
    /// Answers normally, after a pause.
    Delay(Duration),
}

impl Fault {
    /// A redirect with this `Location`, which may be any bytes.
    #[must_use]
    pub fn redirect(status: u16, location: impl AsRef<[u8]>) -> Self {
        Self::Answer(Reply::redirect(status, location))
    }

    /// These bytes, then a closed connection.
    #[must_use]
    pub fn raw(bytes: impl AsRef<[u8]>) -> Self {
        Self::Answer(Reply::raw(bytes))
    }

    /// What a host that has this fault answers.
    #[must_use]
    pub fn reply(&self) -> Reply {
        match self {
            Self::Answer(reply) => reply.clone(),
            Self::Status(status) => {
                Response::error(*status, "UNAVAILABLE", &format!("status {status} on demand"))
                    .into()
            }
            Self::TooManyRequests => too_many_requests().into(),
            Self::Hap429 => Response::text(429, "Too Many Requests (HAP429).\n").into(),
            Self::LoginLimit => {
                let details = "too many failed login attempts for username or IP address";
                Response::json(429, &json!({ "details": details })).into()
            }
            Self::Close(end) => Reply::Raw(vec![Step::End(*end)]),
            Self::Stall => Reply::Raw(vec![Step::Stall]),
            Self::Shape(shape) => Reply::Shaped(shape.clone()),
            Self::Delay(pause) => Reply::Shaped(Shape::Delay(*pause)),
        }
    }
}

fn too_many_requests() -> Response {
    let message = "You have reached your unauthenticated pull rate limit. \
                   https://www.docker.com/increase-rate-limit";
    Response::error(429, "TOOMANYREQUESTS", message)
        .header("Docker-Distribution-Api-Version", "registry/2.0")
        .header("Retry-After", "3600")
        .header("ratelimit-limit", "100;w=21600")
        .header("ratelimit-remaining", "0;w=21600")
        .header("docker-ratelimit-source", "203.0.113.7")
}
