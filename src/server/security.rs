//! What keeps foreign pages out: the Host allow-list, the origin of commands, the body limit, the headers of each answer.
//!
//! Knows nothing of what is asked. **Architecture Invariant:** the Host check stands before the origin check, which
//! compares with Host and would otherwise compare two values of an attacker's choice.

use std::{net::IpAddr, sync::Arc};

use axum::{
    body::{Body, Bytes},
    extract::{Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, Uri, header},
    middleware::Next,
};
use leptos::nonce::use_nonce;
use leptos_axum::ResponseOptions;

use super::{
    config::Limits,
    openai,
    refusal::{refusal, refusal_with},
};
use crate::chat::error::{ChatError, ErrorCode};

/// Names that the Host header may carry besides IP addresses and localhost.
#[derive(Debug, Clone)]
pub struct AllowedHosts(Arc<[String]>);

impl AllowedHosts {
    /// Takes the names in lowercase.
    #[must_use]
    pub fn new(names: &[String]) -> Self {
        Self(names.into())
    }

    /// Whether a Host header's value, port included, may be used. IP addresses may: a name that an attacker points at
    /// this machine is what the list is against.
    #[must_use]
    pub fn allow(&self, host: &str) -> bool {
        let name = without_port(host);
        let bare = name.trim_start_matches('[').trim_end_matches(']');
        name.eq_ignore_ascii_case("localhost")
            || bare.parse::<IpAddr>().is_ok()
            || self.0.iter().any(|allowed| allowed.eq_ignore_ascii_case(name))
    }
}

fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) && !name.ends_with(':') => {
            // An IPv6 address without brackets has colons of its own and no port.
            if name.contains(':') && !name.ends_with(']') { host } else { name }
        }
        _ => host,
    }
}

/// Refuses with 421 what was sent to a name that is not this server's, and with 400 what asks for no path but a tunnel.
pub async fn check_host(State(hosts): State<AllowedHosts>, request: Request, next: Next) -> Response<Body> {
    if request.uri().path_and_query().is_none() {
        return refusal(&ChatError::new(ErrorCode::Malformed, "the request names no path; expected one"));
    }
    if is_for_us(&hosts, request.uri(), request.headers()) {
        return next.run(request).await;
    }
    refusal_with(
        StatusCode::MISDIRECTED_REQUEST,
        &ChatError::new(
            ErrorCode::Malformed,
            "the Host header names another server; expected localhost, an IP address or a name from --allowed_hosts",
        ),
    )
}

fn is_for_us(hosts: &AllowedHosts, uri: &Uri, headers: &HeaderMap) -> bool {
    let mut named = headers.get_all(header::HOST).iter();
    let host = named.next().and_then(|host| host.to_str().ok());
    if named.next().is_some() {
        return false;
    }
    match (uri.authority(), host) {
        (Some(authority), Some(host)) => hosts.allow(authority.as_str()) && hosts.allow(host),
        (Some(authority), None) => hosts.allow(authority.as_str()),
        (None, Some(host)) => hosts.allow(host),
        (None, None) => false,
    }
}

/// Refuses with 403 what another site's page made a browser send. Programs that are no browsers send neither header and
/// pass.
pub async fn check_origin(request: Request, next: Next) -> Response<Body> {
    let is_reading = matches!(*request.method(), Method::GET | Method::HEAD | Method::OPTIONS);
    if is_reading || is_from_own_page(request.headers()) {
        return next.run(request).await;
    }
    refusal_with(
        StatusCode::FORBIDDEN,
        &ChatError::new(ErrorCode::Malformed, "the request comes from another site's page; expected this server's own"),
    )
}

fn is_from_own_page(headers: &HeaderMap) -> bool {
    let text = |name: &HeaderName| headers.get(name).map(|value| value.to_str().unwrap_or_default());
    if let Some(site) = text(&HeaderName::from_static("sec-fetch-site")) {
        return matches!(site, "same-origin" | "none");
    }
    let Some(origin) = text(&header::ORIGIN) else {
        return true;
    };
    let own = text(&header::HOST).unwrap_or_default();
    origin.split_once("://").is_some_and(|(_, host)| host.eq_ignore_ascii_case(own))
}

/// Takes a request's body in whole, within the limits of size (413) and time (408), before anything looks at it.
pub async fn limit_body(State(limits): State<Arc<Limits>>, request: Request, next: Next) -> Response<Body> {
    let (parts, body) = request.into_parts();
    let most = if openai::is_api(parts.uri.path()) { limits.api_body_bytes } else { limits.body_bytes };
    let declared =
        parts.headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse::<u64>().ok());
    if declared.is_some_and(|length| length > most as u64) {
        return too_large(most);
    }
    match tokio::time::timeout(limits.body_time, collect(body, most)).await {
        Ok(Ok(bytes)) => next.run(Request::from_parts(parts, Body::from(bytes))).await,
        Ok(Err(BodyError::TooLarge)) => too_large(most),
        Ok(Err(BodyError::Broken)) => {
            refusal(&ChatError::new(ErrorCode::Malformed, "the request's body broke off; expected all of it"))
        }
        Err(_) => refusal_with(
            StatusCode::REQUEST_TIMEOUT,
            &ChatError::new(
                ErrorCode::Malformed,
                format!("the request's body did not arrive; expected it within {} seconds", limits.body_time.as_secs()),
            ),
        ),
    }
}

enum BodyError {
    TooLarge,
    Broken,
}

