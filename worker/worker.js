// Docker Hub, asked from Cloudflare's network: the target of nginx's `docker_fallback`, or a mirror
// by itself. Settings are variables, described in wrangler.toml. Nothing is kept or logged here.

const REGISTRY = "https://registry-1.docker.io";
const AUTH = "https://auth.docker.io/token";

// Where Docker Hub's blobs are: https hosts, `*` is one label of a name.
const CDNS = `
  production.cloudflare.docker.com
  production.cloudfront.docker.com
  docker-images-prod.*.r2.cloudflarestorage.com
  docker-images-prod.s3.dualstack.*.amazonaws.com`;

const HOPS = 5;
const FORM_BYTES = 65_536;
// Seconds from a request to the header of its answer; a body may take longer.
const TIMEOUT = 10;

// What upstream gets of a request: no cookies, no client's address.
const REQUEST_FIELDS = [
  "Accept",
  "Authorization",
  "Content-Type",
  "If-Match",
  "If-Modified-Since",
  "If-None-Match",
  "If-Range",
  "If-Unmodified-Since",
  "Range",
  "User-Agent",
];

// What the client gets of an answer: no `Cache-Control: public` of a CDN, which does not know that
// the URL it serves was signed for one client.
const RESPONSE_FIELDS = [
  "Accept-Ranges",
  "Content-Encoding",
  "Content-Length",
  "Content-Range",
  "Content-Type",
  "Docker-Content-Digest",
  "Docker-Distribution-Api-Version",
  "Docker-RateLimit-Source",
  "ETag",
  "Last-Modified",
  "Link",
  "OCI-Filters-Applied",
  "RateLimit-Limit",
  "RateLimit-Remaining",
  "Retry-After",
  "WWW-Authenticate",
  "Warning",
];

// What stays of an error whose body is replaced.
const ERROR_FIELDS = [
  "Content-Range",
  "Docker-RateLimit-Source",
  "RateLimit-Limit",
  "RateLimit-Remaining",
  "Retry-After",
  "WWW-Authenticate",
];

// On the way to the client nobody stores what may be private, or compresses what has a digest.
const CACHE_CONTROL = "no-store, no-transform";

// Codes of the OCI distribution-spec; UNAVAILABLE and UNKNOWN are those of the registry that Docker
// Hub runs.
const CODES = {
  401: "UNAUTHORIZED",
  403: "DENIED",
  405: "UNSUPPORTED",
  413: "SIZE_INVALID",
  429: "TOOMANYREQUESTS",
};
const NOT_FOUND = {
  blobs: "BLOB_UNKNOWN",
  manifests: "MANIFEST_UNKNOWN",
  referrers: "MANIFEST_UNKNOWN",
  tags: "NAME_UNKNOWN",
};

export default {
  async fetch(request, env) {
    try {
      return await serve(request, env);
    } catch (error) {
      if (error instanceof Failure) {
        return error.response();
      }
      throw error;
    }
  },
};

async function serve(request, env) {
  const url = new URL(request.url);
  const prefix = await admit(url, env);
  const path = url.pathname.slice(prefix.length);
  if (path === "/token") {
    return token(request, url, env);
  }
  if (path !== "/v2" && !path.startsWith("/v2/")) {
    throw new Failure(404, "not served here");
  }
  if (request.method !== "GET" && request.method !== "HEAD") {
    throw new Failure(405, "this mirror is read-only");
  }
  const realm = env.REALM === "self" ? `${url.origin}${prefix}/token` : env.REALM;
  return resource(request, path, url.search, realm, env);
}

/** The secret prefix of the path, empty where there is none. Refuses who does not know it. */
async function admit(url, env) {
  if (!env.SECRET && env.OPEN === "yes") {
    return "";
  }
  if (!/^[\w-]{16,}$/.test(env.SECRET ?? "")) {
    throw new Failure(503, "this Worker wants a SECRET: 16 or more letters, digits, - and _");
  }
  const [, first] = url.pathname.split("/", 2);
  // Digests have one length, and tell nothing about how much of a guess was right.
  const [given, wanted] = await Promise.all([first, env.SECRET].map(sha256));
  if (!crypto.subtle.timingSafeEqual(given, wanted)) {
    throw new Failure(404, "not served here");
  }
  return `/${first}`;
}

function sha256(text) {
  return crypto.subtle.digest("SHA-256", new TextEncoder().encode(text));
}

/** Asks the token server: GET with the client's own `Authorization`, or an OAuth 2.0 POST. */
async function token(request, url, env) {
  const auth = new URL(env.AUTH ?? AUTH);
  const init = onward(request);
  if (request.method === "GET") {
    auth.search = officialScopes(url.searchParams);
  } else if (request.method === "POST") {
    const length = request.headers.get("Content-Length");
    if (length === null || !(Number(length) <= FORM_BYTES)) {
      throw new Failure(413, `a form has a Content-Length of at most ${FORM_BYTES}`);
    }
    init.body = officialScopes(new URLSearchParams(await request.text())).toString();
  } else {
    throw new Failure(405, "a token is asked for by GET or POST");
  }
  return answer(await ask(auth, init, env), auth.host);
}

/** `repository:alpine:pull` is `repository:library/alpine:pull` at Docker Hub. */
function officialScopes(parameters) {
  const official = (scopes) =>
    scopes.replace(/(^| )repository:([^/: ]+):/g, "$1repository:library/$2:");
  return new URLSearchParams(
    [...parameters].map(([name, value]) => [name, name === "scope" ? official(value) : value]),
  );
}

