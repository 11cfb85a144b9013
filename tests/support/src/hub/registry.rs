//! What the hosts answer when no fault is on: registry, token server, search index, CDN, mirror.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use bytes::Bytes;
use flate2::{Compression, GzBuilder};
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
use ring::{digest, hmac};
use serde_json::{Value, json};

use super::exchange::{Recorded, Response};
use super::{CLOUDFLARE, CLOUDFRONT, Kind};
use crate::tls::Identity;

const INDEX: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
const MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
const CONFIG: &str = "application/vnd.docker.container.image.v1+json";
const LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar.gzip";

/// Seconds for which a token or a signed URL is good; R2's URLs say the same.
const LIFETIME: u64 = 1200;

/// An image that `Hub::add_image` made; digests begin with `sha256:`.
#[derive(Clone, Debug)]
pub struct Image {
    /// Digest of the manifest list, which the tag names.
    pub digest: String,
    /// Digests of the manifests, for linux/amd64 and linux/arm64.
    pub manifests: Vec<String>,
    /// Digests of the configurations, in the same order.
    pub configs: Vec<String>,
    /// Digests of the layers.
    pub layers: Vec<String>,
}

struct Manifest {
    media_type: String,
    digest: String,
    body: Bytes,
}

/// Contents of the registry, its accounts and its keys.
pub(super) struct Registry {
    blobs: HashMap<String, Bytes>,
    /// By repository, then by tag or digest.
    manifests: HashMap<String, BTreeMap<String, Manifest>>,
    /// User and password that a repository asks for.
    accounts: HashMap<String, (String, String)>,
    pub(super) authentication: bool,
    pub(super) challenge: String,
    pub(super) cdn: String,
    pub(super) scheme: Option<String>,
    pub(super) limit: u64,
    counted: u64,
    signer: EcdsaKeyPair,
    certificate: String,
    issued: HashSet<String>,
    url_key: hmac::Key,
}

