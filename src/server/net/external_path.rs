//! External paths: the path under which a client reaches this server, from outside its proxies.
//!
//! A listing names resources by their paths. A proxy that ends TLS may change the path of a request
//! (nginx: `location /safe/ { proxy_pass http://unix:/run/safe.sock:/; }`), but does not change the
//! paths in the response. A client such as rclone ignores resources outside the path that it asked
//! for, takes the listing for an empty one, and removes a good copy. So a listing has the path of
//! `publicUrl` where a proxy forwards the request, and is refused where its path is unknown.
//!
//! `X-Forwarded-Prefix` is no substitute for `publicUrl`: some proxies send it and remove nothing.
//! But where a proxy sends it, the path outside begins with it, so another `publicUrl` is wrong.
//!
//! rclone sends the URL of its remote as `Referer`, with the path that it uses outside. It shows a
//! wrong `publicUrl`, and a proxy that nothing else shows.

use std::sync::atomic::{AtomicBool, Ordering};

use http::header::REFERER;
use http::{HeaderMap, Version};

use crate::config::{Config, Tls};

/// Which path the resources in a response have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PathBase {
    /// `basePath`, as in the request that this server sees.
    Own,
    /// The path of `publicUrl`.
    Public,
}

/// The path of `publicUrl`. Begins and ends with a slash.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PublicPath {
    /// Without percent-encoding.
    pub(crate) decoded: String,
    /// Percent-encoded, in the one spelling in which RFC 3986 §6.2.2 writes it.
    pub(crate) encoded: String,
}

impl PublicPath {
    /// The path of `publicUrl`; `None` if that is not set, or its path can be read in two ways (an
    /// encoded slash, an empty or a dot segment, no UTF-8).
    pub(crate) fn of(config: &Config) -> Option<Self> {
        let url = config.public_url.as_deref()?;
        let (_, after_scheme) = url.split_once("://")?;
        let (_, path) = after_scheme.split_once('/')?;
        let inner = path.strip_suffix('/').unwrap_or(path);
        let segments = inner.split('/').filter(|_| !path.is_empty());
        let segments: Option<Vec<_>> = segments.map(decode).collect();
        let segments = segments?;
        let is_clear = |segment: &String| {
            !["", ".", ".."].contains(&segment.as_str())
                && !segment.contains(|character: char| character == '/' || character.is_control())
        };
        segments.iter().all(is_clear).then(|| {
            let mut path = Self {
                decoded: "/".into(),
                encoded: "/".into(),
            };
            for segment in &segments {
                path.decoded.push_str(segment);
                path.decoded.push('/');
                encode(segment, &mut path.encoded);
                path.encoded.push('/');
            }
            path
        })
    }
}

/// Decodes percent-encoding (RFC 3986 §2.1); `None` if it is malformed, or no UTF-8.
fn decode(segment: &str) -> Option<String> {
    let mut bytes = segment.bytes();
    let mut decoded = Vec::new();
    while let Some(byte) = bytes.next() {
        decoded.push(if byte == b'%' {
            let mut digit = || char::from(bytes.next()?).to_digit(16);
            u8::try_from(digit()? * 16 + digit()?).ok()?
        } else {
            byte
        });
    }
    String::from_utf8(decoded).ok()
}

fn encode(segment: &str, encoded: &mut String) {
    const DIGITS: [char; 16] = [
        '0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'A', 'B', 'C', 'D', 'E', 'F',
    ];
    for byte in segment.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            encoded.push(byte.into());
        } else {
            let digit = |value: u8| DIGITS.get(usize::from(value)).copied().unwrap_or('0');
            encoded.extend(['%', digit(byte >> 4), digit(byte & 15)]);
        }
    }
}

/// Whether a proxy forwarded a request and may have changed its path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Hop {
    /// No: the client's TLS ends at this server.
    None,
    /// Yes.
    Proxy,
    /// The request does not show it.
    Unknown,
}

/// Chooses the paths in responses under one configuration.
pub(crate) struct ExternalPath {
    /// `None` if it is not set or cannot be used.
    public: Option<PublicPath>,
    is_public_url_set: bool,
    is_own: bool,
    /// `basePath`.
    own: String,
    /// Whether TLS ends at this server.
    ends_tls: bool,
    is_logged: AtomicBool,
}