/** Asks the registry, and goes where it redirects to. */
async function resource(request, path, query, realm, env) {
  const [, repository, kind, reference] =
    path.match(/^\/v2\/(.+)\/(blobs|manifests|referrers|tags)\/([^/]+)$/) ?? [];
  if (repository !== undefined && !repository.includes("/")) {
    path = `/v2/library/${repository}/${kind}/${reference}`;
  }
  const allowed = (env.CDNS ?? CDNS).split(/\s+/);
  let url = new URL((env.REGISTRY ?? REGISTRY) + path + query);
  const { origin } = url;
  let digest = null;
  const init = onward(request);

  for (let hops = 0; ; hops++) {
    const response = await ask(url, init, env);
    // The registry says what a blob is; a CDN need not say it, and is not believed.
    digest ??= response.headers.get("Docker-Content-Digest");
    const location = response.headers.get("Location");
    if (![301, 302, 303, 307, 308].includes(response.status) || location === null) {
      const isRegistrys = url.origin === origin;
      if (!isRegistrys && [401, 407].includes(response.status)) {
        response.body?.cancel();
        throw new Failure(502, `${url.host}: answered ${response.status}`);
      }
      const answered = answer(response, url.host, kind);
      if (response.ok && digest !== null) {
        answered.headers.set("Docker-Content-Digest", digest);
      }
      const challenge = answered.headers.get("WWW-Authenticate");
      // Who gets clients' credentials is the registry's to say, and no CDN's.
      if (!isRegistrys) {
        answered.headers.delete("WWW-Authenticate");
      } else if (challenge !== null && realm) {
        const renamed = challenge.replace(/\brealm="[^"]*"/gi, () => `realm="${realm}"`);
        answered.headers.set("WWW-Authenticate", renamed);
      }
      return answered;
    }
    await response.body?.cancel();
    if (hops === HOPS) {
      throw new Failure(502, `${url.host}: more than ${HOPS} redirects`);
    }
    const next = target(location, url, allowed);
    if (next.origin !== url.origin) {
      init.headers.delete("Authorization");
    }
    url = next;
  }
}

/** Where a redirect leads. */
function target(location, from, allowed) {
  const url = URL.parse(location, from);
  if (url === null || url.username !== "" || url.password !== "") {
    throw new Failure(502, `${from.host}: invalid redirect`);
  }
  const names = url.host.split(".");
  const isLike = (pattern) => {
    const labels = pattern.split(".");
    const fits = (label, i) => label === "*" || label === names[i];
    return labels.length === names.length && labels.every(fits);
  };
  if (url.origin !== from.origin && !(url.protocol === "https:" && allowed.some(isLike))) {
    throw new Failure(502, `${from.host}: redirects to this host are not allowed`);
  }
  return url;
}

/** Method and header that upstream gets. */
function onward(request) {
  const headers = fields(request.headers, REQUEST_FIELDS);
  // A digest is one of the bytes as they are.
  headers.set("Accept-Encoding", "identity");
  return { method: request.method, headers };
}

/** One request. Its answer's header comes in time, or not at all. */
async function ask(url, init, env) {
  const patience = new AbortController();
  const timer = setTimeout(() => patience.abort(), (env.TIMEOUT ?? TIMEOUT) * 1000);
  try {
    return await fetch(url, {
      ...init,
      redirect: "manual",
      cache: "no-store",
      signal: patience.signal,
    });
  } catch {
    // What went wrong may name an address, or a URL with its signature.
    throw patience.signal.aborted
      ? new Failure(504, `${url.host}: timed out`)
      : new Failure(502, `${url.host}: could not be asked`);
  } finally {
    clearTimeout(timer);
  }
}

/** The client's answer. A page is neither content nor a registry's error: it becomes an error. */
function answer(response, host, kind) {
  const { status } = response;
  const headers = fields(response.headers, RESPONSE_FIELDS);
  const type = headers.get("Content-Type") ?? "";
  const isGood = status === 304 || (response.ok && !/^text\/html/i.test(type));
  if (isGood || (status >= 400 && /json/i.test(type))) {
    headers.set("Cache-Control", CACHE_CONTROL);
    return new Response(response.body, { status, headers });
  }
  response.body?.cancel();
  if (status < 400) {
    throw new Failure(502, `${host}: answered ${status} without content`);
  }
  const code = status === 404 ? NOT_FOUND[kind] : undefined;
  const failure = new Failure(status, `${host}: answered ${status}`, code);
  return failure.response(fields(headers, ERROR_FIELDS));
}

/** The fields with these names. */
function fields(headers, names) {
  const present = names.filter((name) => headers.has(name));
  return new Headers(present.map((name) => [name, headers.get(name)]));
}

/** An answer that is our own. */
class Failure extends Error {
  constructor(status, message, code) {
    super(message);
    this.status = status;
    this.code = code ?? CODES[status] ?? (status < 500 ? "UNKNOWN" : "UNAVAILABLE");
  }

  response(headers = new Headers()) {
    const body = JSON.stringify({ errors: [{ code: this.code, message: this.message }] });
    headers.set("Content-Type", "application/json");
    headers.set("Cache-Control", CACHE_CONTROL);
    return new Response(body, { status: this.status, headers });
  }
}