impl Registry {
    pub(super) fn new(identity: &Identity) -> Self {
        let random = SystemRandom::new();
        let key = identity.key.serialized_der();
        let signer = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, key, &random)
            .expect("an ECDSA key");
        Self {
            blobs: HashMap::new(),
            manifests: HashMap::new(),
            accounts: HashMap::new(),
            authentication: true,
            challenge: "Bearer realm=\"https://auth.docker.io/token\",\
                        service=\"registry.docker.io\""
                .to_owned(),
            cdn: CLOUDFLARE.to_owned(),
            scheme: None,
            limit: 100,
            counted: 0,
            signer,
            certificate: STANDARD.encode(&identity.certificate),
            issued: HashSet::new(),
            url_key: hmac::Key::generate(hmac::HMAC_SHA256, &random).expect("random bytes"),
        }
    }

    pub(super) fn add_blob(&mut self, bytes: impl Into<Bytes>) -> String {
        let bytes = bytes.into();
        let digest = sha256(&bytes);
        self.blobs.insert(digest.clone(), bytes);
        digest
    }

    pub(super) fn add_manifest(
        &mut self,
        repository: &str,
        tag: Option<&str>,
        media_type: &str,
        body: impl Into<Bytes>,
    ) -> String {
        let body = body.into();
        let digest = sha256(&body);
        let names = self.manifests.entry(repository.to_owned()).or_default();
        for name in [Some(digest.as_str()), tag].into_iter().flatten() {
            let manifest = Manifest {
                media_type: media_type.to_owned(),
                digest: digest.clone(),
                body: body.clone(),
            };
            names.insert(name.to_owned(), manifest);
        }
        digest
    }

    pub(super) fn add_image(&mut self, repository: &str, tag: &str, files: &[&[u8]]) -> Image {
        let mut layers = Vec::new();
        let mut described = Vec::new();
        let mut diff_ids = Vec::new();
        for (number, content) in files.iter().enumerate() {
            let archive = tar(&format!("layer-{number}"), content);
            diff_ids.push(sha256(&archive));
            let layer = gzip(&archive);
            let size = layer.len();
            let digest = self.add_blob(layer);
            described.push(json!({ "mediaType": LAYER, "size": size, "digest": digest }));
            layers.push(digest);
        }

        let (mut configs, mut manifests, mut list) = (Vec::new(), Vec::new(), Vec::new());
        for architecture in ["amd64", "arm64"] {
            let config = json!({
                "architecture": architecture,
                "os": "linux",
                "created": "2026-01-01T00:00:00Z",
                "config": { "Cmd": ["/layer-0"] },
                "rootfs": { "type": "layers", "diff_ids": diff_ids },
                "history": diff_ids.iter().map(|_| json!({
                    "created": "2026-01-01T00:00:00Z",
                    "created_by": "a test",
                })).collect::<Vec<_>>(),
            })
            .to_string();
            let size = config.len();
            let config = self.add_blob(config);
            let manifest = json!({
                "schemaVersion": 2,
                "mediaType": MANIFEST,
                "config": { "mediaType": CONFIG, "size": size, "digest": config },
                "layers": described,
            })
            .to_string();
            let size = manifest.len();
            let digest = self.add_manifest(repository, None, MANIFEST, manifest);
            list.push(json!({
                "mediaType": MANIFEST,
                "size": size,
                "digest": digest,
                "platform": { "architecture": architecture, "os": "linux" },
            }));
            configs.push(config);
            manifests.push(digest);
        }
        let list = json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": list }).to_string();
        let digest = self.add_manifest(repository, Some(tag), INDEX, list);
        Image { digest, manifests, configs, layers }
    }

    pub(super) fn protect(&mut self, repository: &str, user: &str, password: &str) {
        self.accounts.insert(repository.to_owned(), (user.to_owned(), password.to_owned()));
    }

    pub(super) fn blob(&self, digest: &str) -> Option<Bytes> {
        self.blobs.get(digest).cloned()
    }

    pub(super) fn counted(&self) -> u64 {
        self.counted
    }

    pub(super) fn respond(&mut self, kind: Kind, request: &Recorded) -> Response {
        if kind != Kind::Blank && !names(request.header("host"), &request.host) {
            return Response::text(421, "this host is not served here\n");
        }
        match kind {
            Kind::Registry => self.registry(request),
            Kind::Auth => self.auth(request),
            Kind::Index => index(request),
            Kind::Cdn => self.cdn(request),
            Kind::Mirror => self.mirror(request).header("X-Served-By", &request.host),
            Kind::Blank => Response::text(200, format!("{} {}\n", request.host, request.line())),
        }
    }

    fn registry(&mut self, request: &Recorded) -> Response {
        let response = self.registry_v2(request, true);
        response.header("Docker-Distribution-Api-Version", "registry/2.0")
    }

    fn mirror(&mut self, request: &Recorded) -> Response {
        match request.path() {
            "/token" => self.auth(request),
            _ => self.registry_v2(request, false),
        }
    }

    /// `hub`: with authentication, rate limit and redirects to the CDN.
    fn registry_v2(&mut self, request: &Recorded, hub: bool) -> Response {
        let path = request.path().to_owned();
        if path == "/v2" {
            return Response::redirect(301, "/v2/");
        }
        let Some(rest) = path.strip_prefix("/v2/") else {
            return Response::text(404, "404 page not found\n");
        };
        let resource = resource(rest);
        if hub && self.authentication {
            let scope = resource.as_ref().map(|(repository, _, _)| *repository);
            if let Some(challenge) = self.refusal(request, scope) {
                return Response::error(401, "UNAUTHORIZED", "authentication required")
                    .header("WWW-Authenticate", challenge);
            }
        }
        if rest.is_empty() {
            return Response::json(200, &json!({}));
        }
        let Some((repository, what, reference)) = resource else {
            return Response::text(404, "404 page not found\n");
        };
        if !matches!(request.method.as_str(), "GET" | "HEAD") {
            return Response::error(405, "UNSUPPORTED", "The operation is unsupported.");
        }
        match what {
            "manifests" => self.manifest(request, repository, reference, hub),
            "blobs" => self.blob_or_redirect(request, reference, hub),
            _ => self.tags(request, repository),
        }
    }

    /// The challenge for a request whose token does not reach, if any.
    fn refusal(&mut self, request: &Recorded, repository: Option<&str>) -> Option<String> {
        let token = request.header("authorization").and_then(|value| {
            let (scheme, token) = value.split_once(' ')?;
            scheme.eq_ignore_ascii_case("bearer").then_some(token.trim())
        });
        let valid = token.is_some_and(|token| self.issued.contains(token));
        let scope = repository.map(|repository| format!("repository:{repository}:pull"));
        let granted = match (&scope, token) {
            (Some(_), Some(token)) => valid && grants(token, repository.unwrap_or_default()),
            _ => valid,
        };
        if granted {
            return None;
        }
        let mut challenge = self.challenge.clone();
        if let Some(scope) = scope {
            challenge.push_str(&format!(",scope=\"{scope}\""));
        }
        match (token, valid) {
            (Some(_), true) => challenge.push_str(",error=\"insufficient_scope\""),
            (Some(_), false) => challenge.push_str(",error=\"invalid_token\""),
            (None, _) => {}
        }
        Some(challenge)
    }

    fn manifest(
        &mut self,
        request: &Recorded,
        repository: &str,
        reference: &str,
        hub: bool,
    ) -> Response {
        let Some(manifest) = self.manifests.get(repository).and_then(|of| of.get(reference)) else {
            let code = if self.manifests.contains_key(repository) {
                "MANIFEST_UNKNOWN"
            } else {
                "NAME_UNKNOWN"
            };
            return Response::error(404, code, "manifest unknown");
        };
        let mut response = Response::new(200)
            .header("Content-Type", &manifest.media_type)
            .header("Docker-Content-Digest", &manifest.digest)
            .header("ETag", format!("\"{}\"", manifest.digest))
            .shared_body(manifest.body.clone());
        if hub {
            // A HEAD tells the limit and does not count (docs.docker.com, "Docker Hub usage").
            if request.method == "GET" {
                self.counted += 1;
            }
            let remaining = self.limit.saturating_sub(self.counted);
            response = response
                .header("ratelimit-limit", format!("{};w=21600", self.limit))
                .header("ratelimit-remaining", format!("{remaining};w=21600"))
                .header("docker-ratelimit-source", request.peer.ip().to_string());
        }
        conditional(request, response)
    }

    fn blob_or_redirect(&self, request: &Recorded, digest: &str, hub: bool) -> Response {
        let Some(blob) = self.blobs.get(digest) else {
            return Response::error(404, "BLOB_UNKNOWN", "blob unknown to registry");
        };
        if !hub {
            return file(request, digest, blob);
        }
        let scheme = match &self.scheme {
            Some(scheme) => scheme,
            None if request.tls => "https",
            None => "http",
        };
        let expires = now() + LIFETIME;
        let uri = self.signed(&self.cdn, &request.method, digest, expires);
        Response::redirect(307, format!("{scheme}://{}{uri}", self.cdn))
            .header("Docker-Content-Digest", digest)
    }

    fn tags(&self, request: &Recorded, repository: &str) -> Response {
        let Some(of) = self.manifests.get(repository) else {
            return Response::error(404, "NAME_UNKNOWN", "repository name not known to registry");
        };
        let form = form(request.query());
        let last = form.iter().find(|(name, _)| name == "last").map(|(_, value)| value.as_str());
        let mut tags: Vec<&str> = of
            .keys()
            .map(String::as_str)
            .filter(|tag| !tag.contains(':') && last.is_none_or(|last| *tag > last))
            .collect();
        let count = form.iter().find(|(name, _)| name == "n").and_then(|(_, n)| n.parse().ok());
        let more = count.is_some_and(|count| tags.len() > count);
        tags.truncate(count.unwrap_or(tags.len()));
        let response = Response::json(200, &json!({ "name": repository, "tags": tags }));
        match (more, tags.last(), count) {
            (true, Some(last), Some(count)) => {
                let next = format!("/v2/{repository}/tags/list?last={last}&n={count}");
                response.header("Link", format!("<{next}>; rel=\"next\""))
            }
            _ => response,
        }
    }

    fn cdn(&self, request: &Recorded) -> Response {
        // S3 and R2 refuse a request that is signed twice.
        if request.header("authorization").is_some() {
            return xml(400, "InvalidArgument", "Only one auth mechanism allowed");
        }
        if !matches!(request.method.as_str(), "GET" | "HEAD") {
            return xml(405, "MethodNotAllowed", "The specified method is not allowed");
        }
        let digest = request.path().rsplit('/').nth(1).map(|hex| format!("sha256:{hex}"));
        let Some((digest, blob)) = digest.and_then(|digest| self.blobs.get_key_value(&digest))
        else {
            return xml(404, "NoSuchKey", "The specified key does not exist.");
        };
        let expires = match request.host.as_str() {
            CLOUDFLARE => between(request.query(), "verify=", "-"),
            CLOUDFRONT => between(request.query(), "Expires=", "&"),
            _ => between(request.query(), "X-Amz-Date=", "&"),
        };
        let Some(expires) = expires.and_then(|expires| expires.parse().ok()) else {
            return xml(403, "AccessDenied", "Access Denied");
        };
        // The whole target is compared: a decoded or re-encoded byte breaks the signature.
        if request.uri != self.signed(&request.host, &request.method, digest, expires) {
            return xml(403, "SignatureDoesNotMatch", "The signature does not match");
        }
        if expires < now() {
            return xml(403, "AccessDenied", "Request has expired");
        }
        file(request, digest, blob)
    }

    /// Path and query under which a CDN host serves a blob until `expires`, in Unix seconds.
    pub(super) fn signed(&self, cdn: &str, method: &str, digest: &str, expires: u64) -> String {
        let hex = digest.strip_prefix("sha256:").unwrap_or(digest);
        let path = format!(
            "/registry-v2/docker/registry/v2/blobs/sha256/{}/{hex}/data",
            hex.get(..2).unwrap_or_default()
        );
        let sign = |text: &str| hmac::sign(&self.url_key, text.as_bytes()).as_ref().to_vec();
        match cdn {
            CLOUDFLARE => {
                let signature = STANDARD.encode(sign(&format!("{path} {expires}")));
                let signature = signature.replace('+', "%2B").replace('/', "%2F");
                format!("{path}?verify={expires}-{}", signature.replace('=', "%3D"))
            }
            CLOUDFRONT => {
                let signature = STANDARD.encode(sign(&format!("{path} {expires}")));
                let signature = signature.replace('+', "-").replace('=', "_").replace('/', "~");
                format!("{path}?Expires={expires}&Signature={signature}&Key-Pair-Id=KPID")
            }
            _ => {
                // The signature of S3 covers method and host.
                let query = format!(
                    "X-Amz-Algorithm=AWS4-HMAC-SHA256&X-Amz-Credential=key%2f20260101%2Fauto%2Fs3\
                     %2Faws4_request&X-Amz-Date={expires}&X-Amz-Expires={LIFETIME}\
                     &X-Amz-SignedHeaders=host&x-id=Get%4Fbject"
                );
                let signature = sign(&format!("{method} {cdn} {path} {query}"));
                format!("{path}?{query}&X-Amz-Signature={}", hex_of(&signature))
            }
        }
    }

    fn auth(&mut self, request: &Recorded) -> Response {
        let (parameters, credentials) = match request.method.as_str() {
            "GET" => (form(request.query()), basic(request)),
            "POST" => {
                let parameters = form(&String::from_utf8_lossy(&request.body));
                let credentials = match value(&parameters, "grant_type") {
                    Some("password") => Some((
                        value(&parameters, "username").unwrap_or_default().to_owned(),
                        value(&parameters, "password").unwrap_or_default().to_owned(),
                    )),
                    Some("refresh_token") => value(&parameters, "refresh_token")
                        .and_then(|token| token.strip_prefix("refresh-"))
                        .and_then(decoded_pair),
                    _ => return Response::json(400, &json!({ "details": "invalid grant_type" })),
                };
                (parameters, credentials)
            }
            _ => return Response::new(405),
        };
        if let Some(credentials) = &credentials
            && !self.accounts.values().any(|account| account == credentials)
        {
            let details = "incorrect username or password";
            return Response::json(401, &json!({ "details": details }));
        }

        let scopes = parameters.iter().filter(|(name, _)| name == "scope");
        let repositories: Vec<String> = scopes
            .flat_map(|(_, scopes)| scopes.split(' '))
            .filter_map(|scope| scope.strip_prefix("repository:")?.rsplit_once(':'))
            .filter(|(_, actions)| actions.split(',').any(|action| action == "pull"))
            .map(|(repository, _)| repository.to_owned())
            .filter(|repository| match self.accounts.get(repository) {
                Some(account) => Some(account) == credentials.as_ref(),
                None => true,
            })
            .collect();
        let user = credentials.as_ref().map_or("", |(user, _)| user);
        let repositories: Vec<&str> = repositories.iter().map(String::as_str).collect();
        let token = self.token(user, &repositories);
        let mut answer = json!({
            "token": token,
            "access_token": token,
            "expires_in": LIFETIME,
            "issued_at": rfc3339(now()),
        });
        let offline = value(&parameters, "offline_token") == Some("true")
            || value(&parameters, "access_type") == Some("offline");
        if offline && let Some((user, password)) = &credentials {
            let pair = STANDARD.encode(format!("{user}:{password}"));
            answer["refresh_token"] = json!(format!("refresh-{pair}"));
        }
        Response::json(200, &answer)
    }

    pub(super) fn revoke(&mut self, token: &str) {
        self.issued.remove(token);
    }

    /// A JSON Web Token (RFC 7519) that lets `user` pull from `repositories`; signed with ES256,
    /// its certificate in `x5c`, as a real registry wants it.
    pub(super) fn token(&mut self, user: &str, repositories: &[&str]) -> String {
        let access: Vec<Value> = repositories
            .iter()
            .map(|name| json!({ "type": "repository", "name": name, "actions": ["pull"] }))
            .collect();
        let header = json!({ "typ": "JWT", "alg": "ES256", "x5c": [self.certificate] });
        let claims = json!({
            "iss": "auth.docker.io",
            "sub": user,
            "aud": "registry.docker.io",
            "exp": now() + LIFETIME,
            "nbf": now() - 60,
            "iat": now(),
            "jti": format!("dckr_jti_{}", self.issued.len()),
            "access": access,
        });
        let signed = format!(
            "{}.{}",
            URL_SAFE_NO_PAD.encode(header.to_string()),
            URL_SAFE_NO_PAD.encode(claims.to_string())
        );
        let signature = self.signer.sign(&SystemRandom::new(), signed.as_bytes()).expect("signed");
        let token = format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature));
        self.issued.insert(token.clone());
        token
    }
}