impl ExternalPath {
    pub(crate) fn new(config: &Config) -> Self {
        let public = PublicPath::of(config);
        let own = config.base_path.as_str();
        Self {
            is_own: public.as_ref().is_some_and(|public| public.decoded == own),
            is_public_url_set: config.public_url.is_some(),
            own: own.to_owned(),
            public,
            ends_tls: config.tls != Tls::Off,
            is_logged: AtomicBool::new(false),
        }
    }

    /// The path of `publicUrl`, if it differs from `basePath`.
    pub(crate) fn public(&self) -> Option<&PublicPath> {
        self.public.as_ref().filter(|_| !self.is_own)
    }

    /// The paths for the response to a request; `None` if they are unknown, which is logged.
    /// `is_proxy` says whether the peer is a trusted proxy without the PROXY protocol, and
    /// `resource` is the path of the resource under `basePath`.
    pub(crate) fn base(
        &self,
        version: Version,
        headers: &HeaderMap,
        is_proxy: bool,
        resource: &str,
    ) -> Option<PathBase> {
        let hop = self.hop(version, headers, is_proxy);
        let base = match (hop, &self.public) {
            (Hop::None, _) => Ok(PathBase::Own),
            (_, Some(public)) if !begins_with_prefix(&public.decoded, headers) => {
                Err("the path of publicUrl does not begin with X-Forwarded-Prefix")
            }
            (_, Some(_)) if self.is_own => Ok(PathBase::Own),
            (Hop::Proxy, Some(_)) => Ok(PathBase::Public),
            (Hop::Unknown, Some(_)) => Err("the path of publicUrl is not basePath"),
            (_, None) if self.is_public_url_set => Err("publicUrl has an ambiguous path"),
            (_, None) => Err("publicUrl is not set"),
        };
        let base = base.and_then(|base| {
            let public = self.public.as_ref().filter(|_| base == PathBase::Public);
            let path = public.map_or(&self.own, |public| &public.decoded);
            let is_used = referer_path(headers).is_none_or(|remote| {
                // Own paths are those of the request. Others are outside the path that was asked
                // for, unless the remote is under the path of `publicUrl`.
                format!("{path}{resource}/").starts_with(&remote)
                    && (base == PathBase::Own || remote.starts_with(path))
            });
            is_used
                .then_some(base)
                .ok_or("the client uses another path, says its Referer")
        });
        base.inspect_err(|reason| {
            if !self.is_logged.swap(true, Ordering::Relaxed) {
                tracing::warn!(reason, "listing refused: external path unknown");
            }
        })
        .ok()
    }

    fn hop(&self, version: Version, headers: &HeaderMap, is_proxy: bool) -> Hop {
        // No WebDAV client speaks HTTP/1.0; nginx does, unless it is told otherwise.
        let is_forwarded = version < Version::HTTP_11 || has_forwarding_header(headers);
        // A proxy that passes TLS through cannot change a path; that is what the PROXY protocol is
        // for.
        let is_client = self.ends_tls && !is_proxy;
        match (is_forwarded, is_client) {
            (false, true) => Hop::None,
            (true, false) => Hop::Proxy,
            // A proxy that is not in `trustedProxies`; or a client on the machine of the proxy.
            (true, true) | (false, false) => Hop::Unknown,
        }
    }
}

/// Whether a path begins with what a proxy says that it removed, if it says that. Of several
/// removals, Traefik writes a line for each and Spring a list; both begin with the outermost.
fn begins_with_prefix(path: &str, headers: &HeaderMap) -> bool {
    let Some(prefix) = headers.get("x-forwarded-prefix") else {
        return true;
    };
    let outermost = prefix.to_str().ok().and_then(|list| list.split(',').next());
    let prefix = outermost.and_then(decode);
    prefix.is_some_and(|prefix| {
        let inner = prefix.trim().trim_matches('/');
        inner.is_empty() || path.starts_with(&format!("/{inner}/"))
    })
}

/// The path of the URL that a client sends as `Referer`, with slashes around it; `None` if there is
/// none.
fn referer_path(headers: &HeaderMap) -> Option<String> {
    let referer = headers.get(REFERER)?.to_str().ok()?;
    let (_, after_scheme) = referer.split_once("://")?;
    let (_, path) = after_scheme.split(['?', '#']).next()?.split_once('/')?;
    let path = decode(path)?;
    let inner = path.strip_suffix('/').unwrap_or(&path);
    Some(if path.is_empty() {
        "/".into()
    } else {
        format!("/{inner}/")
    })
}