async fn collect(body: Body, limit: usize) -> Result<Bytes, BodyError> {
    use futures::StreamExt;

    let mut chunks = body.into_data_stream();
    let mut bytes = Vec::new();
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(|_| BodyError::Broken)?;
        if bytes.len() + chunk.len() > limit {
            return Err(BodyError::TooLarge);
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes.into())
}

fn too_large(most: usize) -> Response<Body> {
    refusal_with(
        StatusCode::PAYLOAD_TOO_LARGE,
        &ChatError::new(
            ErrorCode::MessageTooLong,
            format!("the request's body is larger than {most} bytes, which is the most allowed"),
        ),
    )
}

/// Puts on every answer the headers that it does not have yet.
pub async fn set_headers(request: Request, next: Next) -> Response<Body> {
    let mut response = next.run(request).await;
    let is_file =
        response.headers().contains_key(header::LAST_MODIFIED) || response.status() == StatusCode::NOT_MODIFIED;
    let headers = response.headers_mut();
    if is_file {
        // Which of a file's forms is sent is decided by what was asked for.
        headers.entry(header::VARY).or_insert(HeaderValue::from_static("accept-encoding"));
    }
    for (name, value) in [
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "same-origin"),
        (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
        (
            HeaderName::from_static("permissions-policy"),
            "camera=(), geolocation=(), microphone=(), payment=(), usb=(), clipboard-write=(self)",
        ),
        (
            header::CONTENT_SECURITY_POLICY,
            "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
        ),
        // The page's files keep their names from build to build, so they may be kept but are asked after each time.
        (header::CACHE_CONTROL, if is_file { "no-cache" } else { "no-store" }),
    ] {
        headers.entry(name).or_insert(HeaderValue::from_static(value));
    }
    response
}

/// Sets the page's content security policy, with the nonce of the page that is being rendered. Call it where that page's
/// context is.
pub fn set_page_policy() {
    let (Some(nonce), Some(options)) = (use_nonce(), leptos::prelude::use_context::<ResponseOptions>()) else {
        return;
    };
    let is_watched = std::env::var_os("LEPTOS_WATCH").is_some();
    if let Ok(policy) = HeaderValue::from_str(&page_policy(&nonce, is_watched)) {
        options.insert_header(header::CONTENT_SECURITY_POLICY, policy);
    }
}

fn page_policy(nonce: &str, is_watched: bool) -> String {
    // Under `cargo leptos watch` the page listens for reloads on a socket of its own.
    let connect = if is_watched { "'self' ws:" } else { "'self'" };
    format!(
        "default-src 'none'; script-src 'nonce-{nonce}' 'strict-dynamic' 'wasm-unsafe-eval'; \
         style-src 'self' 'nonce-{nonce}'; img-src 'self' data:; font-src 'self'; connect-src {connect}; \
         form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (HeaderName::from_static(name), HeaderValue::from_static(value))).collect()
    }

    #[test]
    fn a_host_is_an_address_localhost_or_listed() {
        let hosts = AllowedHosts::new(&["chat.example.org".to_owned()]);
        for host in [
            "localhost",
            "LOCALHOST:36000",
            "127.0.0.1",
            "127.0.0.1:36000",
            "[::1]:36000",
            "[::1]",
            "192.168.1.2:80",
            "chat.example.org",
            "Chat.Example.Org:443",
        ] {
            assert!(hosts.allow(host), "{host}");
        }
        for host in [
            "evil.test",
            "evil.test:36000",
            "localhost.evil.test",
            "evil.localhost.test",
            "chat.example.org.evil.test",
            "127.0.0.1.evil.test",
            "",
            ":36000",
            "localhost:x",
            "user@localhost",
        ] {
            assert!(!hosts.allow(host), "{host}");
        }
    }

    #[test]
    fn two_hosts_or_none_are_nobodys() {
        let hosts = AllowedHosts::new(&[]);
        let uri = Uri::from_static("/");
        assert!(!is_for_us(&hosts, &uri, &HeaderMap::new()));
        let mut two = headers(&[("host", "localhost")]);
        two.append(header::HOST, HeaderValue::from_static("localhost"));
        assert!(!is_for_us(&hosts, &uri, &two));
        assert!(!is_for_us(&hosts, &Uri::from_static("http://evil.test/"), &headers(&[("host", "localhost")])));
    }

    #[test]
    fn commands_come_from_the_own_page_or_from_no_page() {
        for own in [
            headers(&[("host", "localhost:1")]),
            headers(&[("host", "localhost:1"), ("origin", "http://localhost:1")]),
            headers(&[("host", "localhost:1"), ("sec-fetch-site", "same-origin")]),
            headers(&[("host", "localhost:1"), ("sec-fetch-site", "none")]),
        ] {
            assert!(is_from_own_page(&own), "{own:?}");
        }
        for foreign in [
            headers(&[("host", "localhost:1"), ("origin", "http://localhost:2")]),
            headers(&[("host", "localhost:1"), ("origin", "http://evil.test")]),
            headers(&[("host", "localhost:1"), ("origin", "null")]),
            headers(&[("host", "localhost:1"), ("origin", "")]),
            headers(&[("host", "localhost:1"), ("sec-fetch-site", "same-site")]),
            headers(&[("host", "localhost:1"), ("sec-fetch-site", "cross-site"), ("origin", "http://localhost:1")]),
        ] {
            assert!(!is_from_own_page(&foreign), "{foreign:?}");
        }
    }

    #[test]
    fn only_a_watched_page_may_open_sockets() {
        assert!(!page_policy("n", false).contains("ws:"));
        assert!(page_policy("n", true).contains("connect-src 'self' ws:;"));
    }
}