/// `library/x/manifests/latest` → repository, kind, reference.
fn resource(rest: &str) -> Option<(&str, &str, &str)> {
    if let Some(repository) = rest.strip_suffix("/tags/list") {
        return Some((repository, "tags", ""));
    }
    let (before, reference) = rest.rsplit_once('/')?;
    let (repository, what) = before.rsplit_once('/')?;
    match what {
        "manifests" | "blobs" => Some((repository, what, reference)),
        "uploads" => Some((repository.strip_suffix("/blobs")?, what, reference)),
        _ => None,
    }
}

/// Whether a token that the hub issued lets its bearer pull from `repository`.
fn grants(token: &str, repository: &str) -> bool {
    let claims = token
        .split('.')
        .nth(1)
        .and_then(|part| URL_SAFE_NO_PAD.decode(part).ok())
        .and_then(|bytes| serde_json::from_slice::<Value>(&bytes).ok())
        .unwrap_or_default();
    let access = claims["access"].as_array().cloned().unwrap_or_default();
    access.iter().any(|access| access["name"] == repository)
}

fn index(request: &Recorded) -> Response {
    match request.path() {
        "/v1/_ping" => Response::json(200, &json!(true)),
        "/v1/search" => {
            let parameters = form(request.query());
            let query = value(&parameters, "q").unwrap_or_default();
            let results = json!([{
                "name": query,
                "description": "found by the search index",
                "star_count": 1,
                "is_official": true,
                "is_automated": false,
            }]);
            let answer = json!({
                "num_pages": 1,
                "num_results": 1,
                "page": 1,
                "page_size": 25,
                "query": query,
                "results": results,
            });
            Response::json(200, &answer)
        }
        _ => Response::text(404, "404 page not found\n"),
    }
}