/// Whether a header says that a proxy forwarded the request.
fn has_forwarding_header(headers: &HeaderMap) -> bool {
    headers.keys().any(|name| {
        let name = name.as_str();
        ["forwarded", "via", "x-real-ip"].contains(&name) || name.starts_with("x-forwarded-")
    })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use http::HeaderName;
    use serde_json::{Value, json};

    use super::*;

    fn config(value: &Value) -> Config {
        Config::from_json(value.to_string().as_bytes(), Path::new("config.json")).unwrap()
    }

    #[test]
    fn the_public_path_has_one_spelling() {
        for (url, decoded, encoded) in [
            ("https://a", "/", "/"),
            ("https://a/", "/", "/"),
            ("https://a/safe", "/safe/", "/safe/"),
            ("https://a:1/x/safe/", "/x/safe/", "/x/safe/"),
            ("https://a/%73afe/", "/safe/", "/safe/"),
            ("https://a/caf%c3%a9", "/caf\u{e9}/", "/caf%C3%A9/"),
            ("https://a/a%20b+c", "/a b+c/", "/a%20b%2Bc/"),
        ] {
            let path = PublicPath::of(&config(&json!({ "publicUrl": url }))).unwrap();
            assert_eq!(
                (&*path.decoded, &*path.encoded),
                (decoded, encoded),
                "{url}"
            );
        }
        for bad in [
            "//", "/a//b", "/a/../b", "/./a", "/%2e%2E/", "/a%2fb", "/%ff", "/a%00",
        ] {
            let url = format!("https://a{bad}");
            let path = PublicPath::of(&config(&json!({ "publicUrl": url })));
            assert_eq!(path, None, "{bad}");
        }
        assert_eq!(PublicPath::of(&config(&json!({}))), None);
    }

    /// What is chosen without and with a forwarding header, for a peer that is no trusted proxy and
    /// for one that is.
    fn chosen(value: &Value) -> [[Option<PathBase>; 2]; 2] {
        let external = ExternalPath::new(&config(value));
        let name = HeaderName::from_static("x-forwarded-for");
        let forwarded = HeaderMap::from_iter([(name, "192.0.2.1".parse().unwrap())]);
        [false, true].map(|is_trusted| {
            [&HeaderMap::new(), &forwarded]
                .map(|headers| external.base(Version::HTTP_11, headers, is_trusted, ""))
        })
    }

    #[test]
    fn the_paths_are_right_or_unknown() {
        use PathBase::{Own, Public};
        let off = json!({ "tls": "off", "listen": ["127.0.0.1:80"] });
        let with = |mut value: Value, more: &[(&str, &str)]| {
            for (key, text) in more {
                value[*key] = json!(text);
            }
            value
        };
        let (root, safe) = (("publicUrl", "https://a"), ("publicUrl", "https://a/safe"));
        for (value, expected) in [
            (json!({}), [[Some(Own), None], [None, None]]),
            (off.clone(), [[None, None], [None, None]]),
            // The same path outside and inside.
            (with(json!({}), &[root]), [[Some(Own); 2]; 2]),
            (with(off.clone(), &[root]), [[Some(Own); 2]; 2]),
            (
                with(off.clone(), &[safe, ("basePath", "/safe")]),
                [[Some(Own); 2]; 2],
            ),
            // Another path: a proxy removes it.
            (
                with(json!({}), &[safe]),
                [[Some(Own), None], [None, Some(Public)]],
            ),
            (
                with(off.clone(), &[safe]),
                [[None, Some(Public)], [None, Some(Public)]],
            ),
            (
                with(off, &[root, ("basePath", "/safe")]),
                [[None, Some(Public)]; 2],
            ),
            (
                with(json!({}), &[("publicUrl", "https://a/x%2fy")]),
                [[Some(Own), None], [None, None]],
            ),
        ] {
            assert_eq!(chosen(&value), expected, "{value}");
        }
    }

    #[test]
    fn a_public_url_without_the_prefix_that_a_proxy_removed_is_wrong() {
        let base = |url: &str, base_path: &str, prefix: &str| {
            let external = ExternalPath::new(&config(&json!({
                "tls": "off", "listen": ["127.0.0.1:80"], "publicUrl": url, "basePath": base_path,
            })));
            let name = HeaderName::from_static("x-forwarded-prefix");
            let headers = HeaderMap::from_iter([(name, prefix.parse().unwrap())]);
            external.base(Version::HTTP_11, &headers, true, "")
        };
        for (url, base_path, prefix, expected) in [
            ("https://a/safe/", "/", "/safe", Some(PathBase::Public)),
            ("https://a/safe/", "/", "safe/", Some(PathBase::Public)),
            ("https://a/x/safe/", "/", "/x", Some(PathBase::Public)),
            (
                "https://a/x/safe/",
                "/",
                "/x, /safe",
                Some(PathBase::Public),
            ),
            ("https://a/x/safe/", "/", "/safe, /x", None),
            (
                "https://a/caf%C3%A9/",
                "/",
                "/caf%c3%a9/",
                Some(PathBase::Public),
            ),
            ("https://a/safe/", "/safe/", "/safe", Some(PathBase::Own)),
            ("https://a/", "/", "", Some(PathBase::Own)),
            ("https://a/", "/", "/", Some(PathBase::Own)),
            ("https://a/", "/", "/safe", None),
            ("https://a/safe/", "/safe/", "/saf", None),
            ("https://a/safe/", "/", "/other", None),
            ("https://a/", "/", "%zz", None),
        ] {
            assert_eq!(
                base(url, base_path, prefix),
                expected,
                "{url} {base_path} {prefix}"
            );
        }
    }

    #[test]
    fn a_client_that_uses_another_path_gets_no_listing() {
        let base = |value: &Value, is_forwarded: bool, referer: &str| {
            let external = ExternalPath::new(&config(value));
            let mut headers = HeaderMap::from_iter([(REFERER, referer.parse().unwrap())]);
            if is_forwarded {
                headers.insert("x-forwarded-for", "192.0.2.1".parse().unwrap());
            }
            external.base(Version::HTTP_11, &headers, is_forwarded, "backups/")
        };
        let direct = json!({});
        let root = json!({ "publicUrl": "https://a", "trustedProxies": ["192.0.2.1"] });
        let safe = json!({ "publicUrl": "https://a/s%61fe", "trustedProxies": ["192.0.2.1"] });
        for (value, is_forwarded, path, is_listed) in [
            (&direct, false, "", true),
            (&direct, false, "/", true),
            (&direct, false, "/backups", true),
            (&direct, false, "/backups/", true),
            (&direct, false, "/?x#/y", true),
            (&direct, false, "/%zz", true),
            // A proxy that nothing else shows.
            (&direct, false, "/safe/", false),
            (&direct, false, "/back", false),
            (&direct, false, "//", false),
            (&root, true, "/", true),
            (&root, true, "/safe/", false),
            (&safe, true, "", true),
            // The request may have been for `/backups/`, at a second place in the proxy.
            (&safe, true, "/", false),
            (&safe, true, "/safe", true),
            (&safe, true, "/sa%66e/", true),
            (&safe, true, "/safe/backups/", true),
            (&safe, true, "/backups/", false),
            (&safe, true, "/safe/safe/", false),
        ] {
            let base = base(value, is_forwarded, &format!("https://here:1{path}"));
            assert_eq!(base.is_some(), is_listed, "{value} {path}");
        }
        assert!(base(&direct, false, "no URL").is_some());
    }

    #[test]
    fn a_proxy_is_recognised_by_its_headers_or_its_version() {
        let external = ExternalPath::new(&config(&json!({
            "tls": "off", "listen": ["127.0.0.1:80"], "publicUrl": "https://a/safe/",
        })));
        for name in [
            "forwarded",
            "via",
            "x-real-ip",
            "x-forwarded-for",
            "x-forwarded-proto",
            "x-forwarded-prefix",
        ] {
            let header = (HeaderName::from_static(name), "safe".parse().unwrap());
            let headers = HeaderMap::from_iter([header]);
            let base = external.base(Version::HTTP_11, &headers, true, "");
            assert_eq!(base, Some(PathBase::Public), "{name}");
        }
        for (version, expected) in [
            (Version::HTTP_10, Some(PathBase::Public)),
            (Version::HTTP_11, None),
            (Version::HTTP_2, None),
        ] {
            let headers = HeaderMap::from_iter([(http::header::HOST, "a".parse().unwrap())]);
            assert_eq!(
                external.base(version, &headers, true, ""),
                expected,
                "{version:?}"
            );
        }
    }
}