/// A file, or the part of it that was asked for (RFC 9110, section 14).
fn file(request: &Recorded, digest: &str, blob: &Bytes) -> Response {
    let response = Response::new(200)
        .header("Content-Type", "application/octet-stream")
        .header("Docker-Content-Digest", digest)
        .header("ETag", format!("\"{digest}\""))
        .header("Last-Modified", "Thu, 01 Jan 2026 00:00:00 GMT")
        .header("Accept-Ranges", "bytes")
        .header("Cache-Control", "public, max-age=2592000")
        .shared_body(blob.clone());
    let response = conditional(request, response);
    let applies = response.status == 200
        && request.method == "GET"
        && request.header("if-range").is_none_or(|tag| tag == format!("\"{digest}\""));
    let Some(range) = request.header("range").filter(|_| applies) else {
        return response;
    };
    match part(range, blob.len()) {
        Part::Whole => response,
        Part::Bytes(first, last) => {
            let status = Response::new(206);
            Response { status: 206, reason: status.reason, ..response }
                .header("Content-Range", format!("bytes {first}-{last}/{}", blob.len()))
                .shared_body(blob.slice(first..=last))
        }
        Part::Unsatisfiable => xml(416, "InvalidRange", "The requested range is not satisfiable")
            .header("Content-Range", format!("bytes */{}", blob.len())),
    }
}

enum Part {
    Whole,
    Bytes(usize, usize),
    Unsatisfiable,
}

/// One range; several or a malformed one are ignored, as the RFC allows.
fn part(range: &str, size: usize) -> Part {
    let Some((first, last)) = range.strip_prefix("bytes=").and_then(|set| set.split_once('-'))
    else {
        return Part::Whole;
    };
    match (first.parse::<usize>(), last.parse::<usize>()) {
        (Ok(first), _) if first >= size => Part::Unsatisfiable,
        (Ok(first), Ok(last)) if last < first => Part::Whole,
        (Ok(first), Ok(last)) => Part::Bytes(first, last.min(size - 1)),
        (Ok(first), Err(_)) if last.is_empty() => Part::Bytes(first, size - 1),
        (Err(_), Ok(0)) if first.is_empty() => Part::Unsatisfiable,
        (Err(_), Ok(_)) if first.is_empty() && size == 0 => Part::Unsatisfiable,
        (Err(_), Ok(suffix)) if first.is_empty() => {
            Part::Bytes(size.saturating_sub(suffix), size - 1)
        }
        _ => Part::Whole,
    }
}

/// 304 when the client has it already (RFC 9110, section 13.1.2).
fn conditional(request: &Recorded, response: Response) -> Response {
    let etag = response.headers.iter().find(|(name, _)| name == "ETag").map(|(_, tag)| tag.clone());
    let Some(etag) = etag.and_then(|etag| String::from_utf8(etag).ok()) else {
        return response;
    };
    let known = request.all("if-none-match").iter().any(|tags| {
        tags.split(',').any(|tag| {
            let tag = tag.trim();
            tag == "*" || tag.strip_prefix("W/").unwrap_or(tag) == etag
        })
    });
    if known { Response::new(304).header("ETag", etag) } else { response }
}

fn xml(status: u16, code: &str, message: &str) -> Response {
    let body = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n\
         <Error><Code>{code}</Code><Message>{message}</Message></Error>"
    );
    Response::new(status).header("Content-Type", "application/xml").body(body)
}

/// Whether a Host field names `host`, on any port.
fn names(field: Option<&str>, host: &str) -> bool {
    let Some(field) = field else { return false };
    let name = match field.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => field,
    };
    name.eq_ignore_ascii_case(host)
        || name.trim_matches(['[', ']']).parse::<std::net::IpAddr>().is_ok()
}

fn between<'a>(text: &'a str, before: &str, after: &str) -> Option<&'a str> {
    let rest = text.split_once(before)?.1;
    Some(rest.split_once(after)?.0)
}

/// The parameters of a form or query, decoded.
fn form(text: &str) -> Vec<(String, String)> {
    text.split('&')
        .filter(|pair| !pair.is_empty())
        .map(|pair| {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            (unescaped(name), unescaped(value))
        })
        .collect()
}

fn value<'a>(parameters: &'a [(String, String)], name: &str) -> Option<&'a str> {
    parameters.iter().find(|(other, _)| other == name).map(|(_, value)| value.as_str())
}

fn unescaped(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        rest = tail;
        let digits = tail.get(..2).and_then(|digits| std::str::from_utf8(digits).ok());
        match (byte, digits.and_then(|digits| u8::from_str_radix(digits, 16).ok())) {
            (b'%', Some(decoded)) => {
                bytes.push(decoded);
                rest = &tail[2..];
            }
            (b'+', _) => bytes.push(b' '),
            _ => bytes.push(byte),
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

fn basic(request: &Recorded) -> Option<(String, String)> {
    let (scheme, pair) = request.header("authorization")?.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case("basic") {
        return None;
    }
    decoded_pair(pair.trim())
}

fn decoded_pair(pair: &str) -> Option<(String, String)> {
    let pair = String::from_utf8(STANDARD.decode(pair).ok()?).ok()?;
    let (user, password) = pair.split_once(':')?;
    Some((user.to_owned(), password.to_owned()))
}

pub(super) fn sha256(bytes: &[u8]) -> String {
    format!("sha256:{}", hex_of(digest::digest(&digest::SHA256, bytes).as_ref()))
}

fn hex_of(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn tar(name: &str, content: &[u8]) -> Vec<u8> {
    let mut header = tar::Header::new_gnu();
    header.set_size(content.len() as u64);
    header.set_mode(0o755);
    let mut archive = tar::Builder::new(Vec::new());
    archive.append_data(&mut header, name, content).expect("an archive in memory");
    archive.into_inner().expect("an archive in memory")
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    use std::io::Write;

    let mut encoder = GzBuilder::new().mtime(0).write(Vec::new(), Compression::fast());
    encoder.write_all(bytes).expect("written to memory");
    encoder.finish().expect("written to memory")
}

/// Unix seconds.
pub(super) fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// `2026-01-01T00:00:00Z`, from Unix seconds.
fn rfc3339(seconds: u64) -> String {
    let (days, rest) = (seconds / 86400, seconds % 86400);
    let (mut year, mut day) = (1970, days);
    let leap = |year: u64| {
        year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
    };
    while day >= 365 + u64::from(leap(year)) {
        day -= 365 + u64::from(leap(year));
        year += 1;
    }
    let lengths = [31, 28 + u64::from(leap(year)), 31, 30, 31, 30, 31, 31, 30, 31, 30, 31];
    let mut month = 1;
    for length in lengths {
        if day < length {
            break;
        }
        day -= length;
        month += 1;
    }
    let (hour, minute, second) = (rest / 3600, rest % 3600 / 60, rest % 60);
    format!("{year:04}-{month:02}-{:02}T{hour:02}:{minute:02}:{second:02}Z", day + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_become_a_date() {
        let cases = [
            ("epoch", 0, "1970-01-01T00:00:00Z"),
            ("leap day", 1_709_164_800, "2024-02-29T00:00:00Z"),
            ("last second of a year", 1_798_761_599, "2026-12-31T23:59:59Z"),
        ];
        for (name, seconds, want) in cases {
            assert_eq!(rfc3339(seconds), want, "{name}");
        }
    }

    #[test]
    fn forms_are_decoded() {
        let pairs = form("scope=repository%3Alibrary/x:pull+push&account=&a%2");
        let want = [("scope", "repository:library/x:pull push"), ("account", ""), ("a%2", "")];
        for (pair, (name, value)) in pairs.iter().zip(want) {
            assert_eq!((pair.0.as_str(), pair.1.as_str()), (name, value));
        }
    }
}
